"""How long a page of coloured tokens takes: to be written, to show its first prompt, to be moved.

    python -m experiments.benchmarks.measuring.first_paint --scratch /tmp

500 prompts × 200 tokens × 30 layers × 9 traits of random numbers by `tk.view(…).save`, beside a
page that holds the same numbers as JSON of three decimals and colours the first prompt from them
(the usual way of a notebook's widget). Headless Chromium opens each from disk, in turns; its own
clock says when something was first painted and when the page had loaded. The moves are key presses:
the time until the tokens are drawn anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import xarray as xr
from websocket import WebSocket, create_connection

import tracekit as tk
from experiments.benchmarks.measuring import peak
from experiments.benchmarks.measuring.paired import report
from tracekit.errors import InputError

SIZES = {"prompt": 500, "token": 200, "layer": 30, "trait": 9}
WIDTH, HEIGHT = 1200, 800
# what the browser knows of the page that it has opened, in milliseconds from its beginning
CLOCK = """(() => {
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  const entry = performance.getEntriesByType("navigation")[0];
  return {paint: paint ? paint.startTime : 0, whole: entry ? entry.loadEventEnd : 0};
})()"""
MOVE = """new Promise((done) => {
  const begun = performance.now();
  document.body.dispatchEvent(new KeyboardEvent("keydown", {key: KEY, bubbles: true}));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun), 0));
})"""
RIVAL = """<!doctype html><meta charset="utf-8"><p id="tokens"></p>
<script id="data" type="application/json">{data}</script>
<script>
const data = JSON.parse(document.getElementById("data").textContent);
const box = document.getElementById("tokens");
data[0].forEach((values, n) => {{
  const token = document.createElement("span");
  token.textContent = " w" + n;
  token.style.background = `rgba(230, 97, 1, ${{Math.abs(values[0][0]) / 4}})`;
  box.append(token);
}});
</script>"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--prompts", type=int, default=SIZES["prompt"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch")
    parser.add_argument("--out", default="results/benchmarks")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        pages = {
            name: peak.apart(made, options.prompts, str(Path(scratch, f"{number}.html")))
            for number, (name, made) in enumerate({"tk.view": _ours, "JSON": _rival}.items())
        }
        opened: dict[str, list[dict[str, float]]] = {name: [] for name in pages}
        for turn in range(options.rounds):
            for name in sorted(pages, reverse=bool(turn % 2)):
                with browser(Path(scratch, "profile")) as page:
                    opened[name].append(_opened(page, Path(pages[name]["path"]), name == "tk.view"))
                print(turn, name, opened[name][-1], flush=True)
    report(
        table({**SIZES, "prompt": options.prompts}, pages, opened), "first_paint", Path(options.out)
    )


def array(prompts: int) -> xr.DataArray:
    """Random numbers over prompt, token, layer and trait, with ids and texts of tokens."""
    sizes = {**SIZES, "prompt": prompts}
    values = np.random.default_rng(0).standard_normal(tuple(sizes.values()), np.float32)
    ids = np.tile(np.arange(sizes["token"]), (prompts, 1))
    coords = {
        "prompt": [f"p{n}" for n in range(prompts)],
        "token": np.arange(sizes["token"]),
        "layer": np.arange(sizes["layer"]),
        "trait": [f"trait {n}" for n in range(sizes["trait"])],
        "token_id": (("prompt", "token"), ids),
        "token_text": (("prompt", "token"), np.char.add(" w", ids.astype(str))),
    }
    return xr.DataArray(values, dims=list(sizes), coords=coords, name="projection")


def _ours(prompts: int, path: str, sender: Any) -> None:
    _made(prompts, path, sender, lambda made: tk.view(made).save(path))


def _rival(prompts: int, path: str, sender: Any) -> None:
    def write(made: xr.DataArray) -> None:
        rows = (json.dumps(np.round(row, 3).tolist()) for row in made.values.astype(float))
        Path(path).write_text(RIVAL.format(data=f"[{','.join(rows)}]"), "utf-8")

    _made(prompts, path, sender, write)


def _made(prompts: int, path: str, sender: Any, write: Any) -> None:
    made = array(prompts)
    write(made.isel(prompt=slice(0, 2)))  # imports are not the page's
    peak.reset()
    before, begun = peak.resident("VmRSS"), time.perf_counter()
    write(made)
    seconds = time.perf_counter() - begun
    above, size = peak.resident("VmHWM") - before, Path(path).stat().st_size
    about = {"path": path, "write": seconds, "size": size, "above": above}
    sender.send(json.dumps(about))


@contextmanager
def browser(profile: Path) -> Iterator[WebSocket]:
    """A page of a fresh headless Chromium, to be spoken to in its DevTools protocol.

    Errors: `ValueError` where there is none on the PATH.
    """
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if found is None:
        raise InputError("There is no chromium on the PATH. Install it (apt install chromium).")
    shutil.rmtree(profile, ignore_errors=True)
    command = [found, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--remote-debugging-port=0", "--remote-allow-origins=*"]
    command += [f"--user-data-dir={profile}", f"--window-size={WIDTH},{HEIGHT}", "about:blank"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = _port(profile / "DevToolsActivePort")
        with urlopen(f"http://127.0.0.1:{port}/json/list") as reply:
            page = next(one for one in json.load(reply) if one["type"] == "page")
        socket = create_connection(page["webSocketDebuggerUrl"], timeout=120)
        try:
            yield socket
            told(socket, "Browser.close")  # killed, its processes would go on to write the profile
            child.wait(20)
        finally:
            socket.close()
    finally:
        child.kill()
        child.wait()


def _port(path: Path, patience: float = 20) -> int:
    end = time.time() + patience
    while not (path.is_file() and path.read_text()):
        if time.time() > end:
            raise InputError(f"Chromium opened no port within {patience:.0f} s. Start it by hand.")
        time.sleep(0.05)
    return int(path.read_text().splitlines()[0])


def told(page: WebSocket, method: str, **given: Any) -> dict[str, Any]:
    """What the browser replies to one call; its events are passed over."""
    page.send(json.dumps({"id": 1, "method": method, "params": given}))
    while True:
        reply = json.loads(page.recv())
        if reply.get("id") == 1:
            return dict(reply.get("result", {}))


def _value(page: WebSocket, expression: str) -> Any:
    reply = told(
        page, "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
    )
    if "exceptionDetails" in reply:
        raise ValueError(f"The page failed: {reply['exceptionDetails']}. Report this.")
    return reply["result"].get("value")


def _opened(page: WebSocket, path: Path, moves: bool) -> dict[str, float]:
    told(page, "Page.enable")
    told(page, "Page.navigate", url=path.as_uri())
    end = time.time() + 120
    while not ((clock := _value(page, CLOCK))["whole"] and clock["paint"]):
        if time.time() > end:
            raise ValueError(f"{path.name} was not painted within 120 s. Take fewer prompts.")
        time.sleep(0.02)
    keys = ("ArrowRight", "ArrowUp") if moves else ()
    times = {key: _value(page, MOVE.replace("KEY", json.dumps(key))) for key in keys}
    return {**clock, **times}


def table(
    sizes: dict[str, int],
    pages: dict[str, dict[str, Any]],
    opened: dict[str, list[dict[str, float]]],
) -> list[str]:
    """The report's lines."""
    shape = " × ".join(f"{count} {name}s" for name, count in sizes.items())
    lines = [
        f"# A page of coloured tokens: {shape}",
        "",
        "| page | MB | s to write | MB above the array's, at most | first paint ms | loaded ms "
        "| next prompt ms | next layer ms |",
        "| --- " * 8 + "|",
    ]
    for name, one in pages.items():
        clocks = [
            f"{statistics.median(values):.0f}" if (values := _all(opened[name], key)) else "–"
            for key in ("paint", "whole", "ArrowRight", "ArrowUp")
        ]
        lines.append(
            f"| {name} | {one['size'] / 1e6:.1f} | {one['write']:.1f} | {one['above'] / 1e6:.0f} "
            f"| {' | '.join(clocks)} |"
        )
    ours, rival = (opened[name] for name in pages)
    ratios = {
        key: statistics.median(a[key] / b[key] for a, b in zip(ours, rival, strict=True))
        for key in ("paint", "whole")
    }
    return [
        *lines,
        "",
        f"tk.view / JSON, medians of {len(ours)} pairs: first paint {ratios['paint']:.2f}, loaded "
        f"{ratios['whole']:.2f}; size {pages['tk.view']['size'] / pages['JSON']['size']:.2f}",
    ]


def _all(rows: Sequence[dict[str, float]], key: str) -> list[float]:
    return [row[key] for row in rows if key in row]


if __name__ == "__main__":
    main()
