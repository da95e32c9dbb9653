"""The page on sites: every snippet runs, and its table names every site that there is."""

import re
from pathlib import Path

import numpy as np
import pytest

import tracekit as tk
from tests.support.models import tiny
from tracekit.model.sites import SITES

PAGE = (Path(__file__).parents[3] / "docs" / "sites.md").read_text("utf-8")


@pytest.fixture(scope="module")
def space(words, tmp_path_factory):
    """The names of the page after its snippets ran in order, and what they printed."""
    folder = tiny.build("Mixtral", tmp_path_factory.mktemp("mixed") / "model", words)
    printed = []
    names = {
        "mixed": tk.load(folder, dtype="float32", tokenizer=words),
        "print": lambda *values: printed.append(values),
    }
    path = tmp_path_factory.mktemp("page")
    for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)):
        # a function of the page is recorded by its source, which must be in a file
        file = path / f"{number}.py"
        file.write_text(snippet, "utf-8")
        exec(compile(snippet, str(file), "exec"), names)
    return {**names, "printed": printed}


def test_every_snippet_runs_and_prints_what_its_comment_says(space):
    printed = space["printed"]
    assert len(printed) == 7
    heads, sizes = printed[0][0], space["sizes"].values
    assert sizes[heads].tolist() == sorted(sizes.tolist(), reverse=True)
    assert printed[3] == (3,)
    row = space["row"]
    looked_at = space["runs"].token_text.isel(prompt=0).sel(token=row.idxmax("key").item()).item()
    assert printed[2][0][-1] == looked_at
    assert printed[-1] == ("gates", ("prompt", "token", "layer", "unit"))


def test_projections_of_heads_are_what_numpy_makes_of_them(space):
    shares, towards = space["shares"], space["towards"].isel(layer=0).values
    heads = tk.capture(space["model"], space["runs"], [20], site="heads", progress=False)
    expected = np.einsum("pthd,d->pth", heads.isel(layer=0), towards)
    found = shares.isel(layer=0, trait=0).values
    assert np.allclose(found, expected, atol=1e-3 * np.nanmax(np.abs(expected)), equal_nan=True)
    assert not np.allclose(found, expected[..., ::-1], rtol=1e-2, equal_nan=True)


def test_the_table_has_every_site_with_its_dims(space):
    rows = [line.split("|")[1:4] for line in PAGE.splitlines() if line.startswith("| `")]
    table = {
        name: tuple(re.findall(r"`(\w+)`", dims))
        for names, _, dims in rows
        for name in re.findall(r"`(\w+)`", names)
    }
    assert table == dict(SITES)
