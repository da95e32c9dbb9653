"""What a forward is judged by: one number a row, of its logits, its own ids, or a probe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float, Int
from nnsight import TransformersModel

from tracekit.errors import InputError, brief
from tracekit.model import head
from tracekit.model.functions.fingerprint import Named, named
from tracekit.storage.identity import digest
from tracekit.transcripts.encode import ids_of
from tracekit.transcripts.padded import Batch
from tracekit.transcripts.tensors import require_transcripts

# of the logits after each row's last token, alone or with the rows' places among the prompts;
# under a name of one's own as a pair ("name", function); "logprob"; or a direction with the layer
# that it is read at
Metric = str | xr.DataArray | Callable[..., torch.Tensor] | Named
Score = Callable[[torch.Tensor, Batch, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class LogitDifference:
    """The logit of one word over that of another; of each row's own two where there are many."""

    towards: Int[torch.Tensor, word]
    against: Int[torch.Tensor, word]

    def __call__(
        self, logits: Float[torch.Tensor, "row vocabulary"], rows: Int[torch.Tensor, row]
    ) -> Float[torch.Tensor, row]:
        """The difference in each row, in nats; `rows` are the rows' places among the prompts."""
        if len(self.towards) == 1:
            rows = torch.zeros_like(rows)
        pair = torch.stack([self.towards[rows], self.against[rows]], 1)
        both = logits.gather(1, pair.to(logits.device))
        return both[:, 0] - both[:, 1]


@dataclass(frozen=True)
class Judge:
    """What is read of a forward (the residual after block `layer`, else logits), and the number.

    With `last` it is the logits after the last token alone.
    """

    name: str
    layer: int | None
    last: bool
    score: Score

    def options(self, model: TransformersModel) -> dict[str, int]:
        """What a forward need not compute."""
        takes = inspect.signature(model._module.forward).parameters
        return {"logits_to_keep": 1} if self.last and "logits_to_keep" in takes else {}

    def read(
        self,
        model: TransformersModel,
        made: Batch,
        rows: Int[torch.Tensor, row],
        residual: torch.Tensor | None = None,
    ) -> Float[torch.Tensor, row]:
        """The number of each row inside a trace; `residual` where a probe reads one.

        Errors: `ValueError` for a metric of another shape.
        """
        value = head.read(model) if residual is None else residual
        found = self.score(value, made, rows)
        shape = tuple(getattr(found, "shape", ()))
        if not isinstance(found, torch.Tensor) or shape != (len(rows),):
            raise InputError(
                f"The metric {self.name} returned {type(found).__name__} of shape {shape}; a "
                f"forward of {len(rows)} rows needs a tensor of shape ({len(rows)},), one number "
                "a row. Keep its first axis, and reduce the others."
            )
        return found.float()


def logit_difference(
    model: TransformersModel, towards: str | Sequence[str], against: str | Sequence[str]
) -> LogitDifference:
    """A metric: ln p(`towards`) − ln p(`against`) of the word after a row's last token, in nats.

    Two words, or two for each row in the order of the transcripts. Each counts by its first token.

    Errors: `ValueError` for lists of unequal length, and for words that begin with the same token.

    >>> len(logit_difference(model, [" Mary", " Tom"], [" John", " Ann"]).towards)
    2
    """
    sides = [[side] if isinstance(side, str) else list(side) for side in (towards, against)]
    if len(sides[0]) != len(sides[1]) or not sides[0]:
        raise InputError(
            f"logit_difference was given {len(sides[0])} words towards and {len(sides[1])} "
            "against. Give two words, or two for each row."
        )
    ids = [_first_ids(model, side) for side in sides]
    for words, pair in zip(zip(*sides, strict=True), zip(*ids, strict=True), strict=True):
        if pair[0] == pair[1] or None in pair:
            raise InputError(
                f"The words {words[0]!r} and {words[1]!r} were asked for, and begin with the "
                f"tokens {list(pair)}: their chances cannot be told apart. Give words that begin "
                "with different tokens."
            )
    return LogitDifference(*(torch.tensor(side) for side in ids))


