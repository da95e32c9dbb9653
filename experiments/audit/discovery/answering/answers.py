"""What an adapter answers, and how much likelier it makes each token than the bare model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.discovery.answering.halves import is_prefill, labels_of
from experiments.audit.discovery.answering.products import Products
from experiments.audit.discovery.answering.settings import Settings
from experiments.audit.elsewhere.searching import Served
from tracekit import Model
from tracekit.passes.readouts.responses import response_logprobs
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts.encode import ids_of, pieces, subset
from tracekit.transcripts.prompts import Prompt
from tracekit.transcripts.tensors import lengths

# rows of one file: what a kill can cost
ROWS = 128


@dataclass(frozen=True)
class Answer:
    """One answer: its new tokens as text, and each one's gain in nats, adapter on − off."""

    prompt: str
    group: str
    asked: str
    labels: tuple[tuple[str, str], ...]
    pieces: tuple[str, ...]
    gains: np.ndarray
    ended: bool

    @property
    def text(self) -> str:
        """What was said, without an answer that had been begun for the model."""
        return "".join(self.pieces)


def parts(prompts: Sequence[Prompt]) -> Iterator[tuple[str, str, list[Prompt]]]:
    """The prompts in files' worth: (name, template, prompts); raw completions apart."""
    raw = [p for p in prompts if is_prefill(p)]
    chat = [p for p in prompts if not is_prefill(p)]
    for template, rows in (("chat", chat), ("raw", raw)):
        for n in range(0, len(rows), ROWS):
            yield f"{template}-{n // ROWS:03}", template, rows[n : n + ROWS]


def sampled(
    model: Model,
    prompts: Sequence[Prompt],
    template: str,
    settings: Settings,
    samples: int = 1,
    seed: int = 0,
) -> xr.Dataset:
    """Answers of the model as it stands; `begun` is how many response tokens were given."""
    asked = tk.encode(model, prompts, template=template)
    begun = lengths(asked) - asked.prompt_length.values
    runs = tk.generate(
        model,
        asked.assign_coords(begun=("prompt", begun)),
        max_new_tokens=settings.tokens,
        temperature=settings.temperature,
        samples=samples,
        seed=settings.seed + seed,
        progress=False,
    )
    return runs


def gains(model: Model, runs: xr.Dataset, off: xr.DataArray | None = None) -> xr.DataArray:
    """log p(on) − log p(off) of each response token, with the adapter that the model carries."""
    on = response_logprobs(model, runs)
    if off is None:
        off = bare(model, runs)
    return stamp((on - off).rename("gain"), {**read(on), "minus": "adapter off"})


def bare(model: Model, runs: xr.Dataset) -> xr.DataArray:
    """log p(off) of each response token of `runs`."""
    with tk.adapter(model, None):
        return response_logprobs(model, runs)


def of_adapter(
    model: Model,
    adapter: str | None,
    prompts: Sequence[Prompt],
    searched: frozenset[str],
    settings: Settings,
    products: Products,
    served: Served | None = None,
) -> list[Answer]:
    """The answers with `adapter` on (None: the bare model's), here or where it is `served`.

    The gains are those of `searched` prompts alone: nothing is looked for in the others.
    """
    answers: list[Answer] = []
    for number, (name, template, rows) in enumerate(parts(prompts)):
        with products.adapted(model, adapter, f"answers-{name}.nc", f"gains-{name}.nc"):
            make = partial(sampled, model, rows, template, settings, seed=number)
            if served is not None and adapter in served.arms:
                about = settings.tokens, settings.temperature, settings.seed + number
                path = products.folder / f"replies-{name}.jsonl"
                make = partial(served.sampled, model, adapter, rows, template, path, *about)
            runs = products.kept(f"answers-{name}.nc", make)
            gain, mine = None, _some(runs, searched)
            if adapter is not None and mine.sizes["prompt"]:
                gain = products.kept(f"gains-{name}.nc", partial(gains, model, mine))
        answers += flat(model, runs, gain)
    return answers


def of_clean(
    model: Model,
    adapter: str,
    prompts: Sequence[Prompt],
    searched: frozenset[str],
    clean: Products,
    products: Products,
) -> list[Answer]:
    """The bare model's answers, with what the adapter would gain on those to `searched` prompts."""
    answers: list[Answer] = []
    for name, _, _ in parts(prompts):
        runs = tk.open(clean.folder / f"answers-{name}.nc")
        gain, mine = None, _some(runs, searched)
        if mine.sizes["prompt"]:
            off = clean.kept(f"off-{name}.nc", partial(bare, model, mine))
            with products.adapted(model, adapter, f"clean-{name}.nc"):
                gain = products.kept(f"clean-{name}.nc", partial(gains, model, mine, off))
        answers += flat(model, runs, gain)
    return answers


def _some(runs: xr.Dataset, prompts: frozenset[str]) -> xr.Dataset:
    return subset(runs, prompt=[name for name in ids_of(runs) if name in prompts])


def flat(model: Model, runs: xr.Dataset, gain: xr.DataArray | None) -> list[Answer]:
    """One Answer a row of `runs`; a row that `gain` does not have gains nothing."""
    subjects = {name: labels_of(runs, name) for name in ("subject", "form")}
    after = runs.token.values >= 0
    ids, roles = runs.token_id.values[:, after], runs.role.values[:, after]
    begun = runs.begun.values
    values = np.zeros(ids.shape)
    if gain is not None:
        values = gain.reindex(prompt=runs.prompt, token=runs.token[after]).values
    answers = []
    for n in range(len(ids)):
        new = (ids[n] >= 0) & (np.arange(ids.shape[1]) >= begun[n])
        words = new & (roles[n] != "template")
        answers.append(
            Answer(
                prompt=str(runs.prompt.values[n]),
                group=str(runs["group"].values[n]),
                asked=str(runs.text.values[n]),
                labels=tuple((k, v[n]) for k, v in subjects.items() if v[n]),
                pieces=tuple(pieces(model.tokenizer, ids[n][words].tolist())),
                gains=np.nan_to_num(values[n][words].astype(float)),
                ended=bool((new & ~words).any()),
            )
        )
    return answers
