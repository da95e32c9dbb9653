"""Every example runs as its docstring says, is short, and prints what it promises."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from tracekit.storage.provenance import read, stamp

EXAMPLES = Path(__file__).parent.parent / "examples"


def _run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def runs(tiny_llama):
    asked = tk.encode(tiny_llama, ["One?", "A longer two?"])
    return tk.generate(tiny_llama, asked, max_new_tokens=5)


@pytest.fixture(scope="module")
def folder(tiny_llama, runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("capture") / "traces"
    tk.capture(tiny_llama, runs, layers=[1, 2], path=path, token_budget=40, progress=False)
    return path


def test_no_example_is_longer_than_25_lines():
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert len(lengths) >= 3
    assert {name: n for name, n in lengths.items() if n > 25} == {}


def test_three_variants_names_each_and_they_differ():
    printed = _run("three_variants.py")
    figures = [float(x) for x in re.findall(r"\d+\.\d+", printed)]
    assert len(figures) >= 2
    assert len(set(figures)) == len(figures)


def test_steering_from_a_saved_vector_changes_what_is_said(embedded, tmp_path):
    said = tk.encode(embedded, ["I like it.", "I doubt it."], template="raw")
    traces = tk.capture(embedded, said, layers=[15], reduce="mean", tokens="all", progress=False)
    direction = traces.isel(prompt=0) - traces.isel(prompt=1)
    vectors = (direction / np.sqrt((direction**2).sum("dim"))).drop_vars(
        [name for name in direction.coords if name not in ("layer", "dim")]
    )
    vectors = vectors.expand_dims(trait=["alignment/sycophancy"], extraction=["mean_diff"])
    path = tk.save(stamp(vectors.rename("vector"), read(traces)), tmp_path / "vectors.nc")
    printed = _run("steer_saved_vector.py", str(path))
    by_coefficient: dict[str, list[str]] = {}
    for coefficient, text in re.findall(r"^ *([+-]\d+\.\d)  (.*)$", printed, re.MULTILINE):
        by_coefficient.setdefault(coefficient, []).append(text)
    assert len(by_coefficient) == 3
    assert len({tuple(texts) for texts in by_coefficient.values()}) == 3


def test_the_name_moves_from_where_it_was_said_to_the_end_both_ways():
    before, *parts = re.split(r"^(?:de)?noising:", _run("name_mover.py"), flags=re.MULTILINE)
    assert (before, len(parts)) == ("", 2)
    for part in parts:
        rows = re.findall(r"^(\d+) +(\S+) +(\S+) +(\S+)$", part, re.MULTILINE)
        assert [int(row[0]) for row in rows] == [0, 5, 10, 15, 20, 25]
        said, _, end = (np.array([float(row[n]) for row in rows]) for n in (1, 2, 3))
        assert said[0] > 0.8 > 0.2 > said[-1]
        assert end[0] < 0.2 < 0.8 < end[-1]


def test_induction_names_heads_that_carry_it_both_ways():
    printed = _run("induction.py")
    before, after = map(float, re.findall(r"(\S+) → (\S+) nats", printed)[0])
    rows = re.findall(r"layer (\d+), head (\d): .*?: (\S+), .*?: (\S+)}", printed)
    assert after - before > 2
    assert len({row[:2] for row in rows}) == 5
    # a head that helps when it is put in hurts when it is taken out
    assert float(rows[0][2]) > 0.5
    assert float(rows[0][3]) < -0.5


def test_a_vector_is_beyond_its_random_band_at_the_strongest_and_nowhere_at_zero():
    printed = _run("steer_beside_random.py")
    number = r"([+-]\d\.\d\d)"
    lines = re.findall(rf"^{number}: {number}, band {number} to {number}$", printed, re.MULTILINE)
    doses = {float(dose): tuple(map(float, rest)) for dose, *rest in lines}
    assert list(doses) == [-0.5, -0.25, 0.0, 0.25, 0.5]
    assert len(set(doses[0.0])) == 1
    assert doses[-0.5][0] < doses[-0.5][1]
    assert doses[0.5][0] > doses[0.5][2]


def test_heads_are_ablated_one_by_one():
    margins = re.findall(r": ([+-]\d\.\d\d)$", _run("ablate_heads.py"), re.MULTILINE)
    assert len(margins) == 10
    assert len(set(margins)) > 5


def test_steering_where_it_is_needed_is_neither_never_nor_nothing():
    printed = _run("steer_where_needed.py")
    said = dict(re.findall(r"^(never|where gloomy|always): (.*)$", printed, re.MULTILINE))
    assert len(said) == 3
    assert said["where gloomy"] != said["never"]


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
    script = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0]
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