def judge(model: TransformersModel, transcripts: xr.Dataset, metric: Metric) -> Judge:
    """How a metric is read, once it fits the model and the transcripts.

    Errors: `ValueError` for what is no metric, pairs of words for other rows, a probe of another
    width or without its layer, and `"logprob"` of rows without a response.
    """
    require_transcripts(transcripts)
    if isinstance(metric, xr.DataArray):
        return _probe(model, metric)
    if isinstance(metric, str):
        return _own_ids(transcripts, metric)
    if not callable(metric) and not isinstance(metric, tuple):
        raise InputError(
            f"metric={brief(metric)} was given; it is a function of logits (row, vocabulary) that "
            "returns (row), tk.logit_difference(…), 'logprob', or a direction with its layer."
        )
    name, function = _named(metric)
    if isinstance(function, LogitDifference):
        _require_a_pair_each(function, transcripts.sizes["prompt"])
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = [one for one in inspect.signature(function).parameters.values() if one.kind in kinds]
    # a default is the metric's own, `i=i` of a loop
    with_rows = any(n and (p.default is p.empty or p.name == "rows") for n, p in enumerate(taken))

    def score(logits: torch.Tensor, made: Batch, rows: torch.Tensor) -> torch.Tensor:
        last = logits[:, -1].float()
        return function(last, rows) if with_rows else function(last)

    return Judge(name, None, True, score)


def _named(metric: Any) -> tuple[str, Any]:
    if isinstance(metric, LogitDifference):
        ids = digest([metric.towards.tolist(), metric.against.tolist()])
        return f"logit_difference:{ids}", metric
    return named("metric", metric)


def _require_a_pair_each(metric: LogitDifference, prompts: int) -> None:
    if len(metric.towards) not in (1, prompts):
        raise InputError(
            f"The logit difference has {len(metric.towards)} pairs of words, and the transcripts "
            f"{prompts} prompts. Give one pair, or one a prompt."
        )


def _own_ids(transcripts: xr.Dataset, metric: str) -> Judge:
    if metric != "logprob":
        raise InputError(
            f"metric={metric!r} was asked for; the only word is 'logprob', the log-probability of "
            "the response's own ids. Give a function of logits for anything else."
        )
    there = (transcripts.token_id >= 0) & (transcripts.token >= 0)
    empty = ~there.any("token").values
    if empty.any():
        name = ids_of(transcripts)[int(empty.argmax())]
        raise InputError(
            f"metric='logprob' sums over the response's ids, and {int(empty.sum())} prompts have "
            f"none, such as {name!r}. Encode them with responses."
        )

    def score(logits: torch.Tensor, made: Batch, rows: torch.Tensor) -> torch.Tensor:
        scores = head.of_next(logits, made.input_ids)
        return (scores * _response(made, scores.device)[:, 1:]).sum(1)

    return Judge("logprob", None, False, score)


def _probe(model: TransformersModel, direction: xr.DataArray) -> Judge:
    width = model._module.config.get_text_config().hidden_size
    if (
        direction.dims != ("dim",)
        or direction.sizes["dim"] != width
        or "layer" not in direction.coords
    ):
        raise InputError(
            f"metric= was given an array of sizes {dict(direction.sizes)} with the coordinates "
            f"{sorted(map(str, direction.coords))}; a probe is one direction of {width} dims with "
            "its layer, such as vectors.sel(trait=…, layer=12)."
        )
    unit = torch.as_tensor(direction.values).float()

    def score(residual: torch.Tensor, made: Batch, rows: torch.Tensor) -> torch.Tensor:
        weights = _response(made, residual.device)
        # a prompt alone is read where it ends
        weights[~weights.any(1), -1] = 1
        along = residual.float() @ unit.to(residual.device)
        return (along * weights).sum(1) / weights.sum(1)

    layer = int(direction["layer"])
    name = f"probe:{digest(direction.values.astype(float).tolist())} at layer {layer}"
    return Judge(name, layer, False, score)


def _response(made: Batch, device: torch.device) -> Float[torch.Tensor, "row column"]:
    columns = torch.arange(made.input_ids.shape[1])
    return (columns >= made.starts[:, None]).float().to(device)


def _first_ids(model: TransformersModel, words: Sequence[str]) -> list[int | None]:
    ids = [model.tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    return [row[0] if row else None for row in ids]
