"""Files in the forms of public sources: each comes out right, or is refused in words."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracekit as tk
import traits
from experiments.benchmarks.fuzz.damage import damaged
from tests.support.file_forms import (
    conversation_forms,
    pair_forms,
    question_forms,
    text_forms,
    vector_forms,
)
from tests.support.file_forms.form import Form

PAGE = (Path(__file__).parents[2] / "docs" / "files_in.md").read_text("utf-8")
PARTS = {
    "Prompts": [*text_forms.FORMS, *conversation_forms.FORMS, *question_forms.FORMS],
    "Contrast pairs": pair_forms.FORMS,
    "Vectors": vector_forms.FORMS,
}
FORMS = [form for forms in PARTS.values() for form in forms]
HEAD = "| source | file | read with | comes out as |\n| --- | --- | --- | --- |\n"


def shown(result: Any) -> Any:
    """What was read, as a form says what it expects."""
    if isinstance(result, list):
        return [
            {"turns": list(p.conversation()), "answer": p.answer, "labels": dict(p.labels)}
            for p in result
        ]
    rows = {int(n): row.tolist() for n, row in zip(result.layer.values, result.values, strict=True)}
    site = tk.provenance(result)["site"] if "provenance" in result.attrs else "residual"
    return rows if site == "residual" else {**rows, "site": site}


def read(form: Form, folder: Path) -> Any:
    return eval(form.read, {"tk": tk, "traits": traits, "path": form.write(folder)})


def refusal(form: Form, path: Path) -> str:
    """In which words a file is refused; none if it is read."""
    try:
        eval(form.read, {"tk": tk, "traits": traits, "path": path})
    except (tk.InputError, FileNotFoundError) as error:
        return str(error)
    return ""


def test_there_are_at_least_forty_of_them():
    assert len(FORMS) >= 60
    assert len({form.source for form in FORMS}) >= 40
    assert len({(form.source, form.file) for form in FORMS}) == len(FORMS)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.source}: {form.file}")
def test_a_file_is_read_right_or_refused_by_name(form, tmp_path):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if form.refused:
            with pytest.raises((tk.InputError, FileNotFoundError), match=form.refused) as refusal:
                read(form, tmp_path)
            assert form.file in str(refusal.value)
            assert "\n" not in str(refusal.value)
            return
        result = shown(read(form, tmp_path))
    words = [str(one.message) for one in said]
    # nothing is guessed without a word, and nothing is said where nothing was
    assert len(words) == bool(form.says)
    assert form.says in "".join(words)
    assert "\n" not in "".join(words)
    if isinstance(result, dict):
        assert result.keys() == form.expected.keys()
        for layer in result.keys() - {"site"}:
            np.testing.assert_array_equal(
                np.float32(result[layer]), np.float32(form.expected[layer])
            )
            assert not np.array_equal(result[layer], np.negative(form.expected[layer]))
    else:
        assert result == form.expected


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "form", [form for form in FORMS if "." in form.file], ids=lambda f: f.source
)
def test_damaged_bytes_are_refused_in_one_line_or_still_read(form, tmp_path):
    rng, path = np.random.default_rng(len(form.source)), form.write(tmp_path)
    original = path.read_bytes()
    for _ in range(8):
        path.write_bytes(damaged(original, rng)[1])
        assert "\n" not in refusal(form, path)


def test_a_form_that_comes_out_otherwise_fails(tmp_path):
    form = next(
        form for form in vector_forms.FORMS if form.source == "TransformerLens, inputs of blocks"
    )
    assert shown(read(form, tmp_path)) != {2: vector_forms.value(2), 3: vector_forms.value(3)}
    alpaca = next(form for form in FORMS if form.source == "Alpaca")
    with pytest.warns(UserWarning, match="is read with"):
        assert shown(read(alpaca, tmp_path))[0]["answer"] != alpaca.expected[1]["answer"]


@pytest.mark.parametrize("part", PARTS)
def test_the_page_has_the_table_of_these_forms(part):
    table = HEAD + "".join(form.row() + "\n" for form in PARTS[part])
    section = PAGE.partition(f"## {part}\n")[2].partition("\n## ")[0]
    assert table in section, f"the page's table of {part} is not that of the forms"


@pytest.mark.filterwarnings("ignore:.*is read with")
def test_every_snippet_of_the_page_runs(tmp_path, monkeypatch, embedded):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tk, "load", lambda name: {"smollm2-135m-instruct": embedded}[name])
    printed: list[Any] = []
    names: dict[str, Any] = {"print": lambda *given: printed.append(given[0])}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(snippet, names)
    assert printed == [
        "Sure, it",
        {"thinking", "assistant"},
        1.0,
        [12],
        ("prompt", "layer", "dim"),
        [10, 11],
    ]


@pytest.mark.parametrize("suffix", [".json", ".pt", ".npz", ".safetensors"])
def test_vectors_are_there_and_back_by_suffix(suffix, tmp_path):
    from tests.support.vector_files import vectors

    several = vectors().sel(extraction="probe", drop=True)
    for array in (several, several.isel(trait=0, drop=True), several.isel(trait=0, layer=2)):
        back = tk.read_vectors(tk.write_vectors(array, tmp_path / f"v{suffix}"))
        whole = array if "layer" in array.dims else array.expand_dims("layer")
        order = [dim for dim in ("trait", "layer", "dim") if dim in whole.dims]
        np.testing.assert_array_equal(back.transpose(*order).values, whole.transpose(*order).values)
        assert not np.array_equal(back.transpose(*order).values, -whole.transpose(*order).values)
        for dim in order:
            assert back[dim].values.tolist() == whole[dim].values.tolist()
    with pytest.raises(ValueError, match="extraction"):
        tk.write_vectors(vectors().isel(layer=[0, 2]), tmp_path / "v.npy")


def test_a_table_and_a_single_layer_are_there_and_back_as_npy_and_gguf(tmp_path):
    from tests.support.vector_files import vector

    one = vector()
    back = tk.read_vectors(tk.write_vectors(one, tmp_path / "v.npy"), first_layer=1)
    np.testing.assert_array_equal(back.values, one.values)
    with pytest.raises(ValueError, match="consecutive layers"):
        tk.write_vectors(one.sel(layer=[1, 3]), tmp_path / "w.npy")
    single = tk.write_vectors(one.sel(layer=3), tmp_path / "v.gguf", model_type="llama")
    back = tk.read_vectors(single)
    assert back.layer.values.tolist() == [3]
    np.testing.assert_array_equal(back.values[0], one.sel(layer=3).values)
    with pytest.raises(tk.InputError, match=r"layers and site itself.*sel\(layer"):
        tk.read_vectors(single, layer=3)


def test_a_model_tells_the_depth_and_refuses_another_models_vectors(tiny_llama, tmp_path):
    table = np.arange(5 * 32, dtype=np.float32).reshape(5, 32)
    np.save(tmp_path / "v.npy", table)
    found = tk.read_vectors(tmp_path / "v.npy", model=tiny_llama)
    assert found.layer.values.tolist() == [-1, 0, 1, 2]
    np.testing.assert_array_equal(found.sel(layer=0), table[1])
    np.save(tmp_path / "w.npy", table[:, :8])
    with pytest.raises(tk.InputError, match=r"4 blocks and 32 dims; its vectors have 8 dims"):
        tk.read_vectors(tmp_path / "w.npy", model=tiny_llama)
    np.save(tmp_path / "x.npy", table[0])
    with pytest.raises(tk.InputError, match="It comes from another model"):
        tk.read_vectors(tmp_path / "x.npy", layer=9, model=tiny_llama)


def test_of_a_bare_text_the_response_is_the_last_token_as_the_page_says(embedded):
    texts, quiet = ["I am glad.", "I am sad today."], {"progress": False}
    raw, asked = tk.encode(embedded, texts, template="raw"), tk.encode(embedded, texts)
    for runs, last in ((raw, [".", "."]), (asked, ["\\n", "\\n"])):
        kept = tk.capture(embedded, runs, 0, **quiet)
        assert kept.token.values.tolist() == [-1]
        assert kept.token_text.values.ravel().tolist() == last
    words = tk.capture(embedded, asked, 0, tokens=tk.find(asked, role="user"), **quiet)
    shown = ["".join(row) for row in words.token_text.values.astype(str)]
    assert [text.strip() for text in shown] == texts
