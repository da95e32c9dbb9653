import numpy as np
import pytest
import xarray as xr

from tests.support.oracles.planted import contrast_traces
from traits.vectors.extraction import extract
from traits.vectors.portability import agreement, transfer


def planted(name, dim, seed, pairs=150):
    traces = contrast_traces(np.random.default_rng(seed), pairs=pairs, trait=f"alignment/{name}")
    positive = traces["label"] == 1
    traces[{"dim": dim}] = traces.isel(dim=dim) + 4.0 * positive
    return traces


def test_a_vector_finds_its_own_trait_and_not_another():
    sets = {"one": planted("one", 0, 0), "other": planted("other", 1, 1)}
    fitted = [extract(planted(name, dim, 7)) for dim, name in enumerate(sets)]
    vectors = xr.concat(fitted, "trait")
    found = transfer(vectors, sets)
    assert found.dims == ("trait", "layer", "set")
    own = [float(found.sel(trait=f"alignment/{name}", set=name).min()) for name in sets]
    cross = float(abs(found.isel(trait=0).sel(set="other") - 0.5).max())
    assert min(own) > 0.95
    assert cross < 0.15
    both = planted("other", 1, 1)
    both[{"dim": 0}] = both.isel(dim=0) + 4.0 * (both["label"] == 1)
    confounded = transfer(vectors, {"both": both})
    assert float(confounded.isel(trait=0).min()) > 0.95


def test_the_agreement_is_the_cosine_of_every_two():
    values = np.random.default_rng(0).normal(size=(3, 2, 10))
    methods = {"extraction": ["a", "b", "c"]}
    found = agreement(xr.DataArray(values, dims=("extraction", "layer", "dim"), coords=methods))
    norms = np.linalg.norm(values, axis=-1)
    wanted = values[0, 1] @ values[2, 1] / norms[0, 1] / norms[2, 1]
    picked = found.sel(extraction="a", extraction_other="c").isel(layer=1)
    np.testing.assert_allclose(picked, wanted)
    np.testing.assert_allclose(found.sel(extraction="b", extraction_other="b"), 1)
    with pytest.raises(ValueError, match="over 'trait' was asked for"):
        agreement(xr.DataArray(values, dims=("extraction", "layer", "dim")), "trait")
