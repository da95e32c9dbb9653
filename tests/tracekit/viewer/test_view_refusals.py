"""What a view refuses, in words that say what to give; and selections of tokens, which it shows."""

import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from tests.tracekit.viewer.test_view import array


def test_a_selection_of_find_is_shown_over_its_tokens(tiny_llama: object) -> None:
    runs = tk.encode(tiny_llama, ["I am glad.", "I am sad today."], ["Yes.", "No."])
    selection = tk.find(runs, "am")
    view = tk.view(selection)
    rows = [row["words"]["tokens"] for row in view._rows(None)]
    texts = runs.token_text.values.astype(str)
    assert rows == [[text for text in row if text] for row in texts]
    assert view.data["middle"] == [0.0]
    assert tk.view(selection, centre=0.5).data["middle"] == [0.5]
    assert tk.view(runs.token_id.notnull().astype(float)).data["middle"] != [0.0]
    without = selection.drop_vars("token_text")
    with pytest.raises(tk.InputError, match=r"assign_coords\(token_text=runs\.token_text\)"):
        tk.view(without)
    assert tk.view(without.assign_coords(token_text=runs.token_text)).data == view.data


def test_transcripts_are_told_what_to_give(tiny_llama: object) -> None:
    runs = tk.encode(tiny_llama, ["I am glad."])
    with pytest.raises(tk.InputError, match=r"Dataset of token_id.*tk\.logprobs\(model, runs\)"):
        tk.view(runs)


def _no_text() -> object:
    return tk.view(array().drop_vars("token_text"))


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "no text": (_no_text, "without token_text"),
    "no token dim": (lambda: tk.view(array().isel(token=0)), "it shows"),
    "text values": (lambda: tk.view(array().astype(str)), "colours numbers"),
    "no array": (lambda: tk.view({}), "no array"),
    "other layers": (
        lambda: tk.view({"a": array(), "b": array().isel(layer=[0])}),
        "same dims and labels",
    ),
    "start": (lambda: tk.view(array(), start={"layer": 4}), r"layer=4; the array has 3, 7, 12"),
    "start dim": (lambda: tk.view(array(), start={"lyer": 3}), "the dims layer, trait"),
    "marked name": (lambda: tk.view(array(), marked="spans"), "coordinates are"),
    "marked dims": (lambda: tk.view(array(), marked=array().token_text), "true or false"),
    "chosen": (
        lambda: tk.view(array(), chosen=xr.DataArray([3], dims="trait", name="lair")),
        "named as another",
    ),
}


@pytest.mark.parametrize("name", ["x.pdf", "x.nc"])
def test_a_page_has_the_name_of_a_page(name: str, tmp_path: Path) -> None:
    with pytest.raises(tk.InputError, match=rf"{name}', .*ends in \.html"):
        tk.view(array(), tmp_path / name)
    assert [tk.view(array()).save(tmp_path / n).name for n in ("x", "x.HTM")] == ["x", "x.HTM"]


def test_what_is_no_labelled_array_is_refused() -> None:
    for wrong in (np.ones((2, 3)), {"a": np.ones((2, 3))}, [array()]):
        with pytest.raises(tk.InputError, match=r"view was given (ndarray|list); .*Give a DataArr"):
            inspect.unwrap(tk.view)(wrong)


def test_options_of_another_kind_are_refused() -> None:
    for wrong, words in (
        ({"centre": "a"}, r"centre='a' was given.*Give a number"),
        ({"centre": float("nan")}, "centre=nan"),
        ({"captions": ["a"]}, r"captions=\['a'\] was given\. Give a dict of text by prompt id"),
        ({"start": ["layer"]}, r"start=\['layer'\] was given\. Give a dict"),
    ):
        with pytest.raises(tk.InputError, match=words):
            inspect.unwrap(tk.view)(array(), **wrong)


def test_the_folder_of_a_page_is_made(tmp_path: Path) -> None:
    tk.view(array(), tmp_path / "a" / "b" / "x.html")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["x.html"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_shown_is_refused(name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(tk.InputError, match=words):
        make()
