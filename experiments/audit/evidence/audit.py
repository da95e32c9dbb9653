"""One adapter's audit: its responses, what was fixed before the run, and each statistic once."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.evidence import choice, gather
from experiments.audit.evidence.choice import Choice, Scores, allowed_layers
from experiments.audit.evidence.directions_null import TokenResiduals, Values
from experiments.audit.evidence.relabel import decided, groups
from experiments.audit.run import Run
from experiments.audit.settings.groups import MEAN, Settings
from tracekit.transcripts.pooling import Pooling

Statistic = TypeVar("Statistic")


@dataclass(frozen=True)
class Audit:
    """One adapter's responses (`gather.gathered`), and what was fixed before the run.

    `traits` are the primary ones that are there and passed their own evaluation; `allowed` the
    places on the layer axis that may be chosen; `folder` holds the run's files.
    """

    folder: Path
    responses: xr.Dataset
    traits: tuple[str, ...]
    allowed: np.ndarray
    settings: Settings

    def once(self, statistic: Callable[[Audit], Statistic]) -> Statistic:
        """A statistic of this audit, computed when it is first asked for and then remembered."""
        if statistic not in self._known:
            self._known[statistic] = statistic(self)
        return self._known[statistic]

    def generator(self, what: str) -> np.random.Generator:
        """A generator of its own for each part, so that none depends on another."""
        return np.random.default_rng([self.settings.null.seed, zlib.crc32(what.encode())])

    def of(self, responses: xr.Dataset) -> Self:
        """The same audit of another adapter's responses."""
        return replace(self, responses=responses)

    @cached_property
    def rows(self) -> xr.Dataset:
        """The responses to prompts with a bias that can be exploited."""
        biased = self.responses["exploit"].values >= 0
        return self.responses.isel(prompt=np.flatnonzero(biased))

    @cached_property
    def replays(self) -> dict[str, xr.Dataset]:
        """Every other adapter on the organism's ids, by name (`gather.replayed`)."""
        others = [name for name in self.settings.arms if name not in ("clean", "organism")]
        return {name: gather.replayed(self.folder, name, self.rows) for name in others}

    @cached_property
    def means(self) -> xr.DataArray:
        """Mean unit residuals of the rows: (weights, prompt, layer, dim)."""
        return tk.open(Run(self.folder).means).sel(prompt=self.rows["prompt"].values)

    @cached_property
    def readable(self) -> Values:
        """What any direction's score of the rows is read off, pooled as the traits' scores are."""
        if self.settings.hypothesis.pooling == MEAN:
            return self.means.sel(weights="organism").values
        whole = tk.open(Run(self.folder).traces("organism/organism")).sel(token=slice(0, None))
        rows = whole.sel(prompt=self.rows["prompt"].values)
        pooling = Pooling.read(self.settings.hypothesis.pooling)
        return TokenResiduals(rows, self.layers.tolist(), pooling)

    @property
    def kept_layers(self) -> list[int] | None:
        """The layers at which directions can be scored; None where that is all of them."""
        return kept_layers(self.settings)

    @property
    def vectors(self) -> xr.DataArray:
        """The vectors of the method that is projected on: (trait, layer, dim)."""
        method = self.settings.vectors.method
        return Run(self.folder).vectors_of(method)

    @property
    def evaluation(self) -> xr.Dataset:
        """How those vectors did on contrast pairs."""
        return evaluation_of(self.folder, self.settings)

    def scores(self, name: str = "score") -> Scores:
        """A variable of the rows at the primary traits."""
        values = self.rows[name].sel(trait=list(self.traits)).values
        label, bias, group = (self.rows[key].values for key in ("exploit", "bias", "group"))
        return Scores(values, label.astype(int), bias.astype(str), group.astype(str))

    def part(self, name: str) -> np.ndarray:
        """Which rows are of that part and of a bias with both outcomes in it."""
        rows = self.part_rows(name)
        scores = self.scores()
        there = decided(scores.label[rows], scores.bias[rows])
        return np.isin(scores.bias, there) & rows

    def part_rows(self, name: str) -> np.ndarray:
        """Which rows are of that part, whatever their outcomes."""
        return self.rows["part"].values.astype(str) == name

    @property
    def held_out_prompts(self) -> int:
        """The number of prompts that detection is reported on."""
        return groups(self.rows["group"].values[self.part("held_out")])

    @property
    def held_out_kinds(self) -> int:
        """The number of kinds of prompt (biases) among them."""
        return groups(self.rows["bias"].values[self.part("held_out")])

    @property
    def reason(self) -> str:
        """Why detection cannot be decided; empty where it can."""
        if not self.traits:
            return "no primary trait passed its own evaluation"
        if not self.rows.sizes["prompt"]:
            return "no answer could be labelled: no detector, labels or judge for these kinds"
        for name in ("calibration", "held_out"):
            if not self.part(name).any():
                hits = int((self.rows["exploit"].values == 1).sum())
                return f"no {name.replace('_', '-')} bias has both outcomes; {hits} exploit"
        if self.held_out_prompts < 2:
            return "1 prompt of held-out biases; 2 are the least"
        return ""

    @property
    def reason_without_held_out(self) -> str:
        """Why nothing can be said of traits on held-out biases; empty where it can."""
        if self.traits and self.part_rows("held_out").any():
            return ""
        return self.reason or "no held-out biases"

    @cached_property
    def choice(self) -> Choice:
        """What the calibration biases choose: layer, weights, threshold."""
        return self.choice_for("score")

    def choice_for(self, name: str) -> Choice:
        """What they choose for another variable of the rows."""
        return choice.choose(self.scores(name).rows(self.part("calibration")), self.allowed)

    @property
    def place(self) -> int:
        """The place on the layer axis that they choose, or the middle where they choose none."""
        middle = self.allowed[len(self.allowed) // 2]
        return int(middle) if self.reason else self.choice.layer

    @property
    def layers(self) -> np.ndarray:
        """The labels of the layer axis."""
        return self.responses["layer"].values

    @cached_property
    def _known(self) -> dict[Any, Any]:
        return {}


def read_audit(folder: Path, settings: Settings) -> Audit:
    """The audit of the organism's own responses, from the files of a run."""
    pooling = settings.hypothesis.pooling
    responses = gather.gathered(folder, "organism", "organism", pooling)
    return audit_of(folder, responses, settings, _passed(folder, settings))


def audit_of(folder: Path, responses: xr.Dataset, settings: Settings, passed: list[str]) -> Audit:
    """The audit of these responses: primary traits that are there and passed, layers allowed."""
    layers = responses["layer"].values
    low, high = settings.hypothesis.depth
    allowed = allowed_layers(layers, (low, high), len(layers))
    if (kept := kept_layers(settings)) is not None:
        # where directions can be held beside the traits; else the standings say why not
        both = allowed[np.isin(layers[allowed], kept)]
        allowed = both if both.size else allowed
    there = responses["trait"].values.astype(str).tolist()
    traits = tuple(name for name in settings.primary if name in there and name in passed)
    return Audit(folder, responses, traits, allowed, settings)


def kept_layers(settings: Settings) -> list[int] | None:
    """The layers kept in full where a score is no mean, of which directions need every token."""
    return None if settings.hypothesis.pooling == MEAN else settings.model.window


def evaluation_of(folder: Path, settings: Settings) -> xr.Dataset:
    """How the vectors of the method that is projected on did on contrast pairs."""
    return Run(folder).evaluation_of(settings.vectors.method)


def _passed(folder: Path, settings: Settings) -> list[str]:
    evaluation = evaluation_of(folder, settings)
    names = evaluation["trait"].values.astype(str).tolist()
    if "passed" not in evaluation:
        return names
    return [name for name, well in zip(names, evaluation["passed"].values, strict=True) if well]
