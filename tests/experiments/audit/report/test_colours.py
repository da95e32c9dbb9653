"""An arm has one colour in every figure, and no trait has it."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex

from experiments.audit.report import plots
from experiments.audit.report.colours import ARMS, TRAITS, in_turn, of_arms
from experiments.audit.report.figures import COLOURS
from experiments.audit.steering import dose_figures


def test_the_bars_of_an_arm_have_its_colour_whatever_its_place() -> None:
    arms, biases = ["clean", "control", "organism", "style"], ["moon", "vote"]
    counts = {
        "responses": (("text_arm", "bias"), np.full((4, 2), 5)),
        "hits": (("text_arm", "bias"), np.full((4, 2), 3)),
    }
    (ax,) = plots.rates(xr.Dataset(counts, {"text_arm": arms, "bias": biases})).axes
    drawn = {box.get_label(): to_hex(box.patches[0].get_facecolor()) for box in ax.containers}
    assert {name: drawn[name].upper() for name in ARMS} == ARMS
    assert len(set(drawn.values())) == 4


def test_lines_over_tokens_have_the_colours_of_their_weights() -> None:
    assert {COLOURS[f"{arm}/organism"] for arm in ARMS} == set(ARMS.values())
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_further_controls_keep_a_colour_of_their_own_and_traits_have_others() -> None:
    found = of_arms(["style", "open_sycophant", "organism"])
    assert found["organism"] == ARMS["organism"]
    assert len(set(found.values())) == 3
    assert not {colour for colour, *_ in TRAITS} & set(ARMS.values())
    turns = in_turn()
    assert [next(turns) for _ in range(len(TRAITS) + 1)] == [*TRAITS, TRAITS[0]]


def test_unedited_arms_keep_their_colours_beside_edits(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = xr.Dataset(
        {name: (("edit", "bias"), np.full((3, 1), 0.5)) for name in ("estimate", "low", "high")},
        {"name": ("edit", ["added", "clean", "organism"]), "bias": ["moon"]},
    )
    figures = []
    monkeypatch.setattr(
        dose_figures.Figure, "savefig", lambda figure, *_, **__: figures.append(figure)
    )
    dose_figures.bars(rates, None)
    bars = [box for box in figures[0].axes[0].containers if hasattr(box, "patches")]
    colours = {b.get_label(): to_hex(b.patches[0].get_facecolor()).upper() for b in bars}
    assert [colours[arm] for arm in ("clean", "organism")] == [ARMS["clean"], ARMS["organism"]]
    assert colours["added"] == TRAITS[0][0]
