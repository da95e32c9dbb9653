"""Prompt files: what is read is whole, and what would be lost is refused by name."""

import json

import pytest

import tracekit as tk
from tracekit.transcripts.prompts import take

ASKED = [{"role": "user", "content": "2+2?"}]


def write(folder, rows, **shared):
    path = folder / "set.json"
    path.write_text(json.dumps({"name": "set", **shared, "prompts": rows}))
    return path


def test_read_prompts_names_labels_and_spreads_a_limit(tmp_path):
    rows = [{"id": n, "text": f"t{n}", "bias_description": "ab"[n % 2]} for n in range(6)]
    prompts = tk.read_prompts(write(tmp_path, rows))
    assert [p.id for p in prompts][:2] == ["set/0", "set/1"]
    assert prompts[1].labels["bias"] == "b"
    kept = tk.read_prompts(tmp_path / "set.json", limit=3)
    assert sorted(p.labels["bias"] for p in kept) == ["a", "a", "b"]
    with pytest.raises(ValueError, match="at least 1"):
        take(prompts, 0)


def test_a_limit_spreads_over_a_label_that_is_a_list(tmp_path):
    rows = [{"id": n, "text": "a", "tags": [n % 2]} for n in range(6)]
    kept = tk.read_prompts(write(tmp_path, rows), limit=2, by="tags")
    assert [p.labels["tags"] for p in kept] == [[0], [1]]


def test_fields_are_labels_whatever_they_are(tmp_path):
    row = {"id": 1, "text": "Hi", "tags": ["a"], "meta": {"b": 1}, "note": "n", "ok": False}
    (prompt,) = tk.read_prompts(
        write(tmp_path, [{**row, "none": None}], source="web", description="d")
    )
    assert prompt.labels == {
        "tags": ["a"],
        "meta": {"b": 1},
        "note": "n",
        "ok": False,
        "source": "web",
    }


@pytest.mark.parametrize("name", ["system", "system_prompt"])
def test_system_prompts_of_rows_and_of_the_set_are_used(tiny_llama, tmp_path, name):
    own = [{"role": "system", "content": "Be long."}, *ASKED]
    rows = [
        {"id": 1, "text": "2+2?"},
        {"id": 2, "text": "2+2?", name: "Be rude."},
        {"id": 3, "messages": own},
        {"id": 4, "messages": ASKED},
        {"id": 5, "text": "2+2?", name: ""},
    ]
    runs = tk.encode(tiny_llama, tk.read_prompts(write(tmp_path, rows, **{name: "Be brief."})))
    for n, system in enumerate(["Be brief.", "Be rude.", "Be long.", "Be brief.", ""]):
        talk = [{"role": "system", "content": system}, *ASKED]
        ids = runs.token_id.values[n]
        assert ids[ids >= 0].tolist() == rendered(tiny_llama, talk)
        assert ids[ids >= 0].tolist() != rendered(tiny_llama, ASKED)


