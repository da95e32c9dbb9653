"""Activations of one's own, and labels from a table: what they hold is where it belongs."""

from __future__ import annotations

import inspect

import dask.array
import h5py
import numpy as np
import pandas
import pytest
import torch

import tracekit as tk
import traits

VALUES = np.random.default_rng(0).normal(size=(4, 3, 8)).astype(np.float32)
DIMS = ("prompt", "layer", "dim")


@pytest.fixture
def runs(tiny_llama):
    return tk.encode(tiny_llama, ["Is it?", "And is it so?"], ["Yes.", "No, it is not."])


def test_arrays_of_every_kind_are_the_same_traces(tmp_path):
    mapped = np.memmap(tmp_path / "a.dat", np.float32, "w+", shape=VALUES.shape)
    mapped[:] = VALUES
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("chunked", data=VALUES, chunks=(1, 3, 8))
        file.create_dataset("whole", data=VALUES)
    with h5py.File(tmp_path / "a.h5") as file:
        kinds = [VALUES, torch.tensor(VALUES, requires_grad=True), mapped, VALUES.tolist()]
        kinds += [file["chunked"], file["whole"], dask.array.from_array(VALUES)]
        for array in kinds:
            made = tk.traces(array, dims=DIMS, layers=[-1, 0, 5])
            assert made.dims == DIMS
            np.testing.assert_array_equal(made.sel(layer=5).values.astype(np.float32), VALUES[:, 2])
            assert not np.array_equal(made.sel(layer=0).values, VALUES[:, 0])
            assert made.prompt.values.tolist()[-1] == "given/3"
        assert tk.traces(file["chunked"], dims=DIMS, layers=range(3)).chunks is not None
        saved = tk.save(made, tmp_path / "traces.nc")
    np.testing.assert_array_equal(tk.open(saved).values, VALUES)
    half = tk.traces(torch.tensor(VALUES).bfloat16(), dims=DIMS, layers=range(3))
    assert half.dtype == np.float32
    assert tk.provenance(half) == {"made_by": "tracekit.traces", "site": "residual"}


def test_a_layer_of_numpys_is_a_layer():
    traces = inspect.unwrap(tk.traces)
    assert traces(np.ones((3, 32)), layers=np.int64(3)).layer.item() == 3
    with pytest.raises(tk.InputError, match=r"given 2 layers and layers=.*Give each its number"):
        traces(np.ones((3, 2, 4)), dims=("prompt", "layer", "dim"), layers=np.int64(3))


def test_labelled_rows_make_the_vector_of_plain_numpy():
    labels = {"label": [1, 0, 1, 0], "group": ["t/0", "t/0", "t/1", "t/1"], "kind": list("abab")}
    made = tk.traces(VALUES, dims=DIMS, layers=[3, 4, 5], labels=labels)
    vector = traits.extract(made)
    plain = (VALUES[[0, 2]] - VALUES[[1, 3]]).mean(0)
    plain /= np.linalg.norm(plain, axis=-1, keepdims=True)
    np.testing.assert_allclose(vector.values, plain, atol=1e-6)
    assert not np.allclose(vector.values, plain[::-1], atol=1e-6)
    assert made.kind.values.tolist() == list("abab")


def test_traces_of_runs_are_those_that_a_capture_makes(tiny_llama, runs):
    captured = tk.capture(tiny_llama, runs, layers=[1, 2], tokens="all", progress=False)
    filled = np.nan_to_num(captured.values, nan=7.0)
    made = tk.traces(filled, layers=[1, 2], runs=runs, made_with={"weights": "w"})
    assert made.dims == captured.dims
    np.testing.assert_array_equal(made.values, captured.values)
    assert np.isnan(made.values).any()
    assert not np.array_equal(np.nan_to_num(made.values), filled)
    assert set(captured.coords) >= {"token_id", "prompt_length", "group"}
    np.testing.assert_array_equal(made.token_id.values, runs.token_id.values)
    assert tk.provenance(made)["weights"] == "w"
    assert tk.provenance(made)["ids"] == tk.provenance(runs)["ids"]
    pooled = tk.traces(VALUES[:2], dims=DIMS, layers=range(3), runs=runs)
    assert pooled.prompt.equals(runs.prompt)


@pytest.mark.parametrize(
    ("array", "given", "words"),
    [
        (VALUES, {}, r"shape \(4, 3, 8\) and the dims None. Name each axis"),
        (VALUES, {"dims": ("prompt", "dim")}, "Name each axis"),
        (VALUES, {"dims": DIMS}, r"3 layers and layers=None.*range\(-1, 2\)"),
        (VALUES, {"dims": DIMS, "layers": [1, 2]}, r"3 layers and layers=\[1, 2\]"),
        (VALUES[:, 0], {"layers": [1, 2]}, "no axis of layers"),
        (VALUES.astype(int), {"dims": DIMS, "layers": range(3)}, "values of int64"),
        (VALUES[:, 0], {"prompts": ["a"]}, "'prompts': 1"),
        (VALUES[:, 0], {"prompts": list("aabc")}, "ids of which some are the same"),
        (VALUES[:, 0], {"labels": {"kind": [1]}}, "'kind': 1"),
    ],
)
def test_what_cannot_be_told_is_refused(array, given, words):
    with pytest.raises(tk.InputError, match=words):
        tk.traces(array, **given)


