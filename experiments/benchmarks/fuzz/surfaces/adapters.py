"""Adapters: every field of a LoRA's configuration and its weights, out of place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import tracekit as tk
from experiments.benchmarks.fuzz.damage import ODD, damaged
from experiments.benchmarks.fuzz.outcome import Case
from tests.support.models import tiny
from tracekit.model.embedded import embedded_model
from tracekit.model.weights import fingerprint

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_SENSIBLE: tuple[Any, ...] = (
    *("pissa", "olora", "gaussian", "eva", "corda", "loftq", "orthogonal", "all", "lora_only"),
    *(["q_proj"], ["lm_head"], "all-linear", ".*mlp.*", ["embed_tokens"], [0, 1], {"q_proj": 4}),
    *("VERA", "IA3", "LOHA", "DORA", "SEQ_CLS", 4, 16, 0.5),
)


def cases(rng: np.random.Generator, place: Path) -> Iterator[Case]:
    """One folder a case, put on one model whose base is looked at after each."""
    base = tiny.build("Llama", place / "model", embedded_model())
    good = tiny.build_lora(base, place / "good")
    model = tk.load(base, dtype="float32")
    runs = tk.encode(model, ["The quick brown fox", "Yes it is"], template="raw")
    names = [name for name, _ in model._module.named_parameters()]
    before, clean = _base(model, names), tk.logprobs(model, runs).values
    number = 0
    while True:
        number += 1
        folder = place / f"adapter{number}"
        shutil.copytree(good, folder)
        what = _damage(folder, rng)

        def intact() -> bool:
            again = tk.logprobs(model, runs).values
            return _base(model, names) == before and np.array_equal(again, clean, equal_nan=True)

        yield Case(
            what,
            lambda f=folder: _read(model, f, runs),
            lambda v, f=folder: _right(v, base, f, runs),
            intact,
            # safetensors has no checksum of its own, and peft writes none
            checked="flip" not in what and "zeros" not in what,
            seconds=60,
        )
        shutil.rmtree(folder)


def _base(model: Any, names: list[str]) -> str:
    """The fingerprint of the base's own weights, wherever an adapter's modules put them."""
    found = {}
    for name, parameter in model._module.named_parameters():
        for wrap in (".base_layer", ".original_module", ".token_adapter"):
            name = name.replace(wrap, "")
        found[name] = parameter
    return fingerprint({name: found[name] for name in names})


def _damage(folder: Path, rng: np.random.Generator) -> str:
    config = json.loads((folder / CONFIG).read_text())
    kind = rng.random()
    if kind < 0.25:
        name = str(rng.choice([CONFIG, WEIGHTS]))
        done, data = damaged((folder / name).read_bytes(), rng)
        (folder / name).write_bytes(data)
        return f"{name} {done}"
    key = str(rng.choice(sorted(config)))
    if kind < 0.35:
        del config[key]
        what = f"{key} gone"
    else:
        pool = _SENSIBLE if rng.random() < 0.6 else ODD
        config[key] = pool[int(rng.integers(len(pool)))]
        what = f"{key} is {str(config[key])[:30]!r}"
    (folder / CONFIG).write_bytes(json.dumps(config).encode(errors="replace"))
    return what


def _read(model: Any, folder: Path, runs: Any) -> np.ndarray:
    with tk.adapter(model, folder):
        return tk.logprobs(model, runs).values


def _right(found: np.ndarray, base: Path, folder: Path, runs: Any) -> bool:
    """The log-probabilities of plain transformers and peft, a text at a time."""
    plain: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    plain = PeftModel.from_pretrained(plain, folder).eval()
    for row, ids in zip(found, runs.token_id.values, strict=True):
        real = torch.as_tensor(ids[ids >= 0].astype(np.int64))
        with torch.no_grad():
            scores = plain(input_ids=real[None]).logits[0].log_softmax(-1)
        expected = scores[:-1].gather(1, real[1:, None]).squeeze(1).numpy()
        ours = row[ids >= 0][1:]
        if not np.allclose(ours, expected, atol=1e-4, equal_nan=True):
            return False
    return True
