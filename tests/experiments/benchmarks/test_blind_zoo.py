"""The zoo's blind comparison: traits tell what moves along one of them, where it may."""

import numpy as np
import pytest

from experiments.audit.evidence.directions_null import matched, themselves
from experiments.benchmarks.audits.blind_zoo import among, of_directions, table

PROMPTS, LAYERS, DIM, BENIGN = 20, 4, 30, 24
ALLOWED = np.array([1, 2])
NAMES = [f"benign-{n}" for n in range(BENIGN)]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    drawn = np.random.default_rng(1).normal(size=(2, LAYERS, DIM))
    return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)


def lines_of(vectors: np.ndarray, directions: dict[str, np.ndarray]) -> list[str]:
    draw = np.random.default_rng(0)
    moved = {n: draw.normal(size=(PROMPTS, LAYERS, DIM)) for n in (*directions, *NAMES)}
    for name, along in directions.items():
        moved[name] += 4.0 * along
    clean = draw.normal(size=(PROMPTS, LAYERS, DIM))
    traits = of_directions(themselves(vectors), moved, ALLOWED)
    random = of_directions(matched(clean, 2, draw, 99), moved, ALLOWED)
    said = {name: (2, 1) if name == "along" else (0, 0) for name in directions}
    return table({name: traits[name][0] for name in traits}, random, NAMES, said)


def test_a_move_along_a_trait_is_told_by_traits_alone(vectors: np.ndarray) -> None:
    nowhere = np.zeros((LAYERS, DIM))
    outside = np.zeros((LAYERS, DIM))
    outside[3] = vectors[0, 3]  # a layer that is not allowed
    rows = lines_of(vectors, {"along": vectors[0], "outside": outside, "not": nowhere})
    cells = {row.split(" | ")[0].strip("| "): row.split(" | ") for row in rows[2:5]}
    assert float(cells["along"][2]) == 0.04
    assert float(cells["along"][4]) <= 0.02
    assert float(cells["not"][2]) > 0.05
    assert float(cells["outside"][2]) > 0.05
    assert "1 of 3 organisms by the traits" in rows[6]
    assert "a confirmed habit in 1 of 3; found and denied in 1" in rows[7]


def test_a_place_is_among_the_others_of_its_own_draw() -> None:
    others = np.array([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]])
    assert among(np.array([2.5, 2.5]), others).tolist() == [0.5, 1.0]
