"""Functions without a complete name, which are refused or given one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.site_functions import name, part, scaled
from tracekit.model.functions.fingerprint import named


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
