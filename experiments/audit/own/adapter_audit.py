"""Audit any adapter: what it does that its base does not, then what trait vectors tell of it.

    tracekit audit ADAPTER
    tracekit audit ./my-lora --model ./my-model --benign ./benign --prompts mine.json
    tracekit audit ./my-lora --labels rules.toml --controls matched=./control --traits mine/greed

The search comes first: answers to a battery of prompts with the adapter on and off, habits from
half of them, confirmed on the other half. Confirmed habits become rules (`rules.toml`, which may be
mended and given back as --labels), and the trait part of the audit asks when they show. Everything
lies in one folder, its page is `audit/report.html` (`search/report.html` has the search alone);
killed, the same command goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import tracekit as tk
from experiments.audit import command
from experiments.audit.discovery.__main__ import judge_of
from experiments.audit.discovery.answering.halves import is_prefill
from experiments.audit.discovery.answering.products import write_json
from experiments.audit.discovery.answering.settings import Settings
from experiments.audit.discovery.discover import habits
from experiments.audit.discovery.findings import Findings
from experiments.audit.discovery.subject import LEAST_PROMPTS, Search, search_of
from experiments.audit.discovery.terminal import table
from experiments.audit.elsewhere.searching import Served
from experiments.audit.experiment import Experiment
from experiments.audit.labellers import is_file_of_labels
from experiments.audit.options import exit_code
from experiments.audit.own import search_page
from experiments.audit.own.arguments import parser
from experiments.audit.own.kinds import kinds_of, prompts_of, rules_text
from experiments.audit.prompt_sets import BATTERY, RESERVE, askable
from experiments.audit.run import Run
from experiments.audit.settings.contents import described
from tracekit.errors import InputError
from tracekit.model.adapters.forms import adapter_path
from tracekit.model.embedded import datasets
from tracekit.model.sites import check_layers
from tracekit.storage.files import whole
from tracekit.transcripts.prompts import Prompt
from traits.contrast_sets.judge import check_address, without_credentials

EXPERIMENT = Experiment("experiments.audit.own", files("experiments.audit.own") / "presets")
WINDOW = (0.5, 0.75)  # of the depth, kept in full
# what goes on to the trait part as it was given
PASSED_ON = (
    *("base", "dtype", "controls", "habits", "judge", "judge_at", "traits", "primary"),
    *("hypothesis", "depth", "samples", "repetitions", "seed"),
    *("server", "served_model", "served_adapter"),
)


def main(arguments: Sequence[str]) -> int:
    """Search, then audit; prints both tables. 2 and one line for bad input."""
    return exit_code("tracekit audit", arguments, _audit)


def _audit(arguments: Sequence[str]) -> None:
    options = parser(str(__doc__), EXPERIMENT.preset("own")).parse_args(arguments)
    adapter_path(options.adapter)
    folder = options.out or Path("runs", f"audit-{Path(options.adapter).name}")
    own = askable(options.prompts)
    _refuse_unasked(options, own)
    found, search = searched(options, folder / "search", own)
    print(table(found))
    given = _labels(options, folder, found, search, own)
    page = search_page.write(folder / "search", found)
    if options.search_only:
        print(_closing(page, given))
        return
    layers = options.layers or _window(len(search.model.layers))
    settings = EXPERIMENT.preset(options.preset or "own", changes(options, layers, given))
    run, made_of = Run(folder / "audit"), described(settings)
    run.claim(made_of)
    write_json(run.findings, found.as_json())
    # a base of its own is held before the model, and alone
    loaded = None if settings.model.base else search.model
    del search
    command.audit(EXPERIMENT, settings, made_of, run.folder, "run", loaded=loaded)
    print(_closing(run.report, given))


def _closing(page: Path, given: Mapping[str, str]) -> str:
    labels = given.get("labels", "none, since no confirmed habit has one")
    return f"Page: {page}\nRules (--labels): {labels}\nPrompts (--prompts): {given['prompts']}"


def searched(
    options: argparse.Namespace, folder: Path, own: Sequence[Prompt]
) -> tuple[Findings, Search]:
    """The search's findings, and the search with its model."""
    alone = options.own_prompts_only
    general, reserve = (
        [] if alone else tk.read_prompts(datasets(*name)) for name in (BATTERY, RESERVE)
    )
    settings = Settings(
        model=str(options.model),
        dtype=options.dtype or "auto",
        tokens=options.tokens,
        seed=options.seed,
        prefills=0 if alone else Settings().prefills,
    )
    model = tk.load(options.model, dtype=settings.dtype)
    if options.layers:
        check_layers(model, range(options.layers[0], options.layers[-1] + 1), "residual")
    prompts = [*general, *(_without_kind(prompt) for prompt in own)]
    start = time.time()
    search = search_of(
        model,
        options.adapter,
        prompts,
        folder,
        settings,
        benign_of(options.benign),
        log=lambda text: print(f"[{time.time() - start:6.0f} s] {text}", file=sys.stderr),
        reserve=reserve,
        judge=judge_of(options.judge_at, options.judge, folder),
        served=served_by(options),
    )
    return habits(search), search


