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

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import tracekit as tk
from experiments.audit import command
from experiments.audit.discovery.__main__ import judge_of
from experiments.audit.discovery.answering.products import write_json
from experiments.audit.discovery.answering.settings import Settings
from experiments.audit.discovery.discover import habits
from experiments.audit.discovery.findings import Findings
from experiments.audit.discovery.subject import Search, search_of
from experiments.audit.discovery.terminal import table
from experiments.audit.elsewhere.searching import Served
from experiments.audit.inputs import checked
from experiments.audit.options import exit_code
from experiments.audit.own import search_page, trait_part
from experiments.audit.own.arguments import parser
from experiments.audit.own.handover import own_files, refuse_mended, rules_file, searched_files
from experiments.audit.own.trait_part import EXPERIMENT, Asked
from experiments.audit.prompt_sets import BATTERY, RESERVE, joined
from experiments.audit.run import Run
from experiments.audit.settings.adapters import last_name
from experiments.audit.settings.contents import described
from experiments.audit.settings.groups import Answers
from tracekit.errors import InputError
from tracekit.model.embedded import datasets
from tracekit.model.sites import check_layers
from tracekit.transcripts.prompts import Prompt

WINDOW = (0.5, 0.75)  # of the depth, kept in full


def main(arguments: Sequence[str]) -> int:
    """Search, then audit; prints both tables. 2 and one line for bad input."""
    return exit_code("tracekit audit", arguments, _audit)


def _audit(arguments: Sequence[str]) -> None:
    options = parser(str(__doc__), EXPERIMENT.preset("own")).parse_args(arguments)
    asked = trait_part.asked(options)
    folder = options.out or Path("runs", f"audit-{last_name(options.adapter)}")
    model = _loaded(asked)
    layers = asked.window or _window(len(model.layers))
    given, run = _before(asked, layers, folder), Run(folder / "audit")
    found, search = searched(asked, model, folder / "search")
    print(table(found))
    page = search_page.write(folder / "search", found)
    given = given or searched_files(folder, found, search)
    if options.search_only:
        print(_closing(page, given))
        return
    settings = asked.settled(layers, given)
    made_of = described(settings)
    run.claim(made_of)
    write_json(run.findings, found.as_json())
    # a base of its own is held before the model, and alone
    loaded = None if settings.model.base else model
    del search, model
    command.audit(EXPERIMENT, settings, made_of, run.folder, "run", loaded=loaded)
    print(_closing(run.report, given))


def _closing(page: Path, given: Mapping[str, str]) -> str:
    labels = given.get("labels", "none, since no confirmed habit has one")
    return f"Page: {page}\nRules (--labels): {labels}\nPrompts (--prompts): {given['prompts']}"


def _loaded(asked: Asked) -> tk.Model:
    """The model, once its layers and the adapters of the trait part are known to fit it."""
    told = asked.settings.model
    model = tk.load(told.name, dtype=told.dtype, revision=told.revision or None)
    if asked.window:
        check_layers(model, range(asked.window[0], asked.window[-1] + 1), "residual")
    for arm in reversed(asked.settings.adapters.arms):
        if arm.adapter:
            with tk.adapter(model, arm.adapter):
                pass
    return model


def _before(asked: Asked, layers: Sequence[int], folder: Path) -> dict[str, str]:
    """What a folder says against this audit, told before the search; the user's own files."""
    own = bool(asked.labels)
    if not own:
        refuse_mended(rules_file(folder))
    given = own_files(folder, asked.settings.answers, asked.prompts) if own else {}
    settings = asked.settled(layers, given)
    if own:
        checked(settings, EXPERIMENT)
    if not asked.options.search_only:
        trait_part.refuse_other(Run(folder / "audit"), described(settings), searched=not own)
        trait_part.refuse_other_benign(Run(folder / "audit"), asked.benign)
    return given


def searched(asked: Asked, model: tk.Model, folder: Path) -> tuple[Findings, Search]:
    """The search's findings, and the search with its model."""
    options, answers = asked.options, asked.settings.answers
    alone = options.own_prompts_only
    general, reserve = (
        [] if alone else tk.read_prompts(datasets(*name)) for name in (BATTERY, RESERVE)
    )
    settings = Settings(
        model=asked.settings.model.name,
        dtype=asked.settings.model.dtype,
        tokens=options.tokens,
        seed=asked.settings.null.seed,
        prefills=0 if alone else Settings().prefills,
    )
    start = time.time()
    prompts = joined(general, [_without_kind(prompt) for prompt in asked.prompts])
    if again := len(general) + len(asked.prompts) - len(prompts):
        print(f"{again} prompts say what another one says: each is asked once.", file=sys.stderr)
    search = search_of(
        model,
        options.adapter,
        prompts,
        folder,
        settings,
        asked.benign,
        log=lambda text: print(f"[{time.time() - start:6.0f} s] {text}", file=sys.stderr),
        reserve=reserve,
        judge=judge_of(answers.judge_at, answers.judge, folder),
        served=served_by(options.adapter, answers),
    )
    return habits(search), search


def served_by(adapter: str, answers: Answers) -> Served | None:
    """Who answers elsewhere for the bare model and the adapter; None without --server.

    Errors: `ValueError` for an address that is none, or without the names of the two.
    """
    at, names = answers.server, [answers.served_model, *answers.served_adapter]
    if bool(at) != all(names[:1]) or len(names) > 2 or any("=" in str(name) for name in names[1:]):
        raise InputError(
            f"--server {at!r} was given with the names {names}. Give the address, what the model "
            "is called there (--served-model), and the adapter on it (--served-adapter)."
        )
    return Served.of(adapter, at, answers.served_model, answers.served_adapter)


def _without_kind(prompt: Prompt) -> Prompt:
    """What a search may know of a prompt: not what is suspected of it."""
    labels = {name: value for name, value in prompt.labels.items() if name != "bias"}
    return dataclasses.replace(prompt, labels=labels)


def _window(blocks: int) -> list[int]:
    """The first and the last layer that are kept in full."""
    low, high = (min(int(share * blocks), blocks - 1) for share in WINDOW)
    return [low, max(low, high)]
