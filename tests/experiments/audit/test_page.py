"""The audit's page, driven in a real browser."""

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from experiments.audit.phases import analysis
from tests.support.oracles.planted_run import HOSTILE, build
from tests.support.processes.browser import driven, needs_chromium

pytestmark = needs_chromium

DRIVE = """
const state = () => document.getElementById("view-upper-text").innerHTML
  + document.getElementById("view-lower-text").innerHTML;
const picked = (name) => document.getElementById(name).selectedOptions[0].textContent;
seen.opens = document.querySelectorAll("#view-upper-text .marked").length;
seen.below = picked("view-lower");
pick("view-prompt", options("view-prompt")[0]);
seen.start = state();
seen.text = document.getElementById("view-upper-text").textContent;
seen.bold = document.querySelectorAll("#view-upper-text b, #view-upper-text script").length;
for (const name of ["view-prompt", "view-pick-0", "view-pick-1", "view-upper", "view-lower"]) {
  const before = document.getElementById(name).value;
  pick(name, options(name).find((value) => value !== before));
  seen[name] = state();
  pick(name, before);
}
seen.layers = options("view-pick-1").map((trait) => {
  pick("view-pick-1", trait);
  return [picked("view-pick-1"), Number(picked("view-pick-0"))];
});
document.querySelector("#view-upper-text .token").onmouseenter();
seen.hover = document.getElementById("view-hover").textContent;
seen.asked = document.getElementById("view-asked").textContent;
const drawn = (cell) => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  const [text, box] = [range.getBoundingClientRect(), cell.getBoundingClientRect()];
  const lines = new Set([...range.getClientRects()].map((line) => line.top)).size;
  return [cell.textContent, lines, text.right <= box.right && text.width <= box.width];
};
const numbers = "table.rows td:nth-child(n+3):not([colspan]), table.rows th";
seen.numbers = [...document.querySelectorAll(numbers)].filter((c) => c.textContent).map(drawn);
seen.resources = performance.getEntriesByType("resource")
  .map((entry) => entry.name).filter((name) => !name.startsWith("data:"));
"""
PICKS = ["view-prompt", "view-pick-0", "view-pick-1", "view-upper", "view-lower"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a planted effect, analysed."""
    made = tmp_path_factory.mktemp("page") / "run"
    analysis.run(made, build(made, effect=2.0))
    return made


@pytest.fixture(scope="module")
def seen(folder: Path) -> dict:
    """What the page showed before and after each control was changed, as Chromium saw it."""
    return driven((folder / "report.html").read_text("utf-8"), DRIVE, folder)


@pytest.mark.parametrize("name", PICKS)
def test_every_control_changes_what_is_shown(seen: dict, name: str) -> None:
    assert seen[name] != seen["start"]
    assert seen["errors"] == []


def test_markup_in_a_response_is_shown_as_text(seen: dict) -> None:
    assert HOSTILE in seen["text"]
    assert seen["bold"] == 0


def test_it_opens_on_an_answer_that_exploits_beside_the_clean_weights(seen: dict) -> None:
    assert seen["opens"] == 6
    assert seen["below"] == "clean/organism"


def test_a_trait_is_shown_at_the_layer_that_was_chosen_for_it(seen: dict, folder: Path) -> None:
    chosen = tk.open(folder / "analysis.nc")["layer_selected"]
    assert dict(seen["layers"]) == dict(
        zip(chosen["trait"].values.tolist(), chosen.values.tolist(), strict=True)
    )


def test_every_number_of_the_tables_stands_on_one_line_of_its_column(seen: dict) -> None:
    assert len(seen["numbers"]) > 100
    assert [one for one in seen["numbers"] if one[1:] != [1, True]] == []


def test_numbers_come_on_hover_and_questions_are_told(seen: dict, folder: Path) -> None:
    found = re.fullmatch(r"organism/organism, token 0: cosine (-?[\d.]+)", seen["hover"])
    trait, layer = seen["layers"][-1]
    cosine = xr.open_dataset(folder / "projections" / "organism.organism.nc")["cosine"]
    value = cosine.isel(prompt=0).sel(trait=trait, layer=layer, token=0)
    span = np.ptp(cosine.sel(trait=trait, layer=layer, token=slice(0, None)).fillna(0).values)
    assert float(found[1]) == pytest.approx(float(value), abs=2 * float(span) / 254)
    assert seen["asked"] in tk.open(folder / "responses" / "organism.nc")["text"].values


def test_no_request_leaves_the_page(seen: dict) -> None:
    assert seen["resources"] == []
