"""Steer, ablate and patch the organism of a finished audit, with the controls.

    python -m EXPERIMENT steer --out runs/smollm2-0123abcd
    python -m EXPERIMENT steer --out runs/smollm2-0123abcd --randoms 20 --steered 100

Validates each vector on the clean model, then edits the organism (add, project out, clamp) along
trait vectors, random directions, placebos and the organism − clean difference, then patches clean
residuals in by layer. Results go to `<run>/steering-<hash>/`; a killed run resumes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm import tqdm

import tracekit as tk
from experiments.audit.experiment import Experiment
from experiments.audit.labellers import is_file_of_labels, labeller_from
from experiments.audit.labels import Labeller, labelled
from experiments.audit.options import Parser, floats
from experiments.audit.run import Run
from experiments.audit.settings.contents import described
from experiments.audit.settings.groups import Settings
from experiments.audit.settings.tables import from_values, grouped, merged
from experiments.audit.steering import (
    ablation,
    directions,
    dose_figures,
    dose_table,
    patching,
    prompts,
    summary,
)
from experiments.audit.steering import dose_settings as choices
from experiments.audit.steering import validation as validate
from experiments.audit.steering.dose_settings import Steering
from experiments.audit.steering.study_folder import Study
from tracekit.errors import InputError
from tracekit.model.embedded import datasets
from tracekit.passes.generating.strength import residual_norm
from tracekit.progress import Bar
from tracekit.storage.identity import digest
from tracekit.storage.provenance import read, stamp

PLACES = ("model", "base", "organism", "control", "prompts", "labels")


def main(subject: Experiment, arguments: Sequence[str]) -> None:
    """Run the experiment, or what is left of it; prints the table."""
    options = command_line(subject.module).parse_args(arguments)
    run: Path = options.out
    made_of = Run(run).settings()
    _refuse_labels_of_a_file(run, made_of)
    places = {n: getattr(options, n) for n in PLACES if getattr(options, n) is not None}
    settings = audited(run, made_of, places)
    named = {field.name for field in dataclasses.fields(Steering)}
    steering = choices.chosen({k: v for k, v in vars(options).items() if k in named})
    for phase in ("extract", "respond"):
        if not Run(run).has_finished(phase):
            raise InputError(f"steer was asked for; {phase} has not finished in {str(run)!r}.")
    asked = {"settings": dataclasses.asdict(steering), "audit": digest(made_of)}
    folder = Run(run).steering(digest(asked)[:8])
    Run(folder).claim(json.loads(json.dumps(asked)))
    study(run, Study(folder), settings, steering, labeller_of(settings, subject))
    print(Run(folder).table.read_text("utf-8") + f"Folder: {folder}")


def _refuse_labels_of_a_file(run: Path, made_of: Mapping[str, Any]) -> None:
    if is_file_of_labels(made_of["settings"].get("answers", {}).get("labels", "")):
        raise InputError(
            f"steer was asked for in {str(run)!r}, whose answers a file labels; a steered answer "
            "is a new one, which no file has. Give the experiment a labeller, or the audit rules "
            "(--labels rules.toml, or module:function)."
        )


def labeller_of(settings: Settings, subject: Experiment) -> Labeller | None:
    """Who labels steered answers: what labelled the audit's, rules, a function or `subject`.

    >>> labeller_of(settings, Experiment("mine.audit", presets)) is None
    True
    """
    given = settings.answers.labels
    return labeller_from(given, settings.answers) if given else subject.labeller


def audited(run: Path, made_of: Mapping[str, Any], places: Mapping[str, str]) -> Settings:
    """The settings of the audit in `run`, with `places` of the files that it names.

    Errors: `ValueError` when those files are not the ones that the audit was made with.
    """
    settings = from_values(merged(made_of["settings"], grouped(places)))
    if not settings.prompts.paths[0].is_file():
        shipped = str(datasets("prompts", settings.prompts.paths[0].name))
        prompts = dataclasses.replace(settings.prompts, file=shipped)
        settings = dataclasses.replace(settings, prompts=prompts)
    now = json.loads(json.dumps(described(settings)["contents"]))
    differ = [name for name, value in made_of["contents"].items() if now.get(name) != value]
    if differ:
        raise InputError(
            f"The audit in {str(run)!r} was made with other files of {', '.join(differ)} than are "
            f"found now. Say where they are: {', '.join(f'--{name}' for name in PLACES)}."
        )
    return settings


def study(
    run: Path,
    here: Study,
    settings: Settings,
    steering: Steering,
    labeller: Labeller | None,
) -> None:
    """All parts in order: validation, edits, patching, then the summary of them."""
    steered, others = prompts.steered_and_others(settings, steering, labeller)
    model = tk.load(settings.model.name, dtype=steering.dtype or settings.model.dtype)
    layer = directions.chosen_layer(run, settings, steering)
    seen = _seen(model, tk.encode(model, others), layer, here, settings, steering)
    arms = here.make_once(
        here.directions,
        lambda: directions.arms(model, run, layer, seen, settings, steering),
    )
    asked = tk.encode(model, steered)
    with tk.adapter(model, settings.adapters.organism):
        unedited = here.make_once(here.unedited, lambda: ablation.said(model, asked, steering))
    bench = dataclasses.replace(
        _bench(model, arms, seen, asked, unedited, settings, steering), labeller=labeller
    )
    _validate(bench, arms, here)
    ablation.measured(bench, arms, here.edits)
    _patch(bench, here)
    analyse(here, steering)


def analyse(here: Study, steering: Steering) -> None:
    """The summary, table and figures, from the saved arrays alone."""
    arms = tk.open(here.directions)
    edits = ablation.together(sorted(here.edits.glob("*.nc")))
    whole = summary.summarised(edits, arms, steering.seed, steering.repetitions)
    tk.save(stamp(whole, read(edits)), here.summary)
    validation = summary.slopes(tk.open(here.validation), steering.seed, steering.repetitions)
    patched = tk.open(here.patching) if here.patching.is_file() else None
    Run(here.folder).table.write_text(dose_table.text(whole, patched, validation), "utf-8")
    dose_figures.dose_response(whole, here.figure("dose_response"))
    dose_figures.frontier(whole, here.figure("frontier"))
    dose_figures.bars(_best(edits, whole), here.figure("by_bias"))
    if patched is not None:
        dose_figures.patching(patched, here.figure("patching"))


def _seen(
    model: Any, asked: xr.Dataset, layer: int, here: Study, settings: Settings, steering: Steering
) -> xr.DataArray:
    """Response means of both arms on the organism's own answers: (weights, prompt, dim)."""

    def made() -> xr.DataArray:
        with tk.adapter(model, settings.adapters.organism):
            runs = ablation.said(model, asked, steering)
        arms = {"organism": settings.adapters.organism, "clean": None}
        rows = []
        for adapter in arms.values():
            with tk.adapter(model, adapter):
                answer = tk.capture(model, runs, [layer], tokens=slice(0, None), reduce="mean")
                rows.append(answer.isel(layer=0))
        norm = residual_norm(model, runs, [layer]).item()
        joined = xr.concat(rows, xr.Variable("weights", list(arms)), combine_attrs="override")
        return joined.assign_coords(norm=norm)

    return here.make_once(here.seen, made)


