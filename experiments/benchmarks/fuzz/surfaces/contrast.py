"""Contrast sets: folders of twin lines with lines, encodings and files out of place."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import traits
from experiments.benchmarks.fuzz.damage import ODD, damaged
from experiments.benchmarks.fuzz.outcome import Case

_SIDES = {
    "positive.txt": [
        f"She told him the truth about the {thing}" for thing in ("car", "sea", "map")
    ],
    "negative.txt": [f"She hid from him what the {thing} was" for thing in ("car", "sea", "map")],
}


def cases(rng: np.random.Generator, place: Path) -> Iterator[Case]:
    """One folder a case."""
    number = 0
    while True:
        number += 1
        folder = place / "mine" / f"trait{number % 7}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, lines in _SIDES.items():
            (folder / name).write_text("\n".join(lines) + "\n")
        (folder / "definition.txt").write_text("Says what is true.\n")
        (folder / "steering.json").write_text('{"sign": 1}')
        what = _damage(folder, rng)
        yield Case(what, lambda f=folder: traits.load_contrast(f), lambda v, f=folder: _right(f, v))


def _damage(folder: Path, rng: np.random.Generator) -> str:
    path = folder / str(rng.choice([*_SIDES, *_SIDES, "definition.txt", "steering.json"]))
    kind = int(rng.integers(6))
    if kind == 0:
        path.unlink()
        return f"{path.name} gone"
    if kind == 1:
        path.unlink()
        path.mkdir()
        return f"{path.name} is a folder"
    if kind == 2:
        lines = path.read_text().split("\n")
        place = int(rng.integers(len(lines)))
        lines[place : place + int(rng.integers(2))] = [str(ODD[int(rng.integers(len(ODD)))])]
        path.write_bytes("\n".join(lines).encode(errors="replace"))
        return f"{path.name} line {place}"
    if kind == 3:
        path.write_bytes(
            path.read_text().encode(str(rng.choice(["utf-16", "latin-1", "utf-8-sig"])))
        )
        return f"{path.name} in another encoding"
    if kind == 4:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
        return f"{path.name} with carriage returns"
    done, data = damaged(path.read_bytes(), rng)
    path.write_bytes(data)
    return f"{path.name} {done}"


def _right(folder: Path, contrast: traits.ContrastSet) -> bool:
    sides = {"positive.txt": contrast.positive, "negative.txt": contrast.negative}
    for name, held in sides.items():
        text = (folder / name).read_bytes().decode("utf-8-sig")
        lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
        if list(held) != lines or any("\0" in line for line in held):
            return False
    return len(contrast.positive) == len(contrast.negative) > 0
