"""Attaching and leaving adapters, interrupted at random moments: what state is the model in?

python -m experiments.benchmarks.interruptions [--count 200] [--seed 0]

A tiny random Qwen2 (it has biases), adapters of many forms. A third of the interrupts arrive at a
random call or return of Python code, where Python itself delivers a Ctrl-C; a third by a real
timer; a third twice, the second up to 20 ms after the first, while the model is being put back.
Afterwards the model must be what it was (the bits of its weights and of its values, and those of
the next adapter), or refuse every call.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import hashlib
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import tracekit as tk
from tests.support.models import tiny
from tests.support.oracles import reference
from tracekit.model.embedded import embedded_model

RESULTS = Path(__file__).parent / "results" / "interruptions.txt"
BEFORE, POISONED, OTHER = "as before", "refuses every call", "OTHER STATE"
WAYS = ("at a call", "by a signal", "twice")
SECOND = 0.02
FORMS: Mapping[str, dict[str, Any]] = {
    "lora": {},
    "second": {"r": 2},
    "dora": {"use_dora": True, "modules_to_save": ["lm_head"]},
    "tokens": {"trainable_token_indices": [5, 42, 79]},
    "pissa": {"init_lora_weights": "pissa"},
    "bias": {"bias": "all"},
}
# what is attached inside what; the last two are refused after they were attached
SCENARIOS: Mapping[str, tuple[str | None, ...]] = {
    "a LoRA": ("lora",),
    "DoRA and a saved head": ("dora",),
    "trained tokens": ("tokens",),
    "PiSSA": ("pissa",),
    "biases": ("bias",),
    "another one inside": ("lora", "second"),
    "off inside": ("lora", None),
    "weights missing": ("missing",),
    "weights missing, inside": ("lora", "missing"),
}


def write_adapters(base: Path, folder: Path) -> dict[str, Path]:
    """An adapter of every form as a peft folder; of `missing` one block's weights are not there.

    >>> sorted(write_adapters(base, folder))[:2]
    ['bias', 'dora']
    """
    for name, settings in FORMS.items():
        torch.manual_seed(len(name))
        made: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "down_proj"], **settings}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = get_peft_model(reference.load(base), LoraConfig(task_type="CAUSAL_LM", **made))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape) * 0.1)
        model.save_pretrained(str(folder / name), save_embedding_layers=False)
    missing = folder / "missing"
    missing.mkdir()
    weights = load_file(folder / "lora" / "adapter_model.safetensors")
    kept = {name: value for name, value in weights.items() if "layers.2." not in name}
    save_file(kept, missing / "adapter_model.safetensors")
    (missing / "adapter_config.json").write_bytes(
        (folder / "lora" / "adapter_config.json").read_bytes()
    )
    return {path.name: path for path in folder.iterdir()}


class Subject:
    """A loaded model, what it was, and what becomes of it."""

    def __init__(self, base: Path, adapters: Mapping[str, Path], tokenizer: Any) -> None:
        self.base, self.adapters, self.tokenizer = base, adapters, tokenizer
        self.renew()

    def renew(self) -> None:
        """Load the model again."""
        self.model = tk.load(self.base, dtype="float32", tokenizer=self.tokenizer)
        self.runs = tk.encode(self.model, ["Where is Paris?"], template="raw")
        self.weights = dict(self.model._module.named_parameters())
        self.bits, self.clean = self._bits(), self._values()
        with tk.adapter(self.model, self.adapters["lora"]):
            self.adapted = self._values()

    def run(self, names: Sequence[str | None]) -> None:
        """These adapters, each inside the one before it; a refusal is no news."""
        with contextlib.ExitStack() as blocks, contextlib.suppress(ValueError):
            for name in names:
                blocks.enter_context(tk.adapter(self.model, name and self.adapters[name]))

    def outcome(self) -> str:
        """What state the model is in."""
        try:
            clean = self._values()
            with tk.adapter(self.model, self.adapters["lora"]):
                adapted = self._values()
        except RuntimeError as error:
            return POISONED if "no known state" in str(error) else f"{OTHER}: {error}"
        except Exception as error:
            return f"{OTHER}: {type(error).__name__}: {error}"
        same = np.array_equal(clean, self.clean) and np.array_equal(adapted, self.adapted)
        return BEFORE if same and self._bits() == self.bits else OTHER

    def _values(self) -> np.ndarray:
        made: xr.DataArray = tk.capture(self.model, self.runs, tokens="all", progress=False)
        return np.append(made.values, tk.logprobs(self.model, self.runs).values[:, 1:])

    def _bits(self) -> str:
        hashed = hashlib.sha256()
        for name, parameter in self.weights.items():
            hashed.update(name.encode() + parameter.detach().numpy().tobytes())
        return hashed.hexdigest()


def events(action: Callable[[], None]) -> int:
    """How many calls and returns of Python code an action makes."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_return")

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def interrupted(
    action: Callable[[], None], at: int | None, after: float | None, second: float | None
) -> bool:
    """Whether an interrupt at the event `at`, or `after` seconds, ended the action."""
    left = at

    def raise_at(frame: Any, event: str, argument: Any) -> None:
        nonlocal left
        if event in ("call", "c_return") and left is not None:
            left -= 1
            if left < 0:
                if second is not None:
                    signal.setitimer(signal.ITIMER_REAL, second)
                raise KeyboardInterrupt

    with _alarms() as armed:
        try:
            armed.append(True)
            if after is not None:
                signal.setitimer(signal.ITIMER_REAL, after)
            if at is not None:
                sys.setprofile(raise_at)
            action()
            armed.clear()
        except KeyboardInterrupt:
            armed.clear()
            return True
        finally:
            sys.setprofile(None)
    return False


