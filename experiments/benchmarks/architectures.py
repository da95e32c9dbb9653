"""The same values as plain transformers + peft + bitsandbytes, on every architecture and variant.

    python -m experiments.benchmarks.architectures [--only Llama,Gemma3]
    python -m experiments.benchmarks.architectures --all

The second is every text-generation model type of transformers (`every_kind_table.py`); it goes on
where `results/architectures_all.csv` ends.

Random models of four blocks are saved as folders and read twice: by tracekit, and by hooks on
transformers (`reference.py`, which shares no code with tracekit), on the same padded tensors.
Each figure is the largest ‖difference‖ / ‖value‖ of any token at any layer. Fails above 1e-6
(float32) or 1e-3 (nf4, int8). `check` is the time of `tracekit.check` in seconds.

On a CPU with AVX512-BF16, bitsandbytes repacks nf4 weights and computes in bfloat16 whatever was
asked for; tracekit switches that off (an adapter attached after it corrupts the base), and so does
the reference. The row `nf4, repacked` shows what it would have changed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

import tracekit as tk
from experiments.benchmarks.measuring import every_kind_table
from tests.support.models import tiny
from tests.support.oracles import reference
from tracekit.model.embedded import embedded_model

TEXTS = (
    "The quick brown fox jumps over the lazy dog, and then it sleeps for a while.",
    "Paris is the capital of France.",
    "Yes.",
)
SITES = ("residual", "attention", "mlp")
QUANTISED = ("Llama", "Qwen3", "Gemma3")
RESULTS = Path(__file__).parent / "results" / "architectures_all.csv"
BOUNDS = {"float32": 1e-6, "nf4": 1e-3, "int8": 1e-3}


def compare(
    folder: Path, dtype: str, lora: Path | None, repack: bool = False
) -> tuple[dict[str, float], float]:
    """The largest relative difference at each site, and the seconds of `tk.check`."""
    model = tk.load(folder, dtype=dtype, adapter=lora, check=False)
    start = time.perf_counter()
    tk.check(model)
    seconds = time.perf_counter() - start
    theirs = reference.read(
        reference.load(folder, dtype, lora, repack), reference.padded(folder, TEXTS)
    )
    runs = tk.encode(model, TEXTS, template="raw")
    gaps = {}
    for site in SITES:
        layers = sorted(layer for s, layer in theirs if s == site)
        ours = tk.capture(model, runs, layers, site=site, tokens="all", progress=False)
        flat = ours.stack(place=("prompt", "token")).dropna("place", how="all")
        gaps[site] = max(
            reference.gap(
                torch.as_tensor(flat.sel(layer=layer).transpose("place", "dim").values),
                theirs[site, layer],
            )
            for layer in layers
        )
    return gaps, seconds


def variants(name: str) -> list[tuple[str, bool]]:
    """What is compared of an architecture: (dtype, with a LoRA)."""
    dtypes = ("float32", "nf4", "int8") if name in QUANTISED else ("float32",)
    return [(dtype, adapted) for dtype in dtypes for adapted in (False, True)]


def row(name: str, dtype: str, adapted: bool, gaps: dict[str, float], seconds: float) -> str:
    """One row of the table."""
    cells = [name, dtype, "yes" if adapted else "no"]
    cells += [f"{gaps[site]:.1e}" for site in SITES]
    cells += [f"{BOUNDS[dtype]:g}" if dtype in BOUNDS else "none", f"{seconds:.2f}"]
    return f"| {' | '.join(cells)} |"


def table(name: str, scratch: Path) -> Iterator[tuple[str, bool]]:
    """The rows of an architecture, each with whether it is within its bound."""
    widen = 4 if name in QUANTISED else 1
    folder = tiny.build(name, scratch / name, embedded_model(), widen=widen)
    lora = tiny.build_lora(folder, scratch / f"{name}-lora")
    for dtype, adapted in variants(name):
        gaps, seconds = compare(folder, dtype, lora if adapted else None)
        within = all(gap <= BOUNDS[dtype] for gap in gaps.values())
        yield row(name, dtype, adapted, gaps, seconds), within
    if name in QUANTISED and not torch.cuda.is_available():
        gaps, seconds = compare(folder, "nf4", None, repack=True)
        yield row(name, "nf4, repacked", False, gaps, seconds), True


def main() -> int:
    """Print the table; 1 if any figure is above its bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(tiny.ARCHITECTURES))
    parser.add_argument("--all", action="store_true")
    asked = parser.parse_args()
    if asked.all:
        return every_kind_table.main(RESULTS)
    names, failed = asked.only.split(","), 0
    print(f"| architecture | dtype | LoRA | {' | '.join(SITES)} | bound | check |")
    print("| --- " * 8 + "|")
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            for line, within in table(name, Path(scratch)):
                failed += not within
                print(line, flush=True)
    print(f"{failed} of them above the bound" if failed else "all within the bound")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
