"""Names of functions are the same in every process, and captures know their functions by them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from tests.support.site_functions import scaled
from tracekit.storage.provenance import read

SCRIPT = '''
import functools, sys
import numpy as np, torch
import maths
from maths import shift
sys.path.insert(0, {root!r})

class Reader:
    def __init__(self, factor):
        self.factor, self.kinds = factor, {{"b", "a", "c"}}
    def __call__(self, block):
        return block.mlp.output * self.factor

def outer(direction):
    def site(block, *, scale=2.0):
        """Text."""
        return shift(block.mlp.output @ direction) * scale + maths.OFFSET
    return site

from tracekit.model.functions.fingerprint import named
sites = [
    outer(torch.arange(3.0)), Reader(np.arange(2)), functools.partial(outer, 3),
    Reader(1).__call__, lambda block: torch.nn.functional.relu(block.mlp.output),
]
print(" ".join(named("site", site)[0] for site in sites))
maths.OFFSET = 5
print(" ".join(named("site", site)[0] for site in sites))
'''


MATHS = "OFFSET, UNREAD = 1, 2\ndef shift(x):\n    return x + OFFSET\n"


def _names(folder: Path, maths: str, seed: str, script: str = SCRIPT) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / "maths.py").write_text(maths)
    root = str(Path(tk.__file__).parent.parent)
    (folder / "run.py").write_text(script.format(root=root))
    command = [sys.executable, "run.py"]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_names_are_the_same_in_every_process_and_folder(tmp_path: Path) -> None:
    first = _names(tmp_path / "a", MATHS, "1")
    spaced = MATHS.replace("return", "# why\n    return").replace("UNREAD = 1, 2", "UNREAD = 1, 3")
    assert _names(tmp_path / "b", "\n\n" + spaced, "2", "\n" + SCRIPT) == first
    before, after = first[:5], first[5:]
    assert len(set(before)) == 5
    # the first and the third read maths.OFFSET
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, False, True, True]


@pytest.fixture(scope="module")
def runs(tiny_llama: Any) -> xr.Dataset:
    return tk.encode(tiny_llama, ["Where?", "A longer one"], [" Here.", " It is so."])


def test_sites_of_two_closures_are_not_compared_nor_mixed(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path
) -> None:
    quiet = {"layers": [1], "progress": False}
    one, other = (tk.capture(tiny_llama, runs, site=scaled(k), **quiet) for k in (1.0, 2.0))
    np.testing.assert_allclose(other, 2 * one)
    with pytest.raises(ValueError, match="differ in site"):
        tk.difference(one, other)
    tk.difference(one, tk.capture(tiny_llama, runs, site=scaled(1.0), **quiet))
    path = tmp_path / "x"
    tk.capture(tiny_llama, runs, site=scaled(1.0), path=path, **quiet)
    with pytest.raises(ValueError, match=r"other settings \(site: '<lambda>:"):
        tk.capture(tiny_llama, runs, site=scaled(2.0), path=path, **quiet)
    with pytest.raises(ValueError, match="other settings"):
        tk.capture(tiny_llama, runs, reduce=lambda x: x.amax(0), path=path, **quiet)


def test_a_name_of_ones_own_is_recorded(tiny_llama: Any, runs: xr.Dataset, tmp_path: Path) -> None:
    quiet = {"layers": [1], "progress": False}
    site, reduce = ("twice", scaled(2.0)), ("largest", lambda x: x.amax(0))
    traces = tk.capture(tiny_llama, runs, site=site, reduce=reduce, path=tmp_path / "x", **quiet)
    made = read(traces)
    assert (made["site"], made["reduce"], traces.name) == ("twice", "largest", "twice")
    plain = tk.capture(tiny_llama, runs, site="mlp", tokens=slice(0, None), **quiet)
    np.testing.assert_allclose(
        traces.sel(prompt=plain.prompt), 2 * plain.max("token"), rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ValueError, match=r"other than .* role"):
        tk.capture(tiny_llama, runs, site=("role", scaled(2.0)), **quiet)

    def token(block: Any) -> Any:
        return block.mlp.output

    assert tk.capture(tiny_llama, runs, site=token, **quiet).name == "value"
