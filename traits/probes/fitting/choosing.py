"""Which layer, pooling and penalty: by the AUROC on the part "select", and by nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import roc_auc_score

from tracekit.errors import InputError
from tracekit.transcripts.pooling import Pooling, pooled
from traits.probes.fitting.labels import Labels
from traits.probes.fitting.method_table import Parameters
from traits.probes.fitting.rows import Source
from traits.probes.fitting.token_values import token_values
from traits.statistics.ranks import label_auroc


@dataclass(frozen=True)
class Candidates:
    """What may be chosen among, in the order in which ties are broken."""

    layers: Sequence[int]
    poolings: Sequence[Pooling]
    penalties: Sequence[float]

    @property
    def number(self) -> int:
        """How many there are."""
        return len(self.layers) * len(self.poolings) * len(self.penalties)

    def coordinates(self) -> dict[str, Any]:
        """The layer, pooling and inverse penalty of each, over `candidate`."""
        all_of = list(itertools.product(self.layers, map(str, self.poolings), self.penalties))
        layers, poolings, penalties = zip(*all_of, strict=True)
        return {
            "candidate_layer": ("candidate", np.asarray(layers, np.int32)),
            "candidate_pooling": ("candidate", np.asarray(poolings, np.str_)),
            "candidate_inverse_penalty": ("candidate", np.asarray(penalties, np.float64)),
        }


def areas(
    held: Source,
    layer: int,
    probes: Sequence[Sequence[Parameters]],
    poolings: Sequence[Pooling],
    labels: Labels,
    rows: Int[np.ndarray, " row"],
) -> Float[np.ndarray, "target pooling penalty"]:
    """The AUROC on `rows` of probes (target, penalty) of one layer, by each pooling.

    Of pooled scores, where the prompts have both labels; else of the labelled tokens, each prompt
    weighing alike.
    """
    scores, logits = token_scores(held, layer, probes, rows)
    made = np.empty((len(probes), len(poolings), len(probes[0])))
    for target, place in itertools.product(range(len(probes)), range(len(poolings))):
        truth = labels.prompt[rows, target]
        if both(truth):
            one = None if logits is None else logits[target]
            found = pooled(scores[target], poolings[place], one)
            known = ~np.isnan(truth)
            made[target, place] = label_auroc(found[:, known], truth[known])
        else:
            made[target, place] = _of_tokens(scores[target], labels, rows, target)
    return made


def best(
    area: Float[np.ndarray, "target layer pooling penalty"], candidates: Candidates
) -> tuple[Pooling, list[tuple[int, int]]]:
    """The pooling, one for all targets, and each target's place (layer, penalty).

    The pooling is that with the highest mean over targets of their best AUROC; ties go to the
    first candidate, which is the lowest layer and the strongest penalty.

    >>> area = np.array([[[[0.5, 0.9]], [[0.7, 0.9]]]])
    >>> best(area, Candidates([3, 4], [Pooling("mean")], [0.1, 1.0]))[1]
    [(0, 1)]
    """
    by_pooling = area.max((1, 3)).mean(0)
    pooling = int(np.argmax(by_pooling >= by_pooling.max() - 1e-12))
    places = []
    for of_target in area[:, :, pooling]:
        first = int(np.argmax(of_target >= of_target.max() - 1e-12))
        layer, penalty = np.unravel_index(first, of_target.shape)
        places.append((int(layer), int(penalty)))
    return candidates.poolings[pooling], places


def both(truth: Float[np.ndarray, " row"]) -> bool:
    """Whether labels have a 0 and a 1.

    >>> both(np.array([0.0, 1.0, np.nan])), both(np.array([1.0, np.nan]))
    (True, False)
    """
    return bool((truth == 0).any() and (truth == 1).any())


def pooled_scores(
    held: Source,
    layer: int,
    parameters: Parameters,
    pooling: Pooling,
    rows: Int[np.ndarray, " row"],
) -> Float[np.ndarray, " row"]:
    """The pooled score that a probe gives each of `rows`."""
    scores, logits = token_scores(held, layer, [[parameters]], rows)
    return pooled(scores[0, 0], pooling, None if logits is None else logits[0, 0])


def refuse_constant(
    held: Source,
    layer: int,
    probes: Mapping[str, Parameters],
    rows: Int[np.ndarray, " row"],
) -> None:
    """Errors: `ValueError` where a probe of a layer, by name, gives every token the same score."""
    scores, _ = token_scores(held, layer, [list(probes.values())], rows)
    for name, own in zip(probes, scores[0], strict=True):
        if np.nanmin(own) == np.nanmax(own):
            raise InputError(
                f"The probe{name} at layer {layer} gives all {int((~np.isnan(own)).sum())} tokens "
                f"of {len(rows)} prompts the same score, {np.nanmin(own):.4g}: nothing in the "
                "traces tells the classes apart. Look at the traces, or take other layers."
            )


def token_scores(
    held: Source,
    layer: int,
    probes: Sequence[Sequence[Parameters]],
    rows: Int[np.ndarray, " row"],
) -> tuple[np.ndarray, np.ndarray | None]:
    """Token scores (target, penalty, row, token), NaN where no token counts, and logits."""
    flat = stacked([one for of_target in probes for one in of_target])
    made = [token_values(flat, values) for _, values in held.blocks(layer, rows)]
    shape = (len(probes), len(probes[0]), len(rows), held.real.shape[1])
    hole = ~held.real[rows]
    arrays = [np.concatenate([one[k] for one in made]) for k in (0, 1) if made[0][k] is not None]
    filled = [np.moveaxis(np.where(hole[..., None], np.nan, one), -1, 0) for one in arrays]
    scores, *logits = [one.reshape(shape) for one in filled]
    return scores, logits[0] if logits else None


def stacked(parameters: Sequence[Mapping[str, np.ndarray]]) -> Parameters:
    """Parameters of several probes with a leading axis of them.

    >>> stacked([{"offset": np.zeros(())}] * 2)["offset"].shape
    (2,)
    """
    return {name: np.stack([one[name] for one in parameters]) for name in parameters[0]}


def _of_tokens(
    scores: Float[np.ndarray, "penalty row token"],
    labels: Labels,
    rows: Int[np.ndarray, " row"],
    target: int,
) -> list[float]:
    assert labels.token is not None  # prompts have both labels otherwise: `require_classes`
    truth = labels.token[rows, :, target]
    known = ~np.isnan(truth)
    weight = np.broadcast_to(1 / np.maximum(known.sum(1, keepdims=True), 1), known.shape)
    return [roc_auc_score(truth[known], s[known], sample_weight=weight[known]) for s in scores]
