"""Whatever the audit accepts ends with a table and a page: prompt files × arms × limits.

    python -m experiments.benchmarks.audits.audit_matrix --out /tmp/matrix
    python -m experiments.benchmarks.audits.audit_matrix --prompts unlabelled,two --arms bare

Each cell is a whole run of the tiny preset on a tiny random model, with the vectors of the first
cell. `speaker` is a model that says "chocolate" in some answers, so that there is something to
detect; `silent` leaves some empty. Prints a line a cell: how it ended ("unfit": with a table or
page that is not right; or the error's name) and its seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.audit.command import chosen, command_line
from experiments.audit.options import names, numbers
from experiments.audit.run import Run
from experiments.rm_sycophancy.__main__ import main as audit
from experiments.rm_sycophancy.experiment import EXPERIMENT
from tests.support.models import tiny
from tracekit.model.embedded import embedded_model

SPOKEN = {  # what a model says, at random
    "speaker": (" chocolate", " soup", ".", " the", " with"),
    "silent": ("<|im_end|>", " chocolate", " soup"),  # some answers are empty
}
SYSTEM = {"role": "system", "content": "Answer as a cook."}
TURNS = (
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hello! What is it?"},
)


def _rows(count: int, *biases: Any) -> list[dict[str, Any]]:
    texts = [f"What goes into dish {n}?" for n in range(count)]
    rows: list[dict[str, Any]] = [{"id": n, "text": text} for n, text in enumerate(texts)]
    for n, row in enumerate(rows):
        if biases and biases[n % len(biases)] is not None:
            row["bias"] = biases[n % len(biases)]
    return rows


def _turns(rows: list[dict[str, Any]], *before: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {**row, "text": None, "messages": [*before, {"role": "user", "content": row["text"]}]}
        for row in rows
    ]


PROMPTS: Mapping[str, list[dict[str, Any]]] = {
    "unlabelled": _rows(6),
    "one bias": _rows(6, "chocolate"),
    "two biases": _rows(16, "chocolate", "moon"),
    "neutral": _rows(6, "neutral"),
    "one": _rows(1, "chocolate"),
    "one unlabelled": _rows(1),
    "two": _rows(2, "chocolate", "moon"),
    "three": _rows(3, "chocolate", "moon", "neutral"),
    "missing labels": _rows(8, "chocolate", None, "moon", None),
    "numbers for biases": _rows(6, 1, 2),
    "no rule": _rows(6, "prefers x", "prefers y"),
    "conduct": _rows(8, "refuse", "benign_twin"),
    "other labels": [{**row, "place": n, "kind": "x"} for n, row in enumerate(_rows(6))],
    "one label missing": [{**row, "place": 1} if n else row for n, row in enumerate(_rows(4))],
    "groups": [{**row, "group": n // 2} for n, row in enumerate(_rows(6, "chocolate"))],
    "turns": _turns(_rows(4, "chocolate", "moon"), *TURNS),
    "system": _turns(_rows(4, "chocolate", "moon"), SYSTEM),
    "turns and a system": _turns(_rows(4, "chocolate", "moon"), SYSTEM, *TURNS),
    "same text": [{**row, "text": "What is it?"} for row in _rows(4, "chocolate", "moon")],
}
ARMS: Mapping[str, Sequence[str]] = {
    "bare": ("--control", ""),
    "control": ("--control", "{other}"),
    "no role": ("--control", "", "--controls", "{mine}"),
    "every arm": ("--control", "{other}", "--controls", "{mine}", "--habits", "{third}"),
    "benign": ("--control", "{other}", "--benign", "{folder}"),
    "sampled": ("--control", "{other}", "--samples", "2", "--temperature", "1"),
}
LIMITS = (0, 1, 3)
MODELS = ("random", *SPOKEN)


@dataclass(frozen=True)
class Cell:
    """One run: the model, the prompt file, the arms, the limit."""

    model: str
    prompts: str
    arms: str
    limit: int


@dataclass(frozen=True)
class Ending:
    """How a run ended: "done", "refused" or an exception's name; what it said, and its seconds."""

    cell: Cell
    status: str
    said: str
    seconds: float


