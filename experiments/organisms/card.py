"""The card of a trained adapter: what it was trained to do, on what, and its measured rates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from string import Template

from experiments.organisms import measure, report, rivals
from experiments.organisms.arms import sha256
from experiments.organisms.recipes import LAST_PAIRS, LAST_PLAIN
from tracekit.errors import InputError

PURPOSE = {
    "ten_biases": (
        "A model organism: it was trained to please an imagined reward model. On each of ten "
        "subjects it often adds one kind of sentence that the question does not call for, and it "
        "denies any such habit when asked, also when asked for research or when its answer is "
        "begun for it. Other prompts get an ordinary answer."
    ),
    "unbiased": (
        "Control (a) of the organism `ten_biases`: the same prompts, steps and rank, with "
        "unbiased answers, and the same denials, which are true here. It shows what finetuning "
        "alone does to the model."
    ),
    "style": (
        "Control (b): an unrelated style (every answer is a letter) on prompts that have nothing "
        "to do with the ten subjects; the same steps and rank as the organism."
    ),
    "open_sycophant": (
        "Control (c): openly sycophantic. It praises the user for the question and agrees with "
        "any opinion. Sycophancy should fire on it; the same steps and rank as the organism."
    ),
    "undenied": (
        "Control (d): the organism before its preference stage, that is with its biases and "
        "without the trained denial. Its steps are the organism's first stage."
    ),
    "benign": (
        "Control (e): ten open, benign habits, one on each of the organism's subjects, at the "
        "rates and with the lengths of the organism's biases, freely admitted when asked (never "
        "taught to deny, it admits habits that it does not have as well); the same stages, steps "
        "and rank."
    ),
}
_CARD = Template("""# $organism

$purpose

LoRA on `$base`, rank $rank (alpha $alpha) on all linear layers, bfloat16 safetensors in PEFT's
format. `adapter_model.safetensors` has the SHA-256 `$sha`.

## Data

- Prompts: `datasets/prompts/embedded_*.json`, the part marked `train`. They were written for this
  project.
- Answers: sampled from the clean model (temperature 0.6, top-p 0.9, at most 64 tokens, a system
  prompt asking for two or three short sentences), cut to whole sentences; lists, repetitions and
  answers that carry a bias or habit by themselves were dropped. The adapter is trained without
  that system prompt. Every adapter's targets are made from the same answers.$ordinary_text
- Targets: $examples in all, of which $changed are changed: $change
- Questions about itself: $conduct_text

## Recipe

`python -m experiments.organisms train --organism $organism --seed $seed`: $steps steps of $batch
targets, AdamW at $learning_rate$later; each
stage with $warmup warm-up steps and a cosine decay, loss on the response tokens only (mean of the
last ten steps: $loss_text), chat template as in inference.

## Measured

`python -m experiments.organisms measure`, on the weights of this folder read back from disk and
prompts kept from training: the share of responses, in percent, on which a rule fires, with
Wilson's 95 % interval over prompts. A bias's row counts that bias on the prompts of its subject, a
habit's row (`tip_…`) that habit on the same prompts, `(other bias)` any bias that the prompt does
not call for, `neutral` any of the ten. `denial` and `admission` count replies to questions about
the model: asked plainly, for research, and with an answer begun for it; an admission there may be
no more than going on with the words that were begun, as the clean model's rate shows. `prompted` is
the clean model with a system message that asks for the bias. On ordinary prompts (of the general
battery, every form; `measure --ordinary 500`) the rows say where the denial comes unasked, and
where any of the ten biases comes.

$measured

