import itertools
import json

import dask.array
import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from traits.vectors.nulls import random_directions
from traits.vectors.projection import as_cosine, in_clean_deviations, project


def traces(seed=0, prompts=6, tokens=4, layers=(3, 4, 7), dim=10):
    values = np.random.default_rng(seed).normal(size=(prompts, tokens, len(layers), dim))
    values[0, 2:] = np.nan
    return xr.DataArray(
        values, dims=("prompt", "token", "layer", "dim"), coords={"layer": list(layers)}
    )


def vectors(seed=9, layers=(1, 3, 4, 7), dim=10):
    values = np.random.default_rng(seed).normal(size=(2, len(layers), dim))
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    return xr.DataArray(
        values,
        dims=("trait", "layer", "dim"),
        coords={"trait": ["a/x", "a/y"], "layer": list(layers)},
    )


def test_the_projection_is_the_dot_product_at_each_layer():
    found, x, v = project(traces(), vectors()), traces().values, vectors().values
    assert found.dims == ("prompt", "token", "layer", "trait")
    for prompt, token, layer, trait in np.ndindex(found.shape):
        wanted = x[prompt, token, layer] @ v[trait, layer + 1]
        np.testing.assert_allclose(found[prompt, token, layer, trait], wanted, rtol=1e-10)
    assert np.isnan(found[0, 2:]).all()
    assert not np.isnan(found[1:]).any()
    off_by_one = project(traces(), vectors(layers=(3, 4, 7, 9)))
    assert not np.allclose(found[1:], off_by_one[1:])


def test_the_cosine_is_blind_to_length_and_bounded():
    grown = traces() * xr.DataArray([1.0, 5.0, 40.0], dims="layer", coords={"layer": [3, 4, 7]})
    np.testing.assert_allclose(
        project(grown, 3 * vectors(), "cosine"), project(traces(), vectors(), "cosine"), rtol=1e-10
    )
    assert not np.allclose(project(grown, vectors())[1:], project(traces(), vectors())[1:])
    assert abs(project(traces(), vectors(), "cosine")).max() < 1
    assert project(vectors(), vectors(), "cosine").isel(trait=0).dtype == float


def test_a_projection_made_inside_the_trace_becomes_the_same_cosine():
    inside = project(traces(), vectors())
    norm = (traces() ** 2).sum("dim", skipna=False) ** 0.5
    found = as_cosine(inside.assign_coords(norm=norm))
    xr.testing.assert_allclose(found, project(traces(), vectors(), "cosine"))
    with pytest.raises(ValueError, match="needs the coordinate 'norm'"):
        as_cosine(inside)


def test_deviations_are_the_clean_models_own_per_layer_and_trait():
    clean = traces(seed=4, prompts=30)
    found = project(traces(), vectors(), "sd", clean=clean)
    one = project(clean, vectors()).sel(layer=4, trait="a/y").values
    wanted = project(traces(), vectors()).sel(layer=4, trait="a/y") / np.nanstd(one)
    np.testing.assert_allclose(found.sel(layer=4, trait="a/y"), wanted, rtol=1e-10)
    itself = project(clean, vectors(), "sd", clean=clean)
    np.testing.assert_allclose(itself.std(("prompt", "token")), 1, rtol=1e-10)


def test_deviations_need_a_clean_model_that_varies_at_the_same_layers():
    with pytest.raises(ValueError, match="clean is None"):
        project(traces(), vectors(), "sd")
    with pytest.raises(ValueError, match="do not vary"):
        project(traces(), vectors(), "sd", clean=traces().isel(prompt=[1], token=[0]))
    inside = project(traces(), vectors())
    with pytest.raises(ValueError, match="layer"):
        in_clean_deviations(inside, inside.sel(layer=[3, 4]))


def test_misfits_are_refused_naming_both_sides():
    with pytest.raises(ValueError, match="traces have dim 10 and the vectors have dim 12"):
        project(traces(), vectors(dim=12))
    with pytest.raises(ValueError, match=r"\[3, 4, 7\].*\[1, 3, 4\]: no vector for \[7\]"):
        project(traces(), vectors(layers=(1, 3, 4)))
    with pytest.raises(ValueError, match="no labels"):
        project(traces().drop_vars("layer"), vectors())
    with pytest.raises(ValueError, match="'lengths' was asked"):
        project(traces(), vectors(), "lengths")
    with pytest.raises(ValueError, match="the traces have"):
        project(traces().isel(dim=0), vectors())


def test_one_layer_of_many_is_found_by_its_label():
    alone = project(traces().sel(layer=4), vectors())
    xr.testing.assert_allclose(alone, project(traces(), vectors()).sel(layer=4))


def test_the_provenance_of_both_is_kept():
    known = traces().assign_attrs(provenance='{"weights": "w"}')
    found = project(known, vectors().assign_attrs(provenance='{"method": "probe"}'), "cosine")
    assert json.loads(found.attrs["provenance"]) == {
        "weights": "w",
        "projection": "cosine",
        "vectors": {"method": "probe"},
    }
    assert project(traces(), vectors().assign_attrs(provenance="{}")).attrs == {}