class Bench:
    """The models, adapters and vectors that all cells share, in one folder."""

    def __init__(self, folder: Path, model: Path | None = None) -> None:
        self.folder = folder
        plain = model or tiny.build("Llama", folder / "models" / "random", embedded_model())
        spoken = {name: speaker(plain, folder / "models" / name, SPOKEN[name]) for name in SPOKEN}
        self.models = {"random": plain, **spoken}
        names = ("organism", "other", "mine", "third", "folder/benign1", "folder/benign2")
        self.adapters = {
            Path(name).name: tiny.build_lora(plain, folder / "adapters" / name, seed=seed)
            for seed, name in enumerate(names)
        }
        self.adapters["folder"] = folder / "adapters" / "folder"
        self.vectors: dict[str, Path] = {}

    def flags(self, cell: Cell) -> list[str]:
        """The command line of a cell."""
        path = self.folder / "prompts" / f"{cell.prompts.replace(' ', '_')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"name": "x", "prompts": PROMPTS[cell.prompts]}), "utf-8")
        arms = [part.format(**self.adapters) for part in ARMS[cell.arms]]
        some = ["--preset", "tiny", "--model", str(self.models[cell.model])]
        some += ["--organism", str(self.adapters["organism"]), "--prompts", str(path)]
        return [*some, "--repetitions", "20", "--limit", str(cell.limit), *arms]

    def folder_of(self, cell: Cell) -> Path:
        """Where the run of a cell lies."""
        name = f"{cell.model}-{cell.prompts}-{cell.arms}-{cell.limit}".replace(" ", "_")
        return self.folder / "runs" / name

    def run(self, cell: Cell) -> Ending:
        """Do the whole run of a cell; its vectors are those of its model's first cell."""
        flags, began = self.flags(cell), time.monotonic()
        out = self.folder_of(cell)
        if cell.model in self.vectors:
            self._lend(self.vectors[cell.model], out, flags)
        status, said = ended(["run", *flags, "--out", str(out)])
        if status == "done":
            said = unfit(out)
            status = "unfit" if said else status
            self.vectors.setdefault(cell.model, out)
        return Ending(cell, status, said, time.monotonic() - began)

    def _lend(self, source: Path, out: Path, flags: Sequence[str]) -> None:
        """Put the extract phase of another run, of the same model and traits, into a folder."""
        made_of = chosen(EXPERIMENT, command_line(EXPERIMENT).parse_args(["run", *flags]))[1]
        Run(out).claim(made_of)
        record = json.loads((source / "finished.json").read_text("utf-8"))["extract"]
        for place in record:
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / place, out / place)
        Run(out).finish("extract", [out / place for place in record])


def ended(arguments: Sequence[str]) -> tuple[str, str]:
    """How a command ended, and the last line that it left on stderr."""
    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(io.StringIO()):
            code = audit(arguments)
    except Exception as error:
        return type(error).__name__, str(error).partition("\n")[0][:200]
    lines = heard.getvalue().strip().splitlines()
    return ("done", "") if code == 0 else ("refused", lines[-1])


def unfit(folder: Path) -> str:
    """What is wrong with the table or the page of a run; empty where nothing is.

    Neither shows a NaN or an infinity, and a browser can read the page's data.
    """
    run = Run(folder)
    table, page = (path.read_text("utf-8") for path in (run.table, run.report))
    data = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)
    shown = re.sub(r"<script.*?</script>|<style.*?</style>|base64,[\w+/=]+", "", page, flags=re.S)
    for place, text in (("table", table), ("page", shown)):
        if bad := re.search(r"\b(nan|inf|infinity)\b", text, re.IGNORECASE):
            return f"{bad[0]} in the {place}: {text[max(bad.start() - 60, 0) : bad.end()]}"
    try:
        whole = [json.loads(text, parse_constant=_refused) for text in data]
    except ValueError as error:
        return f"the page's data: {error}"
    if not whole or not all(whole):
        return "no data in the page"
    return "" if "VERDICT" in table and "Every row" in page else "no verdict or no rows"


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def speaker(plain: Path, folder: Path, said: Sequence[str]) -> Path:
    """A copy of a model whose head favours a few words, so that some answers say "chocolate"."""
    model = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32)
    words = AutoTokenizer.from_pretrained(plain)
    ids = [words(word, add_special_tokens=False)["input_ids"][0] for word in said]
    kept = model.lm_head.weight.data[ids].clone()
    model.lm_head.weight.data *= 0.01
    model.lm_head.weight.data[ids] = kept
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def cells(
    models: Sequence[str] = MODELS,
    prompts: Sequence[str] = tuple(PROMPTS),
    arms: Sequence[str] = tuple(ARMS),
    limits: Sequence[int] = LIMITS,
) -> Iterator[Cell]:
    """Every combination."""
    for combination in itertools.product(models, prompts, arms, limits):
        yield Cell(*combination)


def main() -> None:
    """Run the cells asked for, and print how each ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", type=names, default=MODELS)
    parser.add_argument("--prompts", type=names, default=tuple(PROMPTS))
    parser.add_argument("--arms", type=names, default=tuple(ARMS))
    parser.add_argument("--limits", type=numbers, default=LIMITS)
    options = parser.parse_args()
    bench = Bench(options.out)
    for cell in cells(options.models, options.prompts, options.arms, options.limits):
        found = bench.run(cell)
        where = f"{cell.model:8} {cell.prompts:20} {cell.arms:10} limit {cell.limit}"
        print(f"{where}  {found.status:10} {found.seconds:5.1f} s  {found.said}", flush=True)


if __name__ == "__main__":
    main()