def rendered(model, talk):
    text = model.tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "holds no rows"),
        ([{"id": 1, "words": "a"}], "'id', 'words', of which none.*text='…'"),
        ([7], "Row 0 of .* is '7', not an object"),
        ({"a": 1}, "holds no prompts"),
        ([{"id": 1, "text": ""}], "non-empty text"),
        ([{"id": 1, "text": "a"}, {"id": 1, "text": "b"}], r"set/1 \(2x\)"),
        ([{"id": 1, "text": "a"}, {"id": "1", "text": "b"}], r"set/1 \(2x\)"),
        ([["Hi"]], "not an object"),
        ([{"id": [1], "text": "a"}], r"has the id \[1\]"),
        ([{"id": 1, "text": "a", "group": 1.5}], "has the group 1.5"),
        ([{"id": 1, "text": ["a"]}], r"has the text"),
        ([{"id": 1, "text": "a", "messages": ASKED}], "a text and messages"),
        ([{"id": 1, "text": "a", "tools": "sum"}], "the tools 'sum'; they are a list"),
        ([{"id": 1, "text": "a", "prefill": 4}], "the prefill '4'"),
        ([{"id": 1, "text": "a", "response": 4}], "the response '4'"),
        ([{"id": 1, "text": "a", "tool_calls": [{}]}], "'tool_calls'"),
        ([{"id": 1, "text": "a", "reasoning_content": "b"}], "'reasoning_content'"),
        ([{"id": 1, "text": "a", "system": "b", "system_prompt": "c"}], "one system message"),
        ([{"id": 1, "text": "a", "system": ["b"]}], "one system message"),
        ([{"id": 1, "messages": "Hi"}], "give a list of"),
        ([{"id": 1, "messages": {"role": "user"}}], "give a list of"),
        ([{"id": 1, "messages": ["Hi"]}], "message 0 has the role None"),
        ([{"id": 1, "messages": [{"role": "user"}]}], "the content 'None'"),
        ([{"id": 1, "messages": [{"content": "a"}]}], "the role None"),
        ([{"id": 1, "messages": [{"role": "pad", "content": "a"}]}], "role 'pad'"),
        ([{"id": 1, "messages": [{**ASKED[0], "tool_calls": [1]}]}], "the tool call '1'"),
        ([{"id": 1, "messages": [{**ASKED[0], "images": ["a.png"]}]}], "would be lost"),
        ([{"id": 1, "messages": [*ASKED, ("assistant", "4")], "response": "4"}], "beside. Leave"),
        ([{"id": 1, "messages": [{"role": "user", "content": [{"type": "image"}]}]}], "images"),
        ([{"id": 1, "messages": [{"role": "user", "content": "a\ud83d"}]}], "lone surrogate"),
        ([{"id": 1, "text": "a\ud83d"}], "its text has .* at character 1"),
        ([{"id": "a\ud83d", "text": "a"}], "lone surrogate"),
        ([{"id": "a\0", "text": "a"}], "NUL"),
        ([{"id": 1, "text": "a", "a b": 1}], "label named 'a b'"),
        ([{"id": 1, "text": "a", "a/b": 1}], "label named 'a/b'"),
    ],
)
def test_bad_files_are_refused(tmp_path, rows, words):
    with pytest.raises(ValueError, match=words):
        tk.read_prompts(write(tmp_path, rows))


@pytest.mark.parametrize(
    ("shared", "words"),
    [
        ({"system": "a", "system_prompt": "b"}, "one system message"),
        ({"metadata": {"a": 1}}, "'metadata' beside its prompts"),
        ({"layer": 3}, "label named 'layer'"),
    ],
)
def test_what_a_set_says_of_all_rows_is_not_lost(tmp_path, shared, words):
    with pytest.raises(ValueError, match=words):
        tk.read_prompts(write(tmp_path, [{"id": 1, "text": "a"}], **shared))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PAR1\x15\x86\xff", "is binary"),
        (b'{"id": 1}\n{"id": 2}\n', "'id', of which none is known"),
        (b"statement,label\na,1\n", "is not JSON.*\\.csv"),
        (b"", "is not JSON"),
        (b'[{"id": 1, "text": "a", "text": "b"}]', "the field 'text' twice"),
        (b"7", "holds no prompts"),
    ],
)
def test_other_kinds_of_files_are_refused_in_words(tmp_path, content, words):
    path = tmp_path / "set.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        tk.read_prompts(path)


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "set.json"
    path.write_text(json.dumps([{"id": 1, "text": "é"}]), encoding="utf-8-sig")
    assert tk.read_prompts(path)[0].text == "é"


def test_a_missing_file_names_its_neighbours(tmp_path):
    write(tmp_path, [{"id": 1, "text": "a"}])
    with pytest.raises(FileNotFoundError, match=r"set\.json"):
        tk.read_prompts(tmp_path / "sets.json")


def test_messages_are_pairs_objects_or_single_text_parts():
    part = [{"type": "text", "text": "2+2?"}]
    forms = [ASKED, [("user", "2+2?")], [["user", "2+2?"]], [{"role": "user", "content": part}]]
    forms.append([{**ASKED[0], "tool_calls": None, "name": ""}])
    assert {tk.Prompt("a", messages=form).messages for form in forms} == {(("user", "2+2?"),)}
    assert tk.Prompt("a", messages=[("user", "3+3?")]).messages != (("user", "2+2?"),)