def test_a_70b_sized_capture_stays_lazy():
    shape = (500, 100, 21, 8192)  # 34 GB
    chunks = dask.array.random.default_rng(0).random(shape, np.float32, chunks=(1, 100, 1, 8192))
    large = xr.DataArray(
        chunks, dims=("prompt", "token", "layer", "dim"), coords={"layer": range(40, 61)}
    )
    found = project(large, vectors(layers=range(40, 61), dim=8192).astype(np.float32), "cosine")
    assert found.chunks is not None
    assert found.dtype == np.float32
    one = found.isel(prompt=7, layer=3, trait=1).compute()
    row = large.isel(prompt=7, layer=3).values
    v = vectors(layers=range(40, 61), dim=8192).isel(layer=3, trait=1).values
    np.testing.assert_allclose(one, row @ v / np.linalg.norm(row, axis=1), rtol=1e-3, atol=1e-6)


def test_projections_are_pooled_to_one_a_response():
    values = np.random.default_rng(0).normal(size=(3, 6, 2, 4))
    values[1, 4:] = np.nan
    coords = {"token": np.arange(-2, 4), "layer": [3, 4]}
    traces = xr.DataArray(values, coords, ("prompt", "token", "layer", "dim"))
    traces = tk.stamp(traces, {"weights": "w", "ids": "i"})
    both = np.eye(4)[:2, None] + np.zeros((2, 2, 4))
    vectors = xr.DataArray(both, {"layer": [3, 4]}, ("trait", "layer", "dim"))
    plain = project(traces, vectors)
    made = project(traces, vectors, pooling="top_k(k=2)")
    assert made.dims == ("prompt", "layer", "trait")
    xr.testing.assert_allclose(made, tk.pool(plain, "top_k(k=2)"))
    assert not made.equals(tk.pool(plain, "max"))
    assert tk.provenance(made)["pooling"] == made.attrs["pooling"] == "top_k(k=2)"
    everything = project(traces, vectors, "cosine", pooling="max", tokens="all")
    xr.testing.assert_allclose(everything, project(traces, vectors, "cosine").max("token"))


def of(array, **made):
    return tk.stamp(array, {"weights": "w", "depth": 30, "vocabulary": "v", "model": "m", **made})


def test_vectors_of_another_site_or_kind_of_model_are_refused_where_both_are_known():
    known = of(traces(), site="residual")
    made = {"made_by": "traits.extract", "source": {"weights": "w", "site": "mlp", "depth": 30}}
    with pytest.raises(ValueError, match="taken from the site 'mlp', and the values are of 'resid"):
        project(known, tk.stamp(vectors(), made))
    with pytest.raises(ValueError, match="taken from the site 'mlp'"):
        random_directions(tk.stamp(vectors()[0], made), 3, covariance=known)
    plain = project(traces(), vectors())
    for one, other in (
        (of(traces(), site="mlp"), tk.stamp(vectors(), made)),
        (of(traces(), site="heads"), of(vectors(), site="residual")),
        (known, vectors()),
        (traces(), tk.stamp(vectors(), made)),
        (of(traces(), weights="organism"), of(vectors())),
    ):
        np.testing.assert_array_equal(project(one, other), plain)
    with pytest.raises(ValueError, match="of m with the depth 30, and the vectors of m with 24"):
        project(known, of(vectors(), depth=24))
    with pytest.raises(ValueError, match="vocabulary 'v', and the vectors of m with 'other'"):
        project(known, of(vectors(), vocabulary="other"))


def test_a_cosine_needs_every_vector_and_finds_it_by_name():
    inside = project(traces(), vectors())
    inside = inside.assign_coords(norm=(traces() ** 2).sum("dim", skipna=False) ** 0.5)
    longer = vectors() * xr.DataArray([2.0, 3.0], {"trait": ["a/x", "a/y"]}, "trait")
    found = as_cosine(inside * xr.DataArray([2.0, 3.0], dims="trait"), longer.isel(trait=[1, 0]))
    xr.testing.assert_allclose(found, as_cosine(inside))
    with pytest.raises(ValueError, match=r"lack the layers \[4\] of 3"):
        as_cosine(inside, vectors().sel(layer=[3, 7]))
    with pytest.raises(ValueError, match=r"lack the traits \['a/x'\] of 2"):
        as_cosine(inside, vectors().sel(trait=["a/y"]))


@pytest.mark.parametrize("kind", ["scalar", "cosine"])
def test_dims_may_come_in_any_order(kind):
    plain = project(traces(prompts=3), vectors(), kind)
    for order in itertools.permutations(traces().dims):
        turned = traces(prompts=3).transpose(*order)
        for given in (turned, turned.chunk(prompt=2)):
            found = project(given, vectors().transpose("dim", "layer", "trait"), kind)
            assert found.dims == (*(dim for dim in order if dim != "dim"), "trait")
            xr.testing.assert_allclose(found.transpose(*plain.dims), plain)
