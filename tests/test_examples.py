"""Every script of the gallery runs, is short, and shows what plain transformers and peft say."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from transformers import AutoModelForCausalLM

import tracekit as tk
from tests.support.oracles import gallery
from tests.support.oracles.gallery import Shown
from tracekit.model.embedded import embedded_model

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
# a file that the script reads comes first
FILES = {"open_with_xarray": "folder"}


@pytest.fixture(scope="module")
def plain() -> Any:
    """The embedded model without any of ours."""
    found = AutoModelForCausalLM.from_pretrained(embedded_model(), attn_implementation="eager")
    return found.eval()


@pytest.fixture(scope="module")
def loaded(embedded) -> dict[Any, Any]:
    """Models by how they were asked for: a script after another finds the same ones."""
    return {(("smollm2-135m-instruct",), ()): embedded}


@pytest.fixture
def run(loaded, monkeypatch, tmp_path) -> Iterator[Callable[..., Shown]]:
    real = tk.load

    def load(*given: Any, **named: Any) -> Any:
        key = given, tuple(sorted(named.items()))
        if key not in loaded:
            loaded[key] = real(*given, **named)
        return loaded[key]

    def run(name: str, *arguments: str) -> Shown:
        figure, printed = tmp_path / f"{name}.png", io.StringIO()
        draws = "[FIGURE]" in (EXAMPLES / f"{name}.py").read_text()
        given = arguments or ((str(figure),) if draws else ())
        monkeypatch.setattr(sys, "argv", [name, *given])
        with contextlib.redirect_stdout(printed):
            space = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return Shown(printed.getvalue(), space, figure)

    monkeypatch.setattr(tk, "load", load)
    plt.switch_backend("Agg")
    yield run
    plt.close("all")


@pytest.fixture(scope="module")
def runs(tiny_llama):
    asked = tk.encode(tiny_llama, ["One?", "A longer two?"])
    return tk.generate(tiny_llama, asked, max_new_tokens=5)


@pytest.fixture(scope="module")
def folder(tiny_llama, runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("capture") / "traces"
    tk.capture(tiny_llama, runs, layers=[1, 2], path=path, token_budget=40, progress=False)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_script_shows_what_it_promises(name, run, plain, request):
    arguments = [str(request.getfixturevalue(FILES[name]))] if name in FILES else []
    getattr(gallery, name)(run(name, *arguments), plain)


def test_no_script_is_longer_than_25_lines_and_each_is_in_the_list():
    lengths = {name: len((EXAMPLES / f"{name}.py").read_text().splitlines()) for name in NAMES}
    assert 12 <= len(lengths) <= 19
    assert {name: n for name, n in lengths.items() if n > 25} == {}
    listed = re.findall(r"\[`?(\w+)`?\]\(\w+\.py\)", (EXAMPLES / "README.md").read_text())
    assert sorted(listed) == NAMES


def test_a_capture_opens_with_xarray_alone(folder):
    code = (
        "import runpy, sys; sys.modules['tracekit'] = None;"
        f"sys.argv = ['x', {str(folder)!r}];"
        f"runpy.run_path({str(EXAMPLES / 'open_with_xarray.py')!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "float32 ids: int32" in done.stdout


def test_stock_xarray_reads_every_label_and_value(tiny_llama, runs, folder):
    dataset = xr.open_mfdataset(f"{folder}/*.nc", combine="nested", concat_dim="prompt")
    traces = dataset["residual"]
    assert traces.dims == ("prompt", "token", "layer", "dim")
    assert traces.dtype == np.float32
    for name in ("token_id", "token_text", "role", "prompt_length", "group"):
        assert name in traces.coords
    assert traces.token_id.dtype == np.int32
    assert traces.prompt_length.dtype.kind == "i"
    memory = tk.capture(tiny_llama, runs, layers=[1, 2], token_budget=40, progress=False)
    stored = traces.sel(prompt=memory.prompt.values).values
    np.testing.assert_array_equal(stored, memory.values)
    assert not np.array_equal(np.nan_to_num(stored), np.nan_to_num(memory.values + 1e-3))


def test_the_first_script_of_the_readme_prints_what_plain_numpy_says(tmp_path, monkeypatch):
    readme = (EXAMPLES.parent / "README.md").read_text()
    script, steering = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    printed: list[xr.DataArray] = []
    space = {"print": printed.append}
    exec(script, space)
    traces, clean, runs = space["traces"], space["clean"], space["runs"]
    tokens = (runs.token_id.sel(token=slice(0, None)) >= 0).sum("token").values
    assert len(set(tokens)) > 1  # so that the shorter answer has holes
    expected = np.empty((2, 12))
    for row, count in enumerate(tokens):
        change = (traces - clean).isel(prompt=row).sel(token=slice(0, count - 1)).values
        expected[row] = np.linalg.norm(change.astype(float), axis=-1).mean(0)
    assert printed[0].dims == ("prompt", "layer")
    np.testing.assert_allclose(printed[0], expected, rtol=1e-5)
    holes_are_0 = expected * (tokens / tokens.max())[:, None]
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(printed[0], holes_are_0, rtol=1e-5)
    saved = xr.open_dataarray("shift.nc")
    np.testing.assert_array_equal(saved, space["shift"])
    exec(steering, space)
    assert "edits" in tk.provenance(tk.logprobs(space["steered"], runs))
