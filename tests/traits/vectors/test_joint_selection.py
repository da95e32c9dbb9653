"""One layer for all traits: its choice, its measures and its nulls, on planted and empty pairs."""

import numpy as np
import pytest

from traits import METHODS
from traits.statistics import rank_auroc
from traits.vectors.joint_selection import FORMS, Parts, evaluate_jointly

NAMES = ("mine/a", "mine/b", "mine/c")
LAYERS, DIM = 4, 20


def planted(seed=0, effect=3.0, best=2, pairs=24, shared=0.0):
    """Traits along dims of their own at one layer, and `shared` along one dim of all."""
    draw = np.random.default_rng(seed)

    def sides(n):
        positive, negative = draw.normal(size=(2, pairs, 1, LAYERS, DIM)).astype(np.float32)
        positive[:, :, best, n] += effect
        positive[:, :, best, 9] += shared
        return positive, negative

    return {name: Parts(sides(n), sides(n), sides(n)) for n, name in enumerate(NAMES)}


def run(parts, seed=1, **more):
    more = {"draws": 0, "resamples": 20, **more}
    draw = np.random.default_rng(seed)
    return evaluate_jointly(parts, METHODS["mean_diff"], generator=draw, **more)


def test_the_layer_is_that_of_all_traits_and_never_chosen_on_the_report():
    parts = planted()
    result = run(parts)
    assert result["selected_layer"].values.tolist() == [2, 2]
    assert float(result["estimate"].min()) > 0.9
    # the report alone would call for layer 0: nothing of it is heard
    moved = {}
    for name, part in parts.items():
        report = tuple(side[:, :, [2, 1, 0, 3]] for side in part.report)
        moved[name] = Parts(part.fit, part.select, report)
    other = run(moved)
    assert other["selected_layer"].values.tolist() == [2, 2]
    assert float(other["estimate"].sel(measure="auroc").max()) < 0.8


def test_one_trait_alone_does_not_choose_for_all():
    parts, other = planted(best=2), planted(best=0, effect=5.0)
    mixed = {**parts, NAMES[0]: other[NAMES[0]]}
    assert int(run(mixed)["selected_layer"].sel(form="as fitted")) == 2
    alone = run({NAMES[0]: other[NAMES[0]]})
    assert int(alone["selected_layer"].sel(form="as fitted")) == 0


def test_the_measures_are_those_of_the_vector_it_returns():
    parts = planted(effect=1.0)
    result = run(parts)
    for form in FORMS:
        one = result.sel(form=form)
        layer = int(one["selected_layer"])
        for name, part in parts.items():
            positive, negative = (
                side[:, 0, layer] @ one["vector"].sel(trait=name).values for side in part.report
            )
            here = one.sel(trait=name)["estimate"]
            area = float(rank_auroc(positive.astype(float), negative.astype(float)))
            assert float(here.sel(measure="auroc")) == pytest.approx(area, abs=1e-6)
            within = float((positive > negative).mean())
            assert float(here.sel(measure="within pairs")) == pytest.approx(within, abs=1e-6)
            swapped = float(rank_auroc(negative.astype(float), positive.astype(float)))
            assert float(here.sel(measure="auroc")) != pytest.approx(swapped)
    assert (result["low"] <= result["estimate"]).all()
    assert (result["high"] >= result["estimate"]).all()


def test_what_traits_share_is_gone_from_the_orthogonal_form_alone():
    parts = planted(effect=3.0, shared=6.0)
    axis = np.zeros((1, 1, LAYERS, DIM))
    axis[..., 9] = 1.0
    result = run(parts, axes=axis)
    along = np.abs(result["vector"].isel(dim=9))
    assert float(along.sel(form="as fitted").min()) > 0.5
    assert float(along.sel(form="orthogonal").max()) < 1e-6
    assert float(result["estimate"].sel(form="orthogonal", measure="auroc").min()) > 0.85


def test_planted_traits_are_above_all_bands_and_noise_is_not():
    placebos = np.random.default_rng(5).normal(size=(7, 1, LAYERS, DIM))
    strong, empty = (
        run(planted(effect=effect), draws=39, placebos=placebos) for effect in (3.0, 0.0)
    )
    strong, empty = (result.sel(measure="auroc") for result in (strong, empty))
    bands = strong["null_95"]
    assert bands["null"].values.tolist() == ["shuffled pairs", "covariance-matched", "placebo"]
    assert (strong["estimate"] > bands).all()
    share = float((empty["estimate"] > empty["null_95"]).mean())
    assert share < 0.35
    assert "null_95" not in run(planted())


def test_vectors_that_repeat_one_another_are_refused():
    parts = planted()
    twice = {**parts, "mine/again": parts[NAMES[0]]}
    with pytest.raises(ValueError, match=r"span those at \[0, 3\] whole"):
        run(twice)
