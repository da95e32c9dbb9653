"""Values of several axes: labelled, saved, resumed, projected, reduced, and read by xarray."""

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk

TEXTS = ["The quick brown fox jumps over the dog.", "Yes, it is.", "No"]
HEADS = ("head", "dim")


def apart(block):
    return block.attn.q_proj.output.unflatten(-1, (4, 8))


@pytest.fixture(scope="module")
def runs(tiny_llama):
    return tk.encode(tiny_llama, TEXTS, template="raw")


def traces(model, runs, layers=(1, 3), **options):
    return tk.capture(model, runs, layers, tokens="all", progress=False, **options)


@pytest.mark.parametrize("site", ["heads", "pattern", "mlp_hidden"])
def test_what_a_folder_or_file_gives_back_is_what_was_captured(tiny_llama, runs, site, tmp_path):
    memory = traces(tiny_llama, runs, site=site, token_budget=12)
    path = tmp_path / "folder"
    stored = traces(tiny_llama, runs, site=site, token_budget=12, path=path)
    # what was written is not captured again
    (path / "00001.nc").unlink()
    lines = (path / "shards.jsonl").read_text().splitlines()
    (path / "shards.jsonl").write_text("\n".join(x for x in lines if "00001" not in x) + "\n")
    before = (path / "00000.nc").stat().st_mtime_ns
    again = traces(tiny_llama, runs, site=site, token_budget=12, path=path)
    assert (path / "00000.nc").stat().st_mtime_ns == before
    file = tk.save(memory, tmp_path / "file.nc")
    stock = xr.open_mfdataset(f"{path}/*.nc", combine="nested", concat_dim="prompt")[site]
    for other in (stored, again, stock, tk.open(path), tk.open(file), xr.open_dataarray(file)):
        assert other.dims == memory.dims
        found = other.sel(prompt=memory["prompt"].values).compute()
        xr.testing.assert_equal(found.drop_attrs(), memory.drop_attrs())
        assert set(found.coords) == set(memory.coords)
    changed = memory.copy(deep=True)
    changed.values[0, -1].flat[0] += 1
    with pytest.raises(AssertionError):
        xr.testing.assert_equal(found.drop_attrs(), changed.drop_attrs())


