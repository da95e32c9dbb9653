"""Names of functions: complete (source and bound values), the same in every process, or refused."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk
from tracekit.functions import named
from tracekit.provenance import read

SCALE, TABLE = 2.0, {"keys": [1, 2], "values": (None, "x")}


def name(value: Any) -> str:
    return named("site", value)[0]


def part(block: Any, factor: float = 1.0, *, shift: float = 0.0) -> Any:
    """Reads the MLP."""
    return block.mlp.output * factor + shift


def scaled(factor: Any) -> Callable[[Any], Any]:
    return lambda block: block.mlp.output * factor


def by_global(block: Any) -> Any:
    return block.mlp.output * SCALE + len(TABLE)


def helper(value: Any) -> Any:
    return value * SCALE


def by_helper(block: Any) -> Any:
    return helper(block.mlp.output)


def countdown(value: Any, left: int = 2) -> Any:
    return value if left == 0 else countdown(value, left - 1)


def times(factor: float) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def inner(block: Any) -> Any:
            return function(block) * factor

        return inner

    return decorate


@times(2.0)
def doubled(block: Any) -> Any:
    return block.mlp.output


@times(3.0)
def tripled(block: Any) -> Any:
    return block.mlp.output


tripled.__name__ = "doubled"


@dataclass
class Probe:
    direction: np.ndarray
    sign: int = 1
    offset = 0.5

    def __call__(self, block: Any) -> Any:
        return self.read(block) * self.sign

    def read(self, block: Any) -> Any:
        return block.mlp.output @ torch.as_tensor(self.direction) + self.offset


class Slotted:
    __slots__ = ("factor",)

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def read(self, block: Any) -> Any:
        return block.mlp.output * self.factor


def two_defaults() -> list[Any]:
    return [lambda block, k=k: block.mlp.output * k for k in (1, 2)]


def one_line() -> list[Any]:
    return [lambda b: b.mlp.output, lambda b: b.attn.output]


def default(value: float) -> Any:
    def site(block: Any, *, k: float = value) -> Any:
        return block.mlp.output * k

    return site


DIFFERENT = {
    "closure": (lambda: scaled(1.0), lambda: scaled(2.0)),
    "a number's type": (lambda: scaled(1), lambda: scaled(True)),
    "an array": (lambda: scaled(np.ones(3)), lambda: scaled(np.array([1, 1, 1.001]))),
    "a tensor": (lambda: scaled(torch.ones(3)), lambda: scaled(torch.ones(3, 1))),
    "labels": (
        lambda: scaled(xr.DataArray([1.0], dims="dim")),
        lambda: scaled(xr.DataArray([1.0], dims="dim", coords={"layer": 3})),
    ),
    "nested": (lambda: scaled({"a": [1, (2, {3})]}), lambda: scaled({"a": [1, (2, {4})]})),
    "a function in a closure": (lambda: scaled(scaled(1)), lambda: scaled(scaled(2))),
    "defaults": (lambda: two_defaults()[0], lambda: two_defaults()[1]),
    "keyword defaults": (lambda: default(1.0), lambda: default(2.0)),
    "partials": (lambda: functools.partial(part, factor=1.0), lambda: functools.partial(part)),
    "arguments": (lambda: functools.partial(part, 1), lambda: functools.partial(part, 2)),
    "objects": (lambda: Probe(np.ones(2)), lambda: Probe(np.ones(2), sign=-1)),
    "arrays of objects": (lambda: Probe(np.ones(2)), lambda: Probe(np.zeros(2))),
    "bound methods": (lambda: Slotted(1.0).read, lambda: Slotted(2.0).read),
    "decorators": (lambda: doubled, lambda: tripled),
    "modules": (
        lambda: scaled(torch.nn.Linear(2, 2, bias=False)),
        lambda: scaled(torch.nn.Linear(2, 2, bias=False)),
    ),
    "code": (lambda: lambda b: b.attn.q_proj.output, lambda: lambda b: b.attn.k_proj.output),
    "one line": (lambda: one_line()[0], lambda: one_line()[1]),
    "library": (lambda: torch.amax, lambda: torch.amin),
    "library methods": (lambda: torch.Tensor.mean, lambda: torch.Tensor.sum),
}  # fmt: skip


@pytest.mark.parametrize("kind", DIFFERENT)
def test_what_computes_something_else_has_another_name(kind: str) -> None:
    one, other = (make() for make in DIFFERENT[kind])
    assert name(one) != name(other)
    assert name(one) == name(one)


def test_what_computes_the_same_has_the_same_name() -> None:
    for make, _ in DIFFERENT.values():
        if make is not DIFFERENT["modules"][0]:
            assert name(make()) == name(make())
    spaced = lambda block: (
        block.mlp.output  # a comment
    )
    assert name(spaced) == name(lambda block: block.mlp.output)


def test_globals_count_and_those_of_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [name(by_global), name(by_helper), name(part), name(countdown)]
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    after = [name(by_global), name(by_helper), name(part), name(countdown)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True, True]
    monkeypatch.setitem(TABLE, "keys", [1])
    assert name(by_global) != after[0]
    monkeypatch.setattr(Probe, "offset", 1.5)
    assert name(Probe(np.ones(2))) != name_of_first_probe()


def name_of_first_probe() -> str:
    before, Probe.offset = Probe.offset, 0.5
    try:
        return name(Probe(np.ones(2)))
    finally:
        Probe.offset = before


SCRIPT = '''
import functools, sys
import numpy as np, torch
import maths
from maths import shift
sys.path.insert(0, {root!r})

class Reader:
    def __init__(self, factor):
        self.factor, self.kinds = factor, {{"b", "a", "c"}}
    def __call__(self, block):
        return block.mlp.output * self.factor

def outer(direction):
    def site(block, *, scale=2.0):
        """Text."""
        return shift(block.mlp.output @ direction) * scale + maths.OFFSET
    return site

from tracekit.functions import named
sites = [
    outer(torch.arange(3.0)), Reader(np.arange(2)), functools.partial(outer, 3),
    Reader(1).__call__, lambda block: torch.nn.functional.relu(block.mlp.output),
]
print(" ".join(named("site", site)[0] for site in sites))
maths.OFFSET = 5
print(" ".join(named("site", site)[0] for site in sites))
'''
MATHS = "OFFSET, UNREAD = 1, 2\ndef shift(x):\n    return x + OFFSET\n"


def _names(folder: Path, maths: str, seed: str, script: str = SCRIPT) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / "maths.py").write_text(maths)
    root = str(Path(tk.__file__).parent.parent)
    (folder / "run.py").write_text(script.format(root=root))
    command = [sys.executable, "run.py"]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_names_are_the_same_in_every_process_and_folder(tmp_path: Path) -> None:
    first = _names(tmp_path / "a", MATHS, "1")
    spaced = MATHS.replace("return", "# why\n    return").replace("UNREAD = 1, 2", "UNREAD = 1, 3")
    assert _names(tmp_path / "b", "\n\n" + spaced, "2", "\n" + SCRIPT) == first
    before, after = first[:5], first[5:]
    assert len(set(before)) == 5
    # the first and the third read maths.OFFSET
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, False, True, True]


# these hold on every Python version: neither bytecode nor a version's own tree is in them
GOLDEN = {
    "scaled": (lambda: scaled(2.0), "<lambda>:2d1c4cf609996e98"),
    "part": (lambda: part, "part:e4c42f822102d94a"),
    "Probe": (lambda: Probe(np.arange(2.0)), "Probe:aac67f6b8ea333d4"),
    "partial": (lambda: functools.partial(part, factor=2), "part:7f100eb6357170a6"),
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_names_are_those_of_other_python_versions(kind: str) -> None:
    make, expected = GOLDEN[kind]
    assert name(make()) == expected


class Stateful:
    def __init__(self) -> None:
        self.random = np.random.default_rng(0)

    def __call__(self, block: Any) -> Any:
        return block.mlp.output


def imports_own(block: Any) -> Any:
    import tests_helper  # type: ignore[import-not-found]

    return tests_helper.read(block)


UNREADABLE = {
    "no source": (lambda: eval("lambda block: block.mlp.output"), "no source to read"),
    "a generator": (lambda: scaled(np.random.default_rng(0)), r"factor' holds a numpy.*Generator"),
    "an object's state": (Stateful, r"random' holds a numpy.*Generator"),
    "an import inside": (lambda: imports_own, "imports 'tests_helper' where it runs"),
    "an object": (lambda: scaled(object()), r"factor' holds a builtins\.object"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_has_no_complete_name_is_asked_for_one(kind: str) -> None:
    make, words = UNREADABLE[kind]
    function = make()
    with pytest.raises(ValueError, match=rf"{words}.*site=\(\"name\", function\)"):
        name(function)
    assert named("site", ("mine", function)) == ("mine", function)


def test_source_that_was_edited_since_it_was_loaded_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "edited.py"
    file.write_text("def site(block):\n    return block.mlp.output\n")
    space: dict[str, Any] = {}
    exec(compile(file.read_text(), str(file), "exec"), space)
    before = name(space["site"])
    file.write_text("# a line above\n\n" + file.read_text())
    assert name(space["site"]) == before
    file.write_text("def site(block):\n    return block.mlp.output * 2\n")
    with pytest.raises(ValueError, match="edited since it was loaded"):
        name(space["site"])


@pytest.mark.parametrize(
    "pair", [("residual", part), ("a b", part), ("", part), ("a",), (part, "a")]
)
def test_a_pair_is_a_word_and_a_function(pair: Any) -> None:
    with pytest.raises(ValueError, match="a pair is a name and a function"):
        named("site", pair, ("residual", "mlp"))


@pytest.fixture(scope="module")
def runs(tiny_llama: Any) -> xr.Dataset:
    return tk.encode(tiny_llama, ["Where?", "A longer one"], [" Here.", " It is so."])


def test_sites_of_two_closures_are_not_compared_nor_mixed(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path
) -> None:
    quiet = {"layers": [1], "progress": False}
    one, other = (tk.capture(tiny_llama, runs, site=scaled(k), **quiet) for k in (1.0, 2.0))
    np.testing.assert_allclose(other, 2 * one)
    with pytest.raises(ValueError, match="differ in site"):
        tk.difference(one, other)
    tk.difference(one, tk.capture(tiny_llama, runs, site=scaled(1.0), **quiet))
    path = tmp_path / "x"
    tk.capture(tiny_llama, runs, site=scaled(1.0), path=path, **quiet)
    with pytest.raises(ValueError, match=r"other settings \(site: '<lambda>:"):
        tk.capture(tiny_llama, runs, site=scaled(2.0), path=path, **quiet)
    with pytest.raises(ValueError, match="other settings"):
        tk.capture(tiny_llama, runs, reduce=lambda x: x.amax(0), path=path, **quiet)


def test_a_name_of_ones_own_is_recorded(tiny_llama: Any, runs: xr.Dataset, tmp_path: Path) -> None:
    quiet = {"layers": [1], "progress": False}
    site, reduce = ("twice", scaled(2.0)), ("largest", lambda x: x.amax(0))
    traces = tk.capture(tiny_llama, runs, site=site, reduce=reduce, path=tmp_path / "x", **quiet)
    made = read(traces)
    assert (made["site"], made["reduce"], traces.name) == ("twice", "largest", "twice")
    plain = tk.capture(tiny_llama, runs, site="mlp", tokens=slice(0, None), **quiet)
    np.testing.assert_allclose(
        traces.sel(prompt=plain.prompt), 2 * plain.max("token"), rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ValueError, match=r"other than .* role"):
        tk.capture(tiny_llama, runs, site=("role", scaled(2.0)), **quiet)

    def token(block: Any) -> Any:
        return block.mlp.output

    assert tk.capture(tiny_llama, runs, site=token, **quiet).name == "value"
