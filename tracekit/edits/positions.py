"""Which tokens an edit acts on: labels within the batch whose forward is running."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Int
from nnsight import TransformersModel

from tracekit.errors import InputError
from tracekit.model.record import origin
from tracekit.model.threads import one_at_a_time
from tracekit.storage.identity import digest
from tracekit.transcripts.padded import Batch
from tracekit.transcripts.selection import Selection

# the response, and the last prompt token, which says its first
DEFAULT_TOKENS = slice(-1, None)


class Rows:
    """The rows of the forward that is running, and the label of each of its columns."""

    def __init__(self, batch: Batch, step: int, width: int) -> None:
        prompt = batch.input_ids.shape[1]
        # with a cache a step is its own token; without one, all tokens so far once more
        if width != prompt + step and (width != 1 or step == 0):
            raise InputError(
                f"Forward {step} of a generation, after a prompt of {prompt} columns, has {width} "
                f"columns; {'1 or ' if step else ''}{prompt + step} were expected, so which token "
                "each one is cannot be told: no edits at token labels and no capture_during on "
                "this architecture. Replay fixed ids with tk.capture."
            )
        self.prompts = batch.prompts
        columns = torch.arange(prompt + step - width, prompt + step)
        self.labels: Int[torch.Tensor, "row column"] = columns[None] - batch.starts[:, None]
        # a generated token is known to the model alone: −1
        after = torch.full((len(batch.input_ids), step), -1)
        self.ids: Int[torch.Tensor, "row column"] = torch.cat([batch.input_ids, after], 1)[
            :, -width:
        ]
        real = torch.cat([batch.attention_mask, torch.ones_like(after)], 1)
        self.real: Bool[torch.Tensor, "row column"] = real[:, -width:].bool()

    @functools.cached_property
    def prompt_hashes(self) -> list[str]:
        """A hash of each row's prompt ids; none where no prompt token is in this forward."""
        prompts = self.real & (self.labels < 0)
        if not bool(prompts.any()):
            return []
        rows = zip(self.ids, prompts, strict=True)
        return [digest(ids[before].tolist()) for ids, before in rows]

    def within(self, selection: Selection) -> Bool[torch.Tensor, "row column"]:
        """Where the tokens of a selection are."""
        columns = (self.labels.numpy(), self.ids.numpy(), self.real.numpy())
        return torch.from_numpy(selection.at(self.prompts, *columns))


class Running:
    """A batch on its way through the model, and what its edits report."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.overflows: dict[str, Bool[torch.Tensor, row]] = {}
        # what those who read the batch know of its rows' earlier tokens, by who it is
        self.memory: dict[int, Any] = {}
        self._rows: tuple[tuple[int, int], Rows] | None = None
        self._chosen: dict[Any, Bool[torch.Tensor, "row column 1"]] = {}

    def rows(self, step: int, width: int) -> Rows:
        """The rows of forward `step`, of `width` columns: 0 is the prompt, later ones a token each.

        Errors: `ValueError` for a width that no label can be given to.
        """
        if self._rows is None or self._rows[0] != (step, width):
            self._rows = ((step, width), Rows(self.batch, step, width))
            self._chosen.clear()
        return self._rows[1]

    def chosen(self, selection: Selection, step: int, hidden: torch.Tensor) -> torch.Tensor:
        """Whether an edit at a selection acts, by row and column, made once a forward."""
        rows, key = self.rows(step, hidden.shape[1]), (id(selection), hidden.device)
        if key not in self._chosen:
            self._chosen[key] = rows.within(selection)[..., None].to(hidden.device)
        return self._chosen[key]

    def report(self, edit: str, overflowed: Bool[torch.Tensor, row]) -> None:
        """Rows whose values an edit made infinite; read when the batch is through."""
        before = self.overflows.get(edit)
        self.overflows[edit] = overflowed if before is None else before | overflowed

    def refuse_overflow(self) -> None:
        """Errors: `ValueError` when an edit reported a row."""
        for edit, flags in self.overflows.items():
            if bool(flags.any()):
                names = [
                    name
                    for name, bad in zip(self.batch.prompts, flags.tolist(), strict=True)
                    if bad
                ]
                raise InputError(overflow(edit, f"{len(names)} rows, such as {names[0]!r}"))


def overflow(edit: str, where: str) -> str:
    """The message about an edit whose values are not finite."""
    return (
        f"{edit} made values that are not finite, or too large for a norm, in {where}. "
        "Use a smaller coefficient; tk.residual_norm gives the scale of a layer."
    )


@contextmanager
def rows_of(model: TransformersModel, batch: Batch) -> Iterator[None]:
    """Hands each row's response start to the edits of whatever runs inside.

    What runs inside runs alone in its process.

    Errors: `ValueError` when an edit made values that are not finite, and for padded rows on a
    model that does not handle padding; `RuntimeError` for a model that is broken, or that another
    thread holds.
    """
    with one_at_a_time():
        _refuse_padded(model, batch)
        yield from _rows_of(model._module, Running(batch))


def _rows_of(module: Any, running: Running) -> Iterator[None]:
    before = running_in(module)
    try:
        module.tracekit_rows = running
        with warnings.catch_warnings():
            # an edit's `for step in tracer.iter[:]` is open-ended on purpose
            warnings.filterwarnings("ignore", message=r".*the loop asked for a step the run did")
            yield
    finally:
        module.tracekit_rows = before
        running.refuse_overflow()


def _refuse_padded(model: TransformersModel, batch: Batch) -> None:
    reason = origin(model).refused.get("padding")
    if reason is not None and not bool(batch.attention_mask.all()):
        lengths = batch.attention_mask.sum(1)
        raise InputError(
            f"A batch of rows of {int(lengths.min())} to {int(lengths.max())} tokens was asked of "
            f"{origin(model).name}, but {reason} Leave token_budget out, or use token_budget=1."
        )


def running_in(module: torch.nn.Module) -> Running | None:
    """The batch that is going through a module; `None` in a raw trace."""
    return getattr(module, "tracekit_rows", None)


def by_row(module: torch.nn.Module, value: torch.Tensor) -> torch.Tensor:
    """(row, column, …) of a value whose tokens may all be in one row, as in OPT's MLP."""
    running = running_in(module)
    rows = 1 if running is None else len(running.batch.prompts)
    return value if value.ndim > 2 else value.unflatten(0, (rows, -1))


def named(selection: Selection) -> str:
    """The positions as provenance names them: a slice without a step by its ends alone."""
    tokens = DEFAULT_TOKENS if selection.name == "response" else selection.tokens
    if isinstance(tokens, slice) and tokens.step is None:
        return f"{tokens.start}:{tokens.stop}"
    return selection.name