@contextlib.contextmanager
def _alarms() -> Iterator[list[bool]]:
    armed: list[bool] = []

    def ring(number: int, frame: Any) -> None:
        if armed:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, ring)
    try:
        yield armed
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure(subject: Subject, count: int, seed: int) -> list[tuple[str, str, str]]:
    """`count` interruptions: scenario, way, outcome.

    >>> measure(subject, 1, seed=0)
    [('a LoRA', 'at a call', 'as before')]
    """
    rng = np.random.default_rng(seed)
    rows: list[tuple[str, str, str]] = []
    lengths: dict[str, tuple[int, float]] = {}
    while len(rows) < count:
        name = list(SCENARIOS)[len(rows) % len(SCENARIOS)]
        way = WAYS[len(rows) // len(SCENARIOS) % len(WAYS)]
        action = functools.partial(subject.run, SCENARIOS[name])
        if name not in lengths:
            begun = time.monotonic()
            action()
            took = time.monotonic() - begun
            lengths[name] = (events(action), took)
        at, after, second = _moment(way, *lengths[name], rng)
        hit = interrupted(action, at, after, second)
        found = subject.outcome()
        if hit or found != BEFORE:
            rows.append((name, way, found))
        if found != BEFORE:
            subject.renew()
    return rows


def _moment(
    way: str, calls: int, seconds: float, rng: np.random.Generator
) -> tuple[int | None, float | None, float | None]:
    # a timer of nothing would be no timer
    if way == "by a signal":
        return None, float(rng.uniform(1e-6, seconds)), None
    second = float(rng.uniform(1e-6, SECOND)) if way == "twice" else None
    return int(rng.integers(calls)), None, second


def table(rows: Sequence[tuple[str, str, str]]) -> str:
    """How often each outcome, by scenario and way.

    >>> print(table([("a LoRA", "twice", "as before")]).splitlines()[-1])
    OTHER STATE: 0 of 1
    """
    kinds = (BEFORE, POISONED, OTHER)
    lines = [
        "| scenario | interrupt | " + " | ".join(kinds) + " |",
        "| --- " * (2 + len(kinds)) + "|",
    ]
    counted = collections.Counter((name, way, kind.split(":")[0]) for name, way, kind in rows)
    for name, way in dict.fromkeys((name, way) for name, way, _ in rows):
        numbers = " | ".join(str(counted[name, way, kind]) for kind in kinds)
        lines.append(f"| {name} | {way} | {numbers} |")
    wrong = [row for row in rows if row[2].startswith(OTHER)]
    lines += [f"{name}, {way}: {kind}" for name, way, kind in wrong]
    return "\n".join([*lines, f"{OTHER}: {len(wrong)} of {len(rows)}"])


def build(folder: Path) -> Subject:
    """The tiny model and its adapters, in `folder`."""
    words = AutoTokenizer.from_pretrained(embedded_model())
    base = tiny.build("Qwen2", folder / "model", words)
    return Subject(base, write_adapters(base, folder / "adapters"), words)


def main() -> None:
    """Interrupt, print the table and save it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        rows = measure(build(Path(folder)), given.count, given.seed)
    said = (
        f"python -m experiments.benchmarks.interruptions --count {given.count} --seed {given.seed}"
    )
    text = f"{said}\n{time.monotonic() - begun:.0f} s\n\n{table(rows)}\n"
    print(text)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
