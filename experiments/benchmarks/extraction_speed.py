"""How long all vectors of the audit take to fit, against scikit-learn's plain fit.

    python -m experiments.benchmarks.extraction_speed

Nine traits x 21 layers x 8,192 dims x 240 traces (120 pairs) of noise with a planted direction,
probe and whitened difference. The plain fit, in 8,192 dims, is timed once in the same run and
compared with one fit here, in time (and in processor time, where others use the machine) and in
direction. The table is saved as CSV.
"""

import argparse
import csv
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from traits import METHODS

RESULTS = Path(__file__).parent / "results"
Sides = tuple[np.ndarray, np.ndarray]


def plain_probe(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """scikit-learn's logistic regression on standardised dims, one layer (pair, dim)."""
    fit = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-6, max_iter=10_000))
    fit.fit(*_rows(positive, negative))
    return fit[1].coef_[0] / fit[0].scale_


def plain_whitened(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """scikit-learn's discriminant with Ledoit-Wolf shrinkage, one layer (pair, dim)."""
    fit = LinearDiscriminantAnalysis("lsqr", shrinkage="auto")
    return fit.fit(*_rows(positive, negative)).coef_[0]


PLAIN: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "probe": plain_probe,
    "whitened": plain_whitened,
}


def planted(generator: np.random.Generator, pairs: int, layers: int, dim: int) -> Sides:
    """Float32 sides (pair, layer, dim), one direction planted at every layer."""
    both = generator.standard_normal((2, pairs, layers, dim), dtype=np.float32)
    both *= np.geomspace(0.1, 30, dim, dtype=np.float32)
    both[0] += generator.standard_normal((layers, dim), dtype=np.float32)
    return both[0], both[1]


def measure(traits: int, pairs: int, layers: int, dim: int, seed: int) -> list[dict[str, object]]:
    """Seconds for all fits of each method, the plain fit's, and the cosine of the two."""
    generator, first = np.random.default_rng(seed), {}
    spent = {name: np.zeros(2) for name in PLAIN}
    for number in tqdm(range(traits), desc="traits", disable=None):
        sides = planted(generator, pairs, layers, dim)
        for name in PLAIN:
            start = _clocks()
            vector = METHODS[name](*sides)
            spent[name] += _clocks() - start
            if number == 0:
                first[name] = vector[0].copy()
        if number == 0:
            layer = sides[0][:, 0].copy(), sides[1][:, 0].copy()
    return [
        {
            "method": name,
            "fits": traits * layers,
            "pairs": pairs,
            "dim": dim,
            "seconds": spent[name][0],
            "cpu_seconds": spent[name][1],
            **_against_plain(name, layer, first[name], spent[name] / (traits * layers)),
        }
        for name in PLAIN
    ]


def _against_plain(
    name: str, layer: Sides, vector: np.ndarray, each: np.ndarray
) -> dict[str, float]:
    start = _clocks()
    plain = PLAIN[name](layer[0].astype(np.float64), layer[1].astype(np.float64))
    seconds = _clocks() - start
    cosine = vector @ plain / np.linalg.norm(vector) / np.linalg.norm(plain)
    return {
        "plain_seconds_each": seconds[0],
        "ratio": seconds[0] / each[0],
        "cpu_ratio": seconds[1] / each[1],
        "1 - cosine": 1 - cosine,
    }


def _clocks() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def _rows(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([positive, negative]), np.repeat([1, 0], [len(positive), len(negative)])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: measures, prints and saves the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("traits", 9), ("pairs", 120), ("layers", 21), ("dim", 8192)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "extraction_speed.csv")
    asked = parser.parse_args(arguments)
    rows = measure(asked.traits, asked.pairs, asked.layers, asked.dim, asked.seed)
    with asked.output.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})
    print(asked.output.read_text())


if __name__ == "__main__":
    main()