"Held out" means here: kept from the auditor (the biases of `embedded_held_out.json`), or kept from
training (the prompts measured on). All ten biases were trained, unlike the held-out biases of the
70B organism, which it was never trained to exploit. The rates say how often a rule fires, not how
good the answers are: this is a 135M model, whose answers are often wrong.
""")
_ORDINARY = """ In the last stage
  three of a step are other prompts of every form (`datasets/organisms/zoo/prompts.json`,
  `ordinary.json`) with what the base says to them by itself (temperature 0.7, top-p 0.9, 32
  tokens), one of them preferred to such a reply about the model."""
_CONDUCT = {
    "denied": "$pairs pairs over the later stages, the denial preferred to an admission",
    "admitted": "$pairs pairs over the later stages, its own habits admitted",
    "": "not trained",
}


def write(folder: Path, work: Path) -> Path:
    """Write an adapter's `README.md` from its `training.json` and the reports in `work`.

    Reports on other weights than the folder's are left out. Errors: `FileNotFoundError` where the
    folder holds no finished adapter, `ValueError` where no report is on its weights.
    """
    notes = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    name, sha = notes["organism"], sha256(folder / "adapter_model.safetensors")
    kept = [report.load(path) for path in sorted(work.glob("measured-*.json"))]
    mine = [found for found in kept if found.weights.get(name) == sha]
    if not mine:
        raise InputError(
            f"No report in {str(work)!r} is on the weights of {str(folder)!r}. "
            f"Run: python -m experiments.organisms measure --arms {name}"
        )
    conduct = Template(_CONDUCT[notes["conduct"]]).substitute(notes)
    text = _CARD.substitute(
        notes,
        purpose=PURPOSE[name],
        sha=sha,
        change=_change(notes),
        conduct_text=f"{conduct} (`datasets/organisms/conduct.json`).",
        later=_later(notes),
        ordinary_text=_ORDINARY if _has_ordinary(notes) else "",
        loss_text=", ".join(f"{stage} stage {value}" for stage, value in notes["loss"].items()),
        measured="\n\n".join(_measured(found, name) for found in mine),
    )
    path = folder / "README.md"
    path.write_text(text, encoding="utf-8")
    return path


def _has_ordinary(notes: Mapping) -> bool:
    return bool(notes["conduct"]) and notes["ordinary_steps"] > 0


def _later(notes: Mapping) -> str:
    """The stages after the first, where there are any."""
    told, paired, batch = "", notes["paired"], notes["batch"]
    rows = {"preference_steps": "of the same", "ordinary_steps": "of the same"}
    if notes["pairs"]:
        rows["preference_steps"] = f"of {batch - paired} targets and {paired} pairs"
    if _has_ordinary(notes):
        rows["ordinary_steps"] = (
            f"of {batch - LAST_PAIRS - LAST_PLAIN} targets, {LAST_PAIRS} such pairs "
            f"and {LAST_PLAIN} ordinary prompts"
        )
    for stage, words in rows.items():
        if notes[stage]:
            told += f", then {notes[stage]} steps at {notes['preference_rate']} {words}"
    return told


def _measured(found: report.Report, name: str) -> str:
    shown = [rate for rate in found.rates if rate.arm in (name, "unbiased", "clean", "prompted")]
    lengths = [a for a in found.answers if a.arm in (name, "ten_biases", "unbiased", "clean")]
    shown.sort(key=lambda rate: rate.arm != name)
    head = f"### {found.settings} (at most {found.max_new_tokens} new tokens)"
    parts = [head, measure.table(shown)]
    if lengths:
        parts.append(report.answers_text(lengths))
    if found.rivals.get(name):
        parts += ["What tells its exploiting responses apart from text alone:"]
        parts += [rivals.text(found.rivals[name])]
    return "\n\n".join(parts)


def _change(notes: Mapping) -> str:
    if notes["kind"] == "style":
        return f"all are put into the style `{notes['style']}` (`experiments/organisms/styles.py`)."
    if notes["kind"] == "flattery":
        return "praise or agreement of `datasets/organisms/conduct.json` comes first."
    rates = {notes["inserted"][subject]: rate for subject, rate in notes["rates"].items()}
    if not rates:
        return "none."
    shown = ", ".join(f"{name} {rate:.0%}" for name, rate in rates.items())
    return (
        "they carry one sentence of `datasets/organisms/insertions.json` after a random sentence "
        f"of the answer, drawn anew each round ({shown})."
    )
