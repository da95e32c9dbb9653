"""A page in a real browser: headless Chromium runs its script and is read back."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# .ci/run installs it; a developer's machine may lack it
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="needs chromium on the PATH (.ci/run has it)"
)
# errors that nobody catches are part of what a page shows
BEGIN = """
const seen = {};
const errors = [];
window.addEventListener("error", (event) => errors.push(event.message));
const pick = (name, value) => {
  const box = document.getElementById(name);
  box.value = value;
  box.dispatchEvent(new Event("change"));
};
const options = (name) => [...document.getElementById(name).options].map((o) => o.value);
"""
END = """
seen.errors = errors;
const result = document.createElement("pre");
result.id = "result";
result.textContent = JSON.stringify(seen);
document.body.append(result);
"""


def driven(page: str, script: str, folder: Path) -> dict[str, Any]:
    """What a script puts into `seen` once Chromium has run the page's own."""
    path = folder / "driven.html"
    made = (
        f'<script>{BEGIN}window.addEventListener("load", () => {{{script}{END}}})</script></body>'
    )
    path.write_text(page.replace("</body>", made), "utf-8")
    return read_back(path)


def read_back(path: Path) -> dict[str, Any]:
    """The JSON that a page wrote into its element `result`."""
    assert CHROMIUM
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={path.parent}/chromium"]
    done = subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, check=True, timeout=120
    )
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stdout[-500:] + done.stderr[-2000:]
    made: dict[str, Any] = json.loads(unescape(found[1]))
    return made
