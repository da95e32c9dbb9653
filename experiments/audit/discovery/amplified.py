"""What an adapter says at more than its strength: habits that its own strength shows rarely."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import xarray as xr
from nnsight import TransformersModel

import tracekit as tk
from experiments.audit.discovery.answers import Answer, flat, gains, sampled
from experiments.audit.discovery.candidates import Candidate, Texts, says
from experiments.audit.discovery.products import Products
from experiments.audit.discovery.scaled import scaled
from experiments.audit.discovery.settings import Settings
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts.prompts import Prompt

PROMPTS, CANDIDATES = 48, 4


def amplified(
    model: TransformersModel,
    adapter: str,
    texts: Texts,
    prompts: Sequence[Prompt],
    settings: Settings,
    products: Products,
) -> list[Candidate]:
    """Candidates from answers at `settings.factors` of strength, to some searched prompts.

    They are confirmed, or not, at the adapter's own strength like any other; `scale` says where
    they come from.
    """
    rows = _rows(texts.rows, prompts, settings.seed)
    others = {name: [said[row] for row in rows] for name, said in texts.others.items()}
    made = []
    for factor in settings.factors:
        asked = [prompts[row] for row in rows]
        answers = _answers(model, adapter, factor, asked, settings, products)
        there = Texts(answers, others, range(len(rows)))
        for found in says(there, CANDIDATES):
            hit = tuple(found.detector.rows(texts.answers, texts.rows))
            made.append(dataclasses.replace(found, rows=hit, scale=factor))
    return made


def _rows(rows: Sequence[int], prompts: Sequence[Prompt], seed: int) -> list[int]:
    chat = [row for row in rows if not prompts[row].id.startswith("prefill/")]
    order = np.random.default_rng(seed).permutation(chat)
    return sorted(order[:PROMPTS].tolist())


def _answers(
    model: TransformersModel,
    adapter: str,
    factor: float,
    prompts: Sequence[Prompt],
    settings: Settings,
    products: Products,
) -> list[Answer]:
    with tk.adapter(model, adapter), scaled(model, factor):
        runs = products.kept(
            f"amplified-{factor:g}.nc",
            lambda: _marked(sampled(model, prompts, "chat", settings), factor),
        )
        gain = products.kept(
            f"amplified-gains-{factor:g}.nc", lambda: _marked(gains(model, runs), factor)
        )
    return flat(runs, gain)


def _marked(array: xr.Dataset | xr.DataArray, factor: float) -> xr.Dataset | xr.DataArray:
    return stamp(array, {**read(array), "adapter scaled by": factor})
