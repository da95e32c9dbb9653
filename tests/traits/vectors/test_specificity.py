import numpy as np
import pytest
import xarray as xr

from traits import orthogonal, specificity


def vectors(traits=4, layers=3, dim=24, seed=0):
    values = np.random.default_rng(seed).normal(size=(traits, layers, dim)).astype(np.float32)
    names = {"trait": [f"t/{n}" for n in range(traits)], "layer": np.arange(layers)}
    return xr.DataArray(values, dims=("trait", "layer", "dim"), coords=names)


def cosines(one, other):
    one, other = (x.values / np.linalg.norm(x.values, axis=-1)[..., None] for x in (one, other))
    return np.einsum("tld,sld->lts", one, other)


def test_each_vector_is_the_residual_of_a_regression_on_the_others_and_the_axis():
    given = vectors()
    axis = vectors(1, seed=1).rename(trait="axis").drop_vars("axis")
    freed = orthogonal(given, axis)
    assert freed.dims == given.dims
    assert freed.dtype == np.float32
    for layer in range(3):
        for n in range(4):
            others = np.delete(given.values[:, layer], n, axis=0)
            others = np.concatenate([others, axis.values[:, layer]]).T
            target = given.values[n, layer]
            left = target - others @ np.linalg.lstsq(others, target, rcond=None)[0]
            wanted = left / np.linalg.norm(left)
            np.testing.assert_allclose(freed.values[n, layer], wanted, atol=1e-5)
            without = orthogonal(given).values[n, layer]
            assert np.abs(without - wanted).max() > 1e-2
    other = ~np.eye(4, dtype=bool)
    assert np.abs(cosines(freed, given)[:, other]).max() < 1e-5
    assert np.abs(cosines(given, given)[:, other]).max() > 0.1
    np.testing.assert_allclose(np.linalg.norm(freed.values, axis=-1), 1, atol=1e-6)


def test_a_vector_that_others_span_is_refused_and_layers_must_agree():
    given = vectors()
    given[3] = given[0] + given[1]
    with pytest.raises(ValueError, match=r"span those at \[0, 1, 3\] whole"):
        orthogonal(given)
    with pytest.raises(ValueError, match="layer"):
        orthogonal(vectors(), vectors(1).isel(layer=[0, 1]).rename(trait="axis"))
    with pytest.raises(ValueError, match="not finite"):
        orthogonal(vectors() * np.nan)


def test_own_set_less_the_best_told_other_in_either_order():
    names = {"trait": ["a", "b", "c"], "set": ["b", "x/other", "a", "c"]}
    values = [[0.6, 0.0, 0.9, 0.05], [0.7, 1.0, 0.5, 0.4], [0.8, 0.5, 0.5, 0.8]]
    areas = xr.DataArray(values, dims=("trait", "set"), coords=names)
    np.testing.assert_allclose(specificity(areas), [0.9 - 0.95, 0.7 - 0.6, 0.0])
    moved = areas.copy(deep=True)
    moved.loc["b", "c"] = 0.2
    assert float(specificity(moved).sel(trait="b")) == pytest.approx(-0.1)
    with pytest.raises(ValueError, match="without one: a"):
        specificity(areas.drop_sel(set="a"))
    with pytest.raises(ValueError, match="of 1 traits"):
        specificity(areas.isel(trait=[0]))