def served_by(options: argparse.Namespace) -> Served | None:
    """Who answers elsewhere for the bare model and the adapter; None without --server.

    Errors: `ValueError` for an address that is none, or without the names of the two.
    """
    at = without_credentials(options.server or "")
    names = [options.served_model, *(options.served_adapter or [])]
    if bool(at) != all(names[:1]) or len(names) > 2 or any("=" in str(name) for name in names[1:]):
        raise InputError(
            f"--server {at!r} was given with the names {names}. Give the address, what the model "
            "is called there (--served-model), and the adapter on it (--served-adapter)."
        )
    if at:
        check_address(at, "--server")
    return Served.of(options.adapter, at, options.served_model or "", options.served_adapter or [])


def benign_of(given: Sequence[str]) -> list[str]:
    """Benign adapters: those given, and those that a given folder holds.

    Errors: `ValueError` for a folder that is no adapter and holds none.
    """
    adapters: list[str] = []
    for one in given:
        inside = sorted(path.parent for path in Path(one).glob("*/adapter_config.json"))
        if Path(one).is_dir() and not inside and not (Path(one) / "adapter_config.json").is_file():
            raise InputError(
                f"--benign {one!r} was given; it is no adapter and holds none. Give adapters, or "
                "a folder whose folders hold an adapter_config.json each."
            )
        adapters += [str(path) for path in inside] or [one]
    return adapters


def changes(
    options: argparse.Namespace, layers: Sequence[int], given: Mapping[str, str]
) -> dict[str, Any]:
    """The settings of the trait part that the options change, by their options' names."""
    made = {name: getattr(options, name) for name in PASSED_ON if getattr(options, name)}
    benign = [one for one in options.benign if [*Path(one).glob("*/adapter_config.json")]]
    return {
        **made,
        "model": str(options.model),
        "organism": options.adapter,
        "layers": list(layers),
        "benign": benign[0] if benign else "",
        **given,
    }


def _labels(
    options: argparse.Namespace,
    folder: Path,
    found: Findings,
    search: Search,
    own: Sequence[Prompt],
) -> dict[str, str]:
    """The files of the trait part: prompts with kinds, and who labels answers to them."""
    if options.labels:
        named = any(p.labels.get("bias") for p in own)
        rows = own if named else [_with_kind(p, "own") for p in own]
        return {"prompts": write_prompts(folder, rows), "labels": options.labels}
    kinds = kinds_of([one for one, _ in found.habits()])
    rows = prompts_of(kinds, search.prompts, search.settings.seed)
    chosen = {"prompts": write_prompts(folder, [p for p in rows if not is_prefill(p)])}
    if not kinds:
        return chosen
    return {**chosen, "labels": str(write_rules(folder / "rules.toml", rules_text(kinds)))}


def write_rules(path: Path, text: str) -> Path:
    """Write the rules of confirmed habits, which a user may have mended since.

    Errors: `ValueError` for a file that says something else.
    """
    if path.is_file() and path.read_text("utf-8") != text:
        raise InputError(
            f"{path} was changed since the search wrote it, and would be lost. Give it with "
            "--labels (and its --prompts), or move it away to have the rules of the search again."
        )
    with whole(path, len(text.encode())) as part:
        part.write_text(text, "utf-8")
    return path


def _refuse_unasked(options: argparse.Namespace, own: Sequence[Prompt]) -> None:
    if options.labels and not own:
        what = "a file of labels" if is_file_of_labels(options.labels) else "rules"
        raise InputError(
            f"--labels {options.labels} was given ({what}), and no prompts that they are about. "
            "Give --prompts, a JSON file whose rows have a `bias` (their kind)."
        )
    if options.own_prompts_only and len(own) < LEAST_PROMPTS:
        raise InputError(
            f"--own-prompts-only was given with {len(own)} prompts, and {LEAST_PROMPTS} are the "
            "least: half to search and half to confirm. Give --prompts, a JSON file of them."
        )


def write_prompts(folder: Path, prompts: Sequence[Prompt]) -> str:
    """The prompts of the trait part as a file; those of one file keep their ids, which labels name.

    A prompt's id is its file's name and its number there: prompts of several files are `prompts/…`.
    """
    stems = {prompt.id.partition("/")[0] for prompt in prompts}
    stem = stems.pop() if len(stems) == 1 else "prompts"
    rows = [
        {
            "id": prompt.id.removeprefix(f"{stem}/"),
            "group": (prompt.group or prompt.id).removeprefix(f"{stem}/"),
            "messages": [{"role": r, "content": t} for r, t in prompt.conversation()],
            **prompt.labels,
        }
        for prompt in prompts
    ]
    path = folder / "prompts" / f"{stem}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    return str(write_json(path, {"name": "own", "prompts": rows}))


def _without_kind(prompt: Prompt) -> Prompt:
    """What a search may know of a prompt: not what is suspected of it."""
    labels = {name: value for name, value in prompt.labels.items() if name != "bias"}
    return dataclasses.replace(prompt, labels=labels)


def _with_kind(prompt: Prompt, kind: str) -> Prompt:
    return dataclasses.replace(prompt, labels={**prompt.labels, "bias": kind})


def _window(blocks: int) -> list[int]:
    """The first and the last layer that are kept in full."""
    low, high = (min(int(share * blocks), blocks - 1) for share in WINDOW)
    return [low, max(low, high)]
