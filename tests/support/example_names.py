"""What the examples of docstrings take for granted: each is built when one first names it.

A tiny random Llama of 30 blocks (dim 32, the embedded model's tokenizer), a LoRA for it, three
answered prompts, what it makes of them, and two trait vectors.
"""

from __future__ import annotations

import doctest
import math
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import tracekit as tk
import traits
from experiments.audit.discovery.confirm import Compared
from experiments.audit.discovery.findings import Finding
from experiments.audit.settings.groups import Settings
from experiments.rm_sycophancy.experiment import EXPERIMENT
from tests.support.models import tiny
from tracekit.model.embedded import embedded_model


class Names:
    """`model` and the rest, in `folder`."""

    Path, math, np, torch, xr = Path, math, np, torch, xr
    tk, traits = tk, traits
    presets = EXPERIMENT.presets

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def used(self, example: doctest.DocTest) -> dict[str, Any]:
        """The names of an example that its module does not define, with what they stand for."""
        lines = [line for line in example.examples if not line.options.get(doctest.SKIP)]
        source = "".join(line.source for line in lines)
        words = set(re.findall(r"(?<![.\w])[A-Za-z]\w*", source)) - {"used"}
        return {n: getattr(self, n) for n in words - set(example.globs) if hasattr(Names, n)}

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return AutoTokenizer.from_pretrained(embedded_model())

    @cached_property
    def weights(self) -> Path:
        """The model's own folder."""
        words, path = self.tokenizer, self.folder / "tiny-llama"
        ends = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
        settings = {**tiny.ROTARY, **ends, "vocab_size": len(words), "num_hidden_layers": 30}
        tiny.module("llama", settings).save_pretrained(path)
        words.save_pretrained(path)
        return path

    @cached_property
    def model(self) -> TransformersModel:
        return tk.load(self.weights, dtype="float32")

    @cached_property
    def lora(self) -> Path:
        """The folder of an adapter."""
        return tiny.build_lora(self.weights, self.folder / "lora")

    @cached_property
    def prompts(self) -> list[tk.Prompt]:
        texts = {"Where is Paris?": "", "Is snow white?": "", "How do I bake a cake?": "chocolate"}
        labels = [{"bias": bias, "part": "calibration" if bias else ""} for bias in texts.values()]
        return [
            tk.Prompt(f"example/{n}", text=text, labels=labels[n]) for n, text in enumerate(texts)
        ]

    @cached_property
    def runs(self) -> xr.Dataset:
        answers = ["It is in France.", "Yes, it is.", "Mix flour and eggs. Add some cocoa."]
        return tk.encode(self.model, self.prompts, answers)

    @cached_property
    def clean(self) -> xr.DataArray:
        return tk.capture(self.model, self.runs, progress=False)

    @cached_property
    def traces(self) -> xr.DataArray:
        """Those of the adapter, on the same ids as `clean`."""
        with tk.adapter(self.model, self.lora):
            return tk.capture(self.model, self.runs, progress=False)

    @cached_property
    def contrast(self) -> traits.ContrastSet:
        return traits.load_contrast("sycophancy")

    @cached_property
    def chats(self) -> traits.ChatSet:
        """Four of the trait's chat pairs, two of each writer."""
        whole = traits.load_chats("sycophancy")
        return traits.ChatSet(whole.name, (*whole.pairs[:2], *whole.pairs[-2:]))

    @cached_property
    def stories(self) -> xr.Dataset:
        """Both sides of four pairs of `contrast`."""
        return traits.elicit(self.model, self.contrast, pairs=4)

    @cached_property
    def vectors(self) -> xr.DataArray:
        names = ["alignment/sycophancy", "alignment/honesty"]
        return xr.concat(
            [self._extracted(name) for name in names], "trait", combine_attrs="override"
        )

    def _extracted(self, name: str) -> xr.DataArray:
        runs = traits.elicit(self.model, traits.load_contrast(name), pairs=4)
        return traits.extract(tk.capture(self.model, runs, tokens=slice(-4, -1), progress=False))

    @cached_property
    def vector(self) -> xr.DataArray:
        return self.vectors.sel(trait="alignment/sycophancy", layer=12)

    @cached_property
    def probe(self) -> xr.Dataset:
        """One of layer 12, fitted on the sides of four pairs."""
        tokens, all_fit = slice(-4, -1), {"fit": 1.0}
        traces = tk.capture(self.model, self.stories, 12, tokens=tokens, progress=False)
        settings = {"inverse_penalty": 0.1, "fractions": all_fit, "tokens": "all"}
        return traits.fit(traces, "label", **settings)

    @cached_property
    def projections(self) -> xr.DataArray:
        return traits.project(self.clean, self.vectors)

    @cached_property
    def path(self) -> Path:
        """A file of traces."""
        return tk.save(self.clean, self.folder / "traces.nc")

    @cached_property
    def confirmed_finding(self) -> Finding:
        """A habit of saying "sea", confirmed on one of ten prompts."""
        off = Compared(0.1, 0.0, 0.1, 0.0, 0.3, 0.001, 10, 1, 0)
        told = ("sea", "says", r"\bsea\b", 9.0, 1.0, off, None, 0.01, "confirmed", "", {})
        return Finding(*told, prompts=("p/1",))

    @cached_property
    def settings(self) -> Settings:
        return EXPERIMENT.preset("tiny", {"organism": str(self.lora)})
