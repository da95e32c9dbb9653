import numpy as np
from planted import contrast_traces

from traits.evaluate import held_out_auroc


def test_held_out_auroc_rises_with_the_planted_effect_only():
    curve = held_out_auroc(
        contrast_traces(np.random.default_rng(0), pairs=200, effect=3.0),
        generator=np.random.default_rng(1),
    )
    assert 0.35 < float(curve.sel(layer=0)) < 0.65
    assert float(curve.sel(layer=2)) > 0.9
    assert curve.attrs == {"fit_pairs": 100, "report_pairs": 100}


def test_noise_that_is_fitted_perfectly_is_not_found_again():
    traces = contrast_traces(np.random.default_rng(0), pairs=200, layers=6, dim=600)
    curve = held_out_auroc(traces, "probe", generator=np.random.default_rng(1))
    assert abs(float(curve.mean()) - 0.5) < 0.06