def test_a_file_is_told_the_names_of_its_arrays(tmp_path):
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file["residuals"] = VALUES
        file["layers/values"] = VALUES
        words = (
            r"traces was given a File with 'layers/values', 'residuals'.*file\['layers/values'\]"
        )
        with pytest.raises(tk.InputError, match=words):
            tk.traces(file)
    for given in (path, str(path)):
        with pytest.raises(tk.InputError, match=r"m\.h5', which has 'layers/values', 'residuals'"):
            tk.traces(given)
    with pytest.raises(tk.InputError, match=r"path 'n\.npy'; it takes an array"):
        tk.traces("n.npy")
    with pytest.raises(tk.InputError, match=r"a dict with 'a'.*file\['a'\]"):
        tk.traces({"a": VALUES})


def test_a_site_has_a_name_that_there_is_or_is_ones_own():
    given = {"dims": DIMS, "layers": range(3)}
    with pytest.raises(
        tk.InputError, match=r"site='nope'.*residual, .*made_with=\{'site': 'nope'\}"
    ):
        tk.traces(VALUES, **given, site="nope")
    with pytest.raises(tk.InputError, match=r"site='resid_post' was.*that is 'residual' here"):
        tk.traces(VALUES, **given, site="resid_post")
    assert tk.traces(VALUES, **given, site="mlp").name == "mlp"
    own = tk.traces(VALUES, **given, made_with={"site": "gates"})
    assert (own.name, tk.provenance(own)["site"]) == ("gates", "gates")


def test_rows_of_other_runs_are_refused(runs):
    with pytest.raises(tk.InputError, match=r"given 4 on the axis 'prompt', and the runs have 2"):
        tk.traces(VALUES[:, 0], runs=runs)
    with pytest.raises(tk.InputError, match="The runs have both"):
        tk.traces(VALUES[:2, 0], runs=runs, prompts=["a", "b"])


def test_a_table_is_joined_by_the_prompts_ids(runs, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("id,score,kind,ok\n1,0.5,b,true\n0,1.5,a,false\n")
    joined = tk.join(runs, path)
    assert joined.score.values.tolist() == [1.5, 0.5]
    assert joined.kind.values.tolist() == ["a", "b"]
    assert joined.ok.values.tolist() == [False, True]
    assert tk.provenance(joined) == tk.provenance(runs)
    frame = pandas.DataFrame({"prompt": ["text/1", "text/0"], "score": [0.5, 1.5]})
    same = tk.join(runs, frame)
    assert same.score.equals(joined.score.drop_vars(["kind", "ok"]))
    assert "kind" not in tk.join(runs, path, fields=["score"]).coords
    by_kind = tk.join(joined, [{"kind": "a", "depth": 1}, {"kind": "b", "depth": 2}], on="kind")
    assert by_kind.depth.values.tolist() == [1, 2]
    with pytest.warns(UserWarning, match="1 of 2 rows that match no prompt"):
        tk.join(runs.isel(prompt=[0]), path)


def test_what_has_no_ids_and_what_is_no_table_are_refused(runs):
    with pytest.raises(
        tk.InputError, match=r"join was given <ndarray of float32.*Give transcripts"
    ):
        inspect.unwrap(tk.join)(VALUES, [{"id": 0}])
    for wrong, name in ((None, "NoneType"), (3, "int"), ({"id": 0}, "dict")):
        with pytest.raises(tk.InputError, match=f"join was given {name} as its table. Give a path"):
            tk.join(runs, wrong)


@pytest.mark.parametrize(
    ("rows", "given", "words"),
    [
        ([{"id": 0, "a": 1}], {}, r"no row for 1 of 2 prompts \(first: 'text/1'"),
        ([{"id": 0}, {"id": 0}], {}, "'id' more than once"),
        ([{"nr": 0}], {}, r"joined on 'prompt'; its fields are \['nr'\]"),
        ([{"id": 0, "group": 1}, {"id": 1, "group": 2}], {}, "gives the name 'group'"),
        ([{"id": 0, "a": 1}, {"id": 1}], {"fields": ["b"]}, "no field 'b'"),
        ([{"id": 0, "a": 1}], {"on": "id"}, "labels along 'prompt' are"),
        ([], {}, "no objects, or none"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(runs, rows, given, words):
    with pytest.raises(tk.InputError, match=words):
        tk.join(runs, rows, **given)
