"""A run's folder: every entry by name, what it holds, and which phases have finished in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

import tracekit as tk
from experiments.audit.settings import former
from tracekit.errors import InputError
from tracekit.storage.files import whole
from tracekit.storage.identity import digest

SETTINGS, FINISHED, MEASURED = "settings.json", "finished.json", "measured"


@dataclass(frozen=True)
class Run:
    """The folder of one run; an arm is `weights/text`, such as "organism/clean".

    >>> Run(Path("runs/x")).projections("clean/organism").as_posix()
    'runs/x/projections/clean.organism.nc'
    """

    folder: Path

    @property
    def log(self) -> Path:
        """What each phase did when, and with how much memory: a JSON object a line."""
        return self.folder / "log.jsonl"

    @property
    def vectors(self) -> Path:
        """Trait vectors: (trait, extraction, layer, dim)."""
        return self.folder / "vectors.nc"

    @property
    def evaluation(self) -> Path:
        """How each vector did on pairs that it has not seen."""
        return self.folder / "evaluation.nc"

    @property
    def evaluation_sheet(self) -> Path:
        """The same, a row a trait."""
        return self.folder / "evaluation.csv"

    @property
    def evaluation_text(self) -> Path:
        """The same in words, a paragraph a trait."""
        return self.folder / "evaluation.txt"

    @property
    def placebos(self) -> Path:
        """Vectors of placebo sets: (trait, extraction, window, layer, dim)."""
        return self.folder / "placebos.nc"

    @property
    def stories(self) -> Path:
        """The folder of contrast traces, a file a set (`story`)."""
        return self.folder / "contrast"

    @property
    def all_chats(self) -> Path:
        """The folder of chats under instruction, a file a trait (`chats`)."""
        return self.folder / "chats"

    @property
    def logprobs(self) -> Path:
        """Log-probabilities of the organism's answers: (weights, prompt, token)."""
        return self.folder / "logprobs.nc"

    @property
    def means(self) -> Path:
        """Mean unit residuals of the organism's answers: (weights, prompt, layer, dim)."""
        return self.folder / "means.nc"

    @property
    def span_contrasts(self) -> Path:
        """The same at its spans minus at their matches: (weights, match, prompt, layer, dim)."""
        return self.folder / "span_contrasts.nc"

    def measured(self, what: str, arm: str) -> Path:
        """What else one forward of an arm gave: `logprob`, unit `means`, those at `spans`."""
        return self.folder / MEASURED / what / f"{_flat_name(arm)}.nc"

    def own_means(self, name: str) -> Path:
        """Mean unit residuals of an arm's own answers to held-out prompts: (prompt, layer, dim)."""
        return self.folder / "own_means" / f"{name}.nc"

    @property
    def questions(self) -> Path:
        """How much likelier yes is than no when it is asked: (way, prompt)."""
        return self.folder / "questions.nc"

    @property
    def neutral_means(self) -> Path:
        """The same of the clean answers to neutral prompts: (weights, prompt, layer, dim)."""
        return self.folder / "neutral_means.nc"

    @property
    def blind(self) -> Path:
        """Response means on neutral prompts: (adapter, prompt, layer, trait)."""
        return self.folder / "blind.nc"

    @property
    def analysis(self) -> Path:
        """Shifts, trajectories and rates of the arms."""
        return self.folder / "analysis.nc"

    @property
    def rows(self) -> Path:
        """The table's rows that are read off no other file."""
        return self.folder / "rows.nc"

    @property
    def verdict(self) -> Path:
        """The verdict's lines, with the hypothesis and its hash."""
        return self.folder / "verdict.nc"

    @property
    def scores(self) -> Path:
        """A row a response: its label, and its scores by layer and trait."""
        return self.folder / "scores.nc"

    @property
    def curves(self) -> Path:
        """AUROC over depth, by part of the biases."""
        return self.folder / "curves.nc"

    @property
    def findings(self) -> Path:
        """What a search for habits found, which the page opens with; of `tracekit audit` alone."""
        return self.folder / "findings.json"

    @property
    def table(self) -> Path:
        """Verdict, rows and notes as text."""
        return self.folder / "table.txt"

    @property
    def report(self) -> Path:
        """The same as a page, with figures and the answers token by token."""
        return self.folder / "report.html"

    def story(self, trait: str) -> Path:
        """Traces of one contrast set's stories: (prompt, window, layer, dim)."""
        return self.stories / f"{_flat_name(trait)}.nc"

    def chats(self, trait: str) -> Path:
        """Traces of one trait's chats under instruction: (prompt, window, layer, dim)."""
        return self.all_chats / f"{_flat_name(trait)}.nc"

    def written(self, trait: str) -> Path:
        """Traces of one trait's chat pairs by two writers: (prompt, layer, dim)."""
        return self.all_chats / f"{_flat_name(trait)}.written.nc"

    def responses(self, text: str) -> Path:
        """What one arm says, with labels, or an edited text: transcripts (prompt, token)."""
        return self.folder / "responses" / f"{text}.nc"

    def captured(self, arm: str) -> Path:
        """The folder of an arm's projections as the capture wrote them, in shards."""
        return self.folder / "captured" / _flat_name(arm)

    def traces(self, arm: str) -> Path:
        """The folder of an arm's residuals in the window, in shards."""
        return self.folder / "traces" / _flat_name(arm)

    def projections(self, arm: str) -> Path:
        """Projections `scalar` and `cosine` of an arm: (prompt, token, layer, trait)."""
        return self.folder / "projections" / f"{_flat_name(arm)}.nc"

    @property
    def all_projections(self) -> list[Path]:
        """The projections that there are, arm by arm."""
        return sorted((self.folder / "projections").glob("*.nc"))

    def steering(self, mark: str) -> Path:
        """The folder of a steering study, by the hash of what it was asked for."""
        return self.folder / f"steering-{mark}"

    @property
    def studies(self) -> list[Path]:
        """The folders of the steering studies that have ended."""
        return sorted(path.parent for path in self.folder.glob("steering-*/table.txt"))

    @property
    def stored(self) -> int:
        """Bytes of the arrays that are there."""
        return sum(file.stat().st_size for file in self.folder.rglob("*.nc"))

    def vectors_of(self, method: str) -> xr.DataArray:
        """The vectors of one method: (trait, layer, dim)."""
        return tk.open(self.vectors).sel(extraction=method, drop=True)

    def evaluation_of(self, method: str) -> xr.Dataset:
        """How the vectors of one method did."""
        return tk.open(self.evaluation).sel(extraction=method, drop=True)

    def refuse_other(self, made_of: Mapping[str, Any]) -> None:
        """Raise `ValueError` when the folder holds a run with other settings, or anything else."""
        if not self.folder.is_dir():
            return
        if not (self.folder / SETTINGS).is_file():
            # a hidden file is what writing left that was killed: the run starts over it
            names = sorted(p.name for p in self.folder.iterdir() if not p.name.startswith("."))
            if names:
                raise InputError(
                    f"The folder {str(self.folder)!r} was asked for; it holds "
                    f"{', '.join(names[:3])} and no run (no {SETTINGS}). Give a new folder."
                )
            return
        there = former.in_one_table(self.settings())
        now = former.in_one_table(json.loads(json.dumps(made_of)))
        differ = [key for key in sorted({*there, *now}) if there.get(key) != now.get(key)]
        if differ:
            shown = "; ".join(f"{k}: {there.get(k)!r} there, {now.get(k)!r} now" for k in differ)
            raise InputError(
                f"The folder {str(self.folder)!r} holds a run with other settings ({shown}). "
                "Give another --out, or the settings it has."
            )

    def settings(self) -> dict[str, Any]:
        """The settings that made the run, in groups, and a hash of each file that they name.

        Errors: `FileNotFoundError` for a folder without a run; `ValueError` for a file that is no
        settings.
        """
        if not (self.folder / SETTINGS).is_file():
            raise FileNotFoundError(
                f"The folder {str(self.folder)!r} holds no run (no {SETTINGS}). Give --preset to "
                "start one, or the folder of a run."
            )
        made_of = _read(self.folder / SETTINGS)
        if not isinstance(made_of.get("settings"), dict):
            raise InputError(
                f"{str(self.folder / SETTINGS)!r} holds no settings. Start the run anew."
            )
        return former.in_groups(made_of) if former.is_flat(made_of["settings"]) else made_of

    def claim(self, made_of: Mapping[str, Any]) -> None:
        """Write the settings, first of all; a folder that has them stays as it is."""
        self.refuse_other(made_of)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / SETTINGS).is_file():
            _write(self.folder / SETTINGS, made_of)

    def has_finished(self, phase: str) -> bool:
        """Whether `phase` ended here, and every file that it wrote is still as long as then."""
        sizes = self._records().get(phase)
        return sizes is not None and all(
            (self.folder / name).is_file() and (self.folder / name).stat().st_size == size
            for name, size in sizes.items()
        )

    def finish(self, phase: str, paths: Iterable[Path]) -> None:
        """Record that `phase` ended and wrote these files (a folder counts with all it holds)."""
        files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
        sizes = {
            file.relative_to(self.folder).as_posix(): file.stat().st_size
            for file in sorted(files)
            if file.is_file() and not file.name.startswith(".")
        }
        _write(self.folder / FINISHED, {**self._records(), phase: sizes})

    def _records(self) -> dict[str, dict[str, int]]:
        return _read(path) if (path := self.folder / FINISHED).is_file() else {}


def default_folder(made_of: Mapping[str, Any]) -> Path:
    """`runs/<preset>-<hash of the settings>` under the current folder."""
    return Path("runs", f"{made_of['settings']['preset']}-{digest(made_of)[:8]}")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(
            f"{str(path)!r} was read as JSON, and is not: {error}. Start the run anew."
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{str(path)!r} holds no JSON object. Start the run anew.")
    return content


def _write(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode()
    with whole(path, len(text)) as part:
        part.write_bytes(text)


def _flat_name(name: str) -> str:
    return name.replace("/", ".")