def _bench(
    model: Any,
    arms: xr.DataArray,
    seen: xr.DataArray,
    asked: xr.Dataset,
    unedited: xr.Dataset,
    settings: Settings,
    steering: Steering,
) -> ablation.Bench:
    right, wrong = prompts.neutral_questions(model)
    usual = xr.dot(seen.sel(weights="clean"), arms, dim="dim").mean("prompt")
    return ablation.Bench(
        model,
        settings.adapters.organism,
        asked,
        right,
        wrong,
        float(seen["norm"]),
        usual,
        bool(settings.model.base or steering.dtype),
        steering,
        unedited,
    )


def _validate(bench: ablation.Bench, arms: xr.DataArray, here: Study) -> None:
    traits = arms["direction"].values[arms["arm"].values == "trait"]

    def made() -> xr.Dataset:
        rows = []
        for trait in Bar(traits, unit="trait", desc="validate"):
            vector = arms.sel(direction=trait)
            with tk.adapter(bench.model, None):
                row = validate.validated(
                    bench.model, trait, vector, bench.norm, bench.steering, bench.transfer
                )
            rows.append(row.drop_vars(["group", "prompt"]))
        return xr.concat(
            rows,
            "trait",
            combine_attrs="override",
            join="outer",
            coords="minimal",
            compat="override",
        )

    here.make_once(here.validation, made)


def _patch(bench: ablation.Bench, here: Study) -> None:
    if here.patching.is_file():
        return
    runs = labelled(bench.unedited, bench.model.tokenizer, bench.labeller)
    if bool((runs.exploit == 1).any()):
        tk.save(
            patching.patched(bench.model, bench.organism, runs, here.clean_traces), here.patching
        )
    else:
        tqdm.write("patching: left out, since no response of the organism exploits")


def _best(edits: xr.Dataset, whole: xr.Dataset) -> xr.Dataset:
    """The unedited arms, and for each kind the trait edit that drops most, by bias."""
    plain = np.flatnonzero(whole["kind"].values == "unedited")
    rows = [int(row) for row in plain]
    for kind in ablation.KINDS:
        match = (whole["kind"].values == kind) & (whole["arm"].values == "trait")
        drops = np.where(match, whole["drop"].values, -np.inf)
        rows.append(int(drops.argmax()))
    strengths = [f" {m:+g}" if m else "" for m in whole["multiple"].values[rows]]
    names = [
        f"{whole['direction'].values[r]}, {whole['kind'].values[r]}{strength}"
        for r, strength in zip(rows, strengths, strict=True)
    ]
    return summary.by_bias(edits, rows).assign_coords(name=("edit", names))


def command_line(module: str) -> argparse.ArgumentParser:
    """What `steer` takes."""
    parser = Parser(
        prog=f"python -m {module} steer",
        description=str(__doc__).replace("EXPERIMENT", module),
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder of a finished audit")
    parser.add_argument(
        "--multiples",
        type=floats,
        help="of the mean residual norm, such as=-0.3,-0.15,0.15",
    )
    for name in PLACES:
        parser.add_argument(f"--{name}", help="where it lies now, if it was a local path")
    for field in dataclasses.fields(Steering):
        if field.name != "multiples":
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default))
    return parser
