"""Labels: each survives to the file with its value and type, or is refused by name."""

import json
import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import tracekit as tk
from tracekit.storage.provenance import stamp
from tracekit.transcripts.labels import RESERVED, columns, require_names

QUIET = {"progress": False}
# a column of three rows, what it becomes, and its kind in numpy
COLUMNS = {
    "words": (["ab", "", "ü🙂"], ["ab", "", "ü🙂"], "U"),
    "words_missing": (["ab", None, "c"], ["ab", "", "c"], "U"),
    "whole": ([1, -2, 2**60], [1, -2, 2**60], "i"),
    "whole_missing": ([1, None, 2**53], [1.0, None, 2.0**53], "f"),
    "number": ([0.5, 1, -3.0], [0.5, 1.0, -3.0], "f"),
    "number_missing": ([0.1, float("nan"), 0.3], [0.1, None, 0.3], "f"),
    "truth": ([True, False, True], [True, False, True], "b"),
    "truth_missing": ([True, None, False], [1.0, None, 0.0], "f"),
    "numpy_scalars": ([np.int64(3), np.int32(4), np.uint8(5)], [3, 4, 5], "i"),
    "lists": ([["a", "b"], [], [1]], ['["a", "b"]', "[]", "[1]"], "U"),
    "objects": ([{"ü": None}, None, {"b": [1, {}]}], ['{"ü": null}', "", '{"b": [1, {}]}'], "U"),
    "nothing": ([None, None, None], [None, None, None], "f"),
    "kebab-case.2": (["x", "y", "z"], ["x", "y", "z"], "U"),
}


def plain(values):
    """Values as a list, NaN as None."""
    return [None if v != v else v for v in np.asarray(values).tolist()]


@pytest.fixture(scope="module")
def runs(tiny_llama):
    prompts = [
        tk.Prompt(f"set/{n}", text=text, labels={k: v[0][n] for k, v in COLUMNS.items()})
        for n, text in enumerate(["Hi", "Where is Paris?", "Ho ho"])
    ]
    return tk.encode(tiny_llama, prompts, ["a b", "c", "d"])


@pytest.fixture(scope="module")
def everywhere(tiny_llama, runs, tmp_path_factory):
    """The same labels after each way through memory and disk, in the order of the prompts."""
    folder = tmp_path_factory.mktemp("labels")
    file = tk.open(tk.save(runs, folder / "runs.nc"))
    said = tk.generate(tiny_llama, file, max_new_tokens=1, **QUIET)
    captured = tk.capture(tiny_llama, said, [1], path=folder / "a", token_budget=40, **QUIET)
    made = {
        "encoded": runs,
        "file": file,
        "generated": said,
        "sampled": tk.generate(tiny_llama, file, max_new_tokens=1, samples=1, temperature=1.0),
        "generated file": tk.open(tk.save(said, folder / "said.nc")),
        "memory": tk.capture(tiny_llama, file, [1], **QUIET),
        "folder": captured,
        "writers": tk.capture(tiny_llama, runs, [1], path=folder / "b", writers=1, **QUIET),
        "reduced": tk.capture(tiny_llama, runs, [1], reduce="mean", **QUIET),
        "logprobs": tk.logprobs(tiny_llama, said),
        "swept": tk.sweep(runs, [1.0]).assign_coords(prompt=runs.prompt.values),
    }
    return {name: array.sel(prompt=runs.prompt.values) for name, array in made.items()}


@pytest.mark.parametrize("label", COLUMNS)
def test_a_label_survives_every_way_to_a_file(everywhere, label):
    _, expected, kind = COLUMNS[label]
    for way, array in everywhere.items():
        found = array[label]
        assert plain(found.values) == expected, way
        assert found.dtype.kind in (kind, "O" if kind == "U" else kind), way
        assert found.dims == ("prompt",), way
        # the comparison sees one changed value
        assert plain(np.roll(found.values, 1)) != expected or len(set(map(str, expected))) == 1


def test_every_name_that_files_use_is_reserved(tiny_llama, everywhere, runs):
    vectors = everywhere["reduced"].mean("prompt", keep_attrs=True).expand_dims(trait=["x/y"])
    arrays = [
        *everywhere.values(),
        tk.capture(tiny_llama, runs, [1], vectors=vectors, **QUIET),
        *(tk.capture(tiny_llama, runs, [1], site=s, **QUIET) for s in ("attention", "mlp")),
        tk.capture_during(tiny_llama, runs, [1], max_new_tokens=2, **QUIET)[1],
        tk.gradients(tiny_llama, runs, towards="Yes", against="No"),
        tk.unembed(tiny_llama, everywhere["reduced"], top=2),
        tk.label(tk.inputs(runs)["input_ids"][..., None].float(), runs, layer=1),
    ]
    used = {str(n) for array in arrays for n in (*array.dims, *array.coords)}
    used |= {str(n) for a in arrays if isinstance(a, xr.Dataset) for n in a.data_vars}
    used |= {str(a.name or "values") for a in arrays if isinstance(a, xr.DataArray)}
    # these are a sweep's, which refuses labels of those names itself
    assert used - set(COLUMNS) - RESERVED == {"coefficient", "prompt_ids"}


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_reserved_name_is_refused_when_read_and_when_encoded(tiny_llama, tmp_path, name):
    row = {"id": 1, "text": "Hi", name: 5}
    path = tmp_path / "set.json"
    path.write_text(json.dumps([row]))
    if name not in ("text", "group"):
        with pytest.raises(ValueError, match=name):
            tk.read_prompts(path)
    with pytest.raises(ValueError, match=f"label named '{name}'.*Rename it"):
        tk.encode(tiny_llama, [tk.Prompt("set/1", text="Hi", labels={name: 5})])


