"""The page, driven in a real browser: headless Chromium runs its script and is read back."""

import base64
import copy
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from experiments.audit.phases import analysis
from experiments.audit.report import page
from tests.support.oracles.planted_run import HOSTILE, build

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# .ci/run installs it; a developer's machine may lack it
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs chromium on the PATH (.ci/run has it)"
)

END = """
const result = document.createElement("pre");
result.id = "result";
result.textContent = JSON.stringify(seen);
document.body.append(result);
"""
DRIVE = """
const seen = {};
const pick = (name, value) => {
  const box = document.getElementById(name);
  box.value = value;
  box.dispatchEvent(new Event("change"));
};
const state = () => document.getElementById("upper-text").innerHTML
  + document.getElementById("lower-text").innerHTML;
const options = (name) => [...document.getElementById(name).options].map((o) => o.value);
pick("prompt", options("prompt")[0]);
seen.start = state();
seen.text = document.getElementById("upper-text").textContent;
seen.bold = document.querySelectorAll("#upper-text b, #upper-text script").length;
for (const name of ["prompt", "trait", "layer", "upper", "lower"]) {
  const before = document.getElementById(name).value;
  const other = options(name).find((value) => value !== before);
  pick(name, other);
  seen[name] = state();
  pick(name, before);
}
const clock = performance.now();
for (const value of options("prompt")) pick("prompt", value);
seen.milliseconds = (performance.now() - clock) / options("prompt").length;
const marked = options("prompt").find((value) => { pick("prompt", value);
  return document.querySelectorAll("#upper-text .exploit").length; });
seen.marked = document.querySelectorAll("#upper-text .exploit").length;
document.querySelector("#upper-text span").onmouseenter();
seen.hover = document.getElementById("hover").textContent;
document.querySelector("#top button").click();
seen.top = document.querySelectorAll("#top li").length;
seen.resources = performance.getEntriesByType("resource")
  .map((entry) => entry.name).filter((name) => !name.startsWith("data:"));
"""
COUNT = """
const seen = {};
seen.tokens = document.querySelectorAll("#upper-text .token").length;
seen.coloured = [...document.querySelectorAll("#upper-text .token")]
  .filter((span) => !span.style.backgroundColor.endsWith(", 0)")).length;
seen.asked = document.getElementById("asked").textContent;
seen.prompts = document.getElementById("prompt").options.length;
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with a planted effect."""
    folder = tmp_path_factory.mktemp("page") / "run"
    analysis.run(folder, build(folder, effect=2.0))
    return folder / "report.html"


@pytest.fixture(scope="module")
def driven(report: Path) -> dict:
    """What the page showed before and after each control was changed, as Chromium saw it."""
    return shown(report.read_text("utf-8"), DRIVE, report.parent)


def shown(made: str, script: str, folder: Path) -> dict:
    """What a script finds in a page once Chromium has run the page's own."""
    path = folder / "driven.html"
    path.write_text(made.replace("</body>", f"<script>{script}{END}</script></body>"), "utf-8")
    return read_back(path)


def read_back(path: Path) -> dict:
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={path.parent}/chromium"]
    done = subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, check=True, timeout=120
    )
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stdout[-500:] + done.stderr[-2000:]
    return json.loads(unescape(found[1]))


@pytest.mark.parametrize("name", ["prompt", "trait", "layer", "upper", "lower"])
def test_every_control_changes_what_is_shown(driven: dict, name: str) -> None:
    assert driven[name] != driven["start"]


def test_markup_in_a_response_is_shown_as_text(driven: dict) -> None:
    assert HOSTILE in driven["text"]
    assert driven["bold"] == 0


def test_spans_are_underlined_and_numbers_come_on_hover(driven: dict) -> None:
    assert driven["marked"] == 6
    assert re.search(r"organism/organism, token 0: cosine -?\d\.\d{4}", driven["hover"])
    assert 1 <= driven["top"] <= 8


def test_no_request_leaves_the_page(driven: dict) -> None:
    assert driven["resources"] == []


def _data(report: Path) -> dict:
    made = report.read_text("utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', made, re.S)[1])


def test_an_answer_of_70_000_tokens_opens(report: Path) -> None:
    data, count = copy.deepcopy(_data(report)), 70_000
    width = len(data["traits"]) * len(data["layers"])
    values = np.random.default_rng(0).integers(-127, 128, (count, width)).astype(np.int8)
    values[100:200] = 0  # a hole
    for rows in data["arms"].values():
        rows[:] = rows[:1]
        rows[0]["exploit"] = 1
        rows[0] |= {"tokens": [" word"] * count, "values": base64.b64encode(values).decode()}
    seen = shown(page.page("t", data), COUNT, report.parent)
    assert seen["tokens"] == count
    assert seen["coloured"] > count / 2
    assert seen["asked"] == data["arms"]["organism/organism"][0]["asked"]


def test_a_page_without_answers_opens_and_says_so(report: Path) -> None:
    data = copy.deepcopy(_data(report))
    for rows in data["arms"].values():
        rows.clear()
    data["top"] = {}
    seen = shown(page.page("t", data), COUNT, report.parent)
    assert seen["asked"] == "(no answers)"
    assert (seen["prompts"], seen["tokens"]) == (0, 0)