def test_a_function_of_the_block_names_its_axes(tiny_llama, runs, tmp_path):
    named = traces(tiny_llama, runs, site=("mine", apart), dims=HEADS)
    assert named.dims == ("prompt", "token", "layer", "head", "dim")
    assert np.array_equal(named, traces(tiny_llama, runs, site="queries"), equal_nan=True)
    assert not np.array_equal(
        named, traces(tiny_llama, runs, [0, 3], site="queries"), equal_nan=True
    )
    assert tk.provenance(named)["dims"] == ["head", "dim"]
    flat = traces(tiny_llama, runs, site=("mine", apart))
    assert np.array_equal(flat, named.values.reshape(flat.shape), equal_nan=True)
    assert "dims" not in tk.provenance(flat)
    traces(tiny_llama, runs, site=("mine", apart), dims=HEADS, path=tmp_path / "folder")
    with pytest.raises(ValueError, match=r"other settings \(dims: \['head', 'dim'\] there"):
        traces(
            tiny_llama, runs, site=("mine", apart), dims=("one", "two"), path=tmp_path / "folder"
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"site": "heads", "dims": HEADS},
            r"dims=\('head', 'dim'\) was asked for with a site that",
        ),
        ({"site": apart, "dims": ("head", "layer")}, "none of tracekit's"),
        ({"site": apart, "dims": ("head", "head")}, "each another"),
        ({"site": apart, "dims": "head"}, "Give dims= with a function"),
        (
            {"site": apart, "dims": ("head",)},
            r"gives \[\(4, 8\)\] at layers \[1, 3\], in rows of 5",
        ),
        (
            {"site": lambda b: torch.stack([b.mlp.output] * b.mlp.output.shape[1], -1)},
            r"gives \[\(32, 5\), \(32, 7\)\] .* no axis may be of tokens",
        ),
        ({"site": "queries", "vectors": True}, "vectors= was given with site='queries'"),
        ({"site": "mlp_hidden", "vectors": True}, "not that of the residual stream"),
        ({"site": "pattern", "reduce": "mean"}, "each query has keys of its own"),
        ({"site": "heads", "reduce": lambda x: x.sum((0, 1))}, r"gave 1 axes .* \('head', 'dim'\)"),
        ({"site": "router"}, r"at layers\[3\] of .* its mlp \(LlamaMLP\) has gate_proj, up_proj"),
        ({"site": "head"}, "attention, mlp, heads, queries, keys, values, pattern, mlp_hidden"),
        ({"site": "heads", "layers": [-1]}, "only site='residual' has"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_there_is(tiny_llama, runs, vectors, options, words):
    options = dict(options)
    if options.get("vectors"):
        options["vectors"] = vectors
    elif callable(options["site"]) and options["site"] is not apart:
        options["dims"] = ("unit", "other")
    with pytest.raises(ValueError, match=words):
        traces(tiny_llama, runs, **options)


@pytest.fixture(scope="module")
def vectors(tiny_llama, runs):
    means = traces(tiny_llama, runs, reduce="mean").isel(prompt=[0, 1])
    return (
        means.drop_vars(set(means.coords) - {"layer", "dim"})
        .rename(prompt="trait")
        .assign_coords(trait=["a/one", "a/two"])
    )


def test_heads_are_projected_on_vectors_inside_the_trace(tiny_llama, runs, vectors, tmp_path):
    heads = traces(tiny_llama, runs, site="heads")
    expected = np.einsum("ptlhd,kld->ptlhk", heads, vectors)
    for path in (None, tmp_path / "folder"):
        found = traces(tiny_llama, runs, site="heads", vectors=vectors, path=path)
        found = found.sel(prompt=heads["prompt"].values)
        assert found.dims == ("prompt", "token", "layer", "head", "trait")
        assert np.allclose(found, expected, atol=1e-4, equal_nan=True)
        assert np.allclose(found["norm"], np.linalg.norm(heads, axis=-1), atol=1e-5, equal_nan=True)
        assert not np.allclose(found, expected[..., ::-1], atol=1e-4, equal_nan=True)


def test_vectors_of_another_site_are_refused(tiny_llama, runs):
    means = traces(tiny_llama, runs, site="mlp", reduce="mean")
    vector = means.isel(prompt=0, drop=True).assign_coords(trait="a/one")
    assert traces(tiny_llama, runs, site="mlp", vectors=vector).sizes["trait"] == 1
    with pytest.raises(ValueError, match="taken from the site 'mlp', and the values are of 'resid"):
        traces(tiny_llama, runs, vectors=vector)
    assert traces(tiny_llama, runs, vectors=vector.drop_attrs()).sizes["trait"] == 1


def test_means_over_tokens_keep_the_other_axes(tiny_llama, runs):
    heads = traces(tiny_llama, runs, site="heads")
    means = traces(tiny_llama, runs, site="heads", reduce="mean")
    largest = traces(tiny_llama, runs, site="heads", reduce=("top", lambda row: row.amax(0)))
    assert means.dims == largest.dims == ("prompt", "layer", "head", "dim")
    assert np.allclose(means, heads.mean("token"), atol=1e-5)
    assert np.allclose(largest, heads.max("token"), atol=1e-6)
    assert not np.allclose(largest, means, atol=1e-2)


def test_heads_while_generating_are_those_of_the_replay(tiny_llama):
    asked = tk.encode(tiny_llama, TEXTS[1:])
    for site in ("heads", "keys", "mlp_hidden"):
        runs, steps = tk.capture_during(
            tiny_llama, asked, [1, 3], site=site, max_new_tokens=4, progress=False
        )
        replay = tk.capture(tiny_llama, runs, [1, 3], site=site, progress=False)
        replay = replay.sel(token=steps["token"]).where(steps.notnull())
        assert steps.dims == replay.dims
        assert np.allclose(steps, replay, atol=1e-4, equal_nan=True)
        assert not np.allclose(steps, replay * 1.01, atol=1e-4, equal_nan=True)
    with pytest.raises(ValueError, match="while the model generates"):
        tk.capture_during(tiny_llama, asked, [1], site="pattern", max_new_tokens=2, progress=False)