def mine(block):
    return block.output


@pytest.mark.parametrize("name", ["layer", "dim", "mine"])
def test_a_label_put_on_by_hand_is_not_written_over(tiny_llama, runs, tmp_path, name):
    marked = runs.assign_coords({name: ("prompt", [7, 8, 9])})
    site = mine if name == "mine" else "residual"
    with pytest.raises(ValueError, match=rf"the name '{name}'.*runs\.rename"):
        tk.capture(tiny_llama, marked, [1], site=site, path=tmp_path / "x", **QUIET)
    assert not (tmp_path / "x").exists()
    if name != "mine":
        with pytest.raises(ValueError, match=f"named '{name}'"):
            tk.generate(tiny_llama, marked, max_new_tokens=1, **QUIET)
        with pytest.raises(ValueError, match=f"the name '{name}'"):
            tk.logprobs(tiny_llama, marked)


def test_projections_and_sweeps_write_over_no_label(tiny_llama, runs, everywhere):
    vectors = everywhere["reduced"].mean("prompt", keep_attrs=True).expand_dims(trait=["x/y"])
    for name in ("trait", "norm"):
        marked = runs.assign_coords({name: ("prompt", [7, 8, 9])})
        with pytest.raises(ValueError, match=f"the name '{name}'"):
            tk.capture(tiny_llama, marked, [1], vectors=vectors, **QUIET)
    with pytest.raises(ValueError, match="the name 'coefficient'"):
        tk.sweep(runs.assign_coords(coefficient=("prompt", [7, 8, 9])), [1.0])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["a", 1], r"text \('a' of 'a'\), numbers \('1' of 'b'\)"),
        ([True, 1], "true or false.*numbers"),
        (["a", ["a"]], "text.*lists or objects"),
        ([2**63, 1], "cannot hold exactly"),
        ([2**53 + 1, None], f"is {2**53 + 1}, which a column of floats"),
        ([2**53 + 1, 0.5], "Write that column as text"),
        (["a\ud83d", "b"], r"'\\ud83d' at character 1"),
        (["a\0", "b"], "holds a NUL"),
        ([{"a": {1, 2}}, None], "which is not JSON"),
        ([b"a", None], "holds bytes"),
        ([np.array([1, 2]), None], "holds ndarray"),
    ],
)
def test_a_value_that_no_column_holds_is_refused_with_its_label(values, words):
    with pytest.raises(ValueError, match=f"label 'odd'.*{words}|label 'odd' of 'a'.*{words}"):
        columns(["a", "b"], [{"odd": value} for value in values])


def stored(folder, made):
    """Columns written to a file beside a variable that none is called, and read again."""
    coords = {"prompt": ["a", "b"], **{name: ("prompt", column) for name, column in made.items()}}
    data = xr.Dataset({"text": ("prompt", ["ab", "c"])}, coords=coords)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return tk.open(tk.save(stamp(data.assign(the_values=1.0), {}), folder / "x.nc"))


def refused(function, *arguments):
    """The words of a refusal, or None."""
    try:
        function(*arguments)
    except ValueError as error:
        return str(error)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("names")


NAMES = st.text(min_size=1, max_size=8) | st.sampled_from(
    ["string2", "string12", "a b", "a/b", " a", "é", "e\u0301", "a\u00a0b", "_x", "1", "a" * 65]
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.text(max_size=2), max_size=2),
    st.dictionaries(st.text(max_size=2), st.none() | st.integers(), max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(NAMES)
def test_any_name_is_a_coordinate_of_the_file_or_refused(folder, name):
    refusal = refused(require_names, [name], "The set")
    if refusal is not None:
        assert ascii(name) in refusal
        return
    for values in (np.array([1, 2]), np.array(["ab", "c"])):
        back = stored(folder, {name: values})
        assert back.coords[name].values.tolist() == values.tolist()
        assert set(back.dims) == {"prompt"}


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, min_size=2, max_size=2))
def test_any_values_are_in_the_file_or_refused(folder, values):
    rows = [{"odd": value} for value in values]
    refusal = refused(columns, ["a", "b"], rows)
    if refusal is not None:
        assert "'odd'" in refusal
        return
    made = columns(["a", "b"], rows)
    for value, kept in zip(values, stored(folder, made)["odd"].values.tolist(), strict=True):
        if isinstance(value, list | dict):
            assert json.loads(kept) == value
        elif value is None or value != value:
            assert kept == "" or kept != kept
        else:
            assert kept == value
