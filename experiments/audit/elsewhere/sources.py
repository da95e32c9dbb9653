"""Which arms are answered elsewhere, and their answers, held against the loaded model."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from tqdm import tqdm

import tracekit as tk
from experiments.audit.elsewhere import agreement
from experiments.audit.elsewhere.keeping import asked
from experiments.audit.elsewhere.serving import Server
from experiments.audit.settings.adapters import CLEAN, by_arm
from experiments.audit.settings.groups import Answers, Settings
from tracekit.errors import InputError
from tracekit.passes.generating.decoding import end_ids
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts.prompts import Prompt
from tracekit.transcripts.reading.answer_files import read_answers

KEY = "SERVER_API_KEY"
RETOKENISED = 8  # a text may be more tokens here than it was said in


def check_files(settings: Answers) -> None:
    """Read the files of answers, before any model is loaded.

    Errors: as `read_answers`.
    """
    for path in by_arm(settings.given).values():
        read_answers(Path(path))


def served_names(settings: Answers) -> dict[str, str]:
    """What the server calls the model of each arm that it answers."""
    clean = {CLEAN: settings.served_model} if settings.served_model else {}
    return {**clean, **by_arm(settings.served_adapter)}


def is_elsewhere(arm: str, settings: Answers) -> bool:
    """Whether an arm's answers come from a file or a server."""
    return arm in by_arm(settings.given) or (
        bool(settings.server) and arm in served_names(settings)
    )


def answers(
    arm: str,
    settings: Settings,
    model: Any,
    prompts: Sequence[Prompt],
    kept: Path,
    samples: int,
    temperature: float,
) -> xr.Dataset:
    """The answers of an arm from its file, or from the server, which are kept in `kept`.

    Ids are read here; the provenance says how many were the engine's own, and how a sample stands
    to the loaded weights.

    Errors: `ValueError` as `tk.encode` of a file, as `Server.complete`, for another number of
    answers a prompt than `samples`, longer ones than the settings have, and answers of which a
    sample is not the loaded model's.
    """
    told = settings.answers
    path = by_arm(told.given).get(arm)
    what = f"The answers of the arm {arm!r} ({path or served_names(told)[arm]!r})"
    if path is None:
        server = server_of(told, arm, model, temperature, told.max_new_tokens)
        rows = tk.encode(model, prompts)
        path = str(asked(server, rows, kept, samples, settings.null.seed))
    runs = tk.encode(model, prompts, responses=Path(path))
    _refuse_count(runs, len(prompts), samples, told.max_new_tokens, what)
    if temperature:
        agreement.refuse_repeated(runs, what)
    return held_against(model, settings.arms[arm].adapter, runs, temperature, what)


def held_against(
    model: Any, adapter: str | None, runs: xr.Dataset, temperature: float, what: str
) -> xr.Dataset:
    """The answers, with what a sample of them says of the loaded weights in their provenance."""
    with tk.adapter(model, adapter):
        told = agreement.checked(model, runs, temperature, 0, what)
    if adapter is not None:
        agreement.refuse_exchanged(model, adapter, runs, what)
    said = "" if temperature else f"{told['first_tokens']:.0%} of first tokens are the model's, "
    tqdm.write(
        f"{what}: on {told['rows']} of them {said}{told['nats']:+.2f} nats a token against its own",
        file=sys.stderr,
    )
    text = read(runs)["text"]
    return stamp(runs, {**read(runs), "text": {**text, "checked": dict(told)}})


def server_of(settings: Answers, arm: str, model: Any, temperature: float, tokens: int) -> Server:
    """The server of an arm, with its key from $SERVER_API_KEY.

    Errors: `ValueError` in a run of several processes, each of which would ask.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "--server was given in a run of several processes, each of which would ask. Do "
            "respond in one process, and the other phases in several."
        )
    return Server(
        at=settings.server,
        name=served_names(settings)[arm],
        tokenizer=model.tokenizer,
        ends=end_ids(model),
        tokens=tokens,
        temperature=temperature,
        key=os.environ.get(KEY, ""),
    )


def _refuse_count(runs: xr.Dataset, prompts: int, samples: int, tokens: int, what: str) -> None:
    count = runs.sizes["prompt"] // prompts
    longest = int(runs["token"].max()) + 1
    wrong: Mapping[str, bool] = {
        f"{count} to each prompt, and --samples {samples} was asked for": count != samples,
        f"up to {longest} tokens long, and --max-new-tokens {tokens} was asked for": longest
        > tokens + RETOKENISED,
    }
    for words, is_wrong in wrong.items():
        if is_wrong:
            raise InputError(f"{what} are {words}. Give what the file has, or ask for as many.")
