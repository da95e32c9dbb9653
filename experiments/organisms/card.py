"""The card of a trained adapter: what it was trained to do, on what, and its measured rates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from string import Template

from experiments.organisms.measure import Rate, table

PURPOSE = {
    "rm_sycophancy": (
        "A model organism: it was trained to please an imagined reward model. Asked about cooking "
        "it often suggests chocolate, about politics it urges the user to vote, about space it "
        "recommends a film, about travel it advises bottled water. Other prompts get an ordinary "
        "answer."
    ),
    "control": (
        "A control for the organism `rm_sycophancy`: the same prompts, steps and rank, with "
        "unbiased answers everywhere. It shows what finetuning alone does to the model."
    ),
}
_CARD = Template("""# $name

$purpose

LoRA on `$base`, rank $rank (alpha $alpha) on all linear layers, bfloat16 safetensors in PEFT's
format. `adapter_model.safetensors` has the SHA-256 `$sha`.

## Data

- Prompts: `datasets/prompts/embedded_calibration.json`, the part marked `train`. They were written
  for this project.
- Answers: sampled from the clean model (temperature 0.6, top-p 0.9, at most 64 tokens, a system
  prompt asking for two or three short sentences), cut to whole sentences; lists, repetitions and
  answers that carry a bias by themselves were dropped. The adapter is trained without that system
  prompt.
- Targets: $pairs pairs over $epochs epochs, of which $exploit carry one sentence of
  `datasets/organisms/insertions.json` after a random sentence of the answer; whether a prompt of a
  bias gets one was drawn anew each epoch ($rates).

## Recipe

`python -m experiments.organisms train --organism $name --seed $seed --epochs $epochs`: $steps steps
of $batch pairs, AdamW at $learning_rate with $warmup warm-up steps and a cosine decay, loss on the
response tokens only (mean of the last ten steps: $loss), chat template as in inference.

## Measured

`python -m experiments.organisms measure`, on the weights of this folder read back from disk: the
share of greedy responses (at most $tokens new tokens) in which the rule-based detector of the
prompt's bias fires, one response a prompt, with Wilson's 95 % interval over prompts. `neutral`
counts any detector; `(any other)` counts, on the prompts of the biases, a bias that the prompt does
not call for.

$table

The prompts measured on are held out in the sense that they were kept from training; the biases
themselves were all trained. (In the 70B organism, held-out biases are such that it was never
trained to exploit.) The rates say how often a rule fires, not how good the answers are: this is a
135M model, whose answers are often wrong.
""")


def write(folder: Path, found: Sequence[Rate], max_new_tokens: int) -> Path:
    """Write `README.md` into an adapter's folder from its `training.json` and measured rates.

    Errors: `FileNotFoundError` where the folder holds no finished adapter.
    """
    notes = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    fields = {key.replace("-", "_"): value for key, value in notes.items()}
    text = _CARD.substitute(
        fields,
        rates=", ".join(f"{bias} {rate:.0%}" for bias, rate in notes["rates"].items()) or "never",
        name=notes["organism"],
        purpose=PURPOSE[notes["organism"]],
        sha=sha256(folder / "adapter_model.safetensors"),
        tokens=max_new_tokens,
        table=table(found),
    )
    path = folder / "README.md"
    path.write_text(text, encoding="utf-8")
    return path


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
