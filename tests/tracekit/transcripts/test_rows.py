"""Rows of other tools as prompts: which field was taken for what is right, and said."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pandas
import pytest

import datasets
import tracekit as tk
from tracekit.model.embedded import datasets as shipped

ALPACA = {"instruction": "Add up.", "input": "2 and 2", "output": "4", "text": "Add up. 2 and 2: 4"}
# (id, text, messages, group, labels, system, answer) of the shipped files, as they ever were
SHIPPED = {
    ("prompts", "embedded_calibration.json"): "844df675bbc9ad4e",
    ("prompts", "embedded_conduct.json"): "aef2802aaa1ef616",
    ("prompts", "embedded_held_out.json"): "c3d7f1190ac8907b",
    ("prompts", "embedded_opinions.json"): "8701831a2cdde155",
    ("prompts", "general_battery.json"): "beb7ac020c3e212c",
    ("prompts", "neutral_questions.json"): "711b6db377ef4375",
    ("organisms", "zoo", "prompts.json"): "8d24016dcc584027",
}


def hashed(prompts):
    rows = []
    for p in prompts:
        talks = [[list(m) for m in talk] for talk in (p.messages, p.conversation())]
        rows.append([p.id, p.text, talks[0], p.group, p.labels, p.system, p.answer, talks[1]])
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", SHIPPED, ids="/".join)
def test_the_projects_own_files_are_read_as_ever_and_without_a_word(name):
    read = tk.read_prompts(shipped(*name))
    assert hashed(read) == SHIPPED[name]
    assert hashed(read[1:]) != SHIPPED[name]


def test_guesses_are_said_in_one_line():
    with pytest.warns(UserWarning, match="is read with") as said:
        (prompt,) = tk.prompts([ALPACA])
    (line,) = [str(one.message) for one in said]
    words = "read with text='instruction', with 'input', ids numbered, response='output'; labels"
    assert words in line
    assert "my_text (from 'text')" in line
    assert "\n" not in line
    assert prompt.id == "prompts/0"
    assert prompt.messages == (("user", "Add up.\n\n2 and 2"), ("assistant", "4"))
    assert prompt.labels == {"my_text": ALPACA["text"]}


@pytest.mark.filterwarnings("error:.*Name fields")
def test_fields_that_are_named_leave_nothing_to_guess():
    named = {"text": "instruction", "response": False, "labels": ["output"]}
    with pytest.warns(UserWarning, match=r"is read with ids numbered\.$"):
        (prompt,) = tk.prompts([ALPACA], **named)
    assert prompt.text == "Add up."
    assert prompt.answer is None
    assert prompt.labels == {"output": "4"}
    with pytest.raises(tk.InputError, match=r"id='nr'; its fields are 'instruction', 'input'"):
        tk.prompts([ALPACA], id="nr")
    with pytest.raises(tk.InputError, match="give a list of fields"):
        tk.prompts([ALPACA], labels="output")


def test_only_what_was_guessed_is_said_and_advised():
    row = {"prompt": "Add 2 and 2.", "answer": "4", "question": "q/1", "nr": "a", "level": 3}
    with pytest.warns(UserWarning, match="is read with") as said:
        tk.prompts([row], response="answer", group="question")
    words = r"text='prompt', ids numbered; labels: nr, level. Name fields to read it otherwise "
    assert str(said[0].message).endswith(f"is read with {words}(text=, id=, …).")
    named = {"text": "prompt", "response": "answer", "group": "question", "id": "nr"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (prompt,) = tk.prompts([row], **named)
    assert (prompt.id, prompt.answer, prompt.labels) == ("prompts/a", "4", {"level": 3})
    markup = {**row, "prompt": "<|im_start|>user"}
    with pytest.warns(UserWarning, match=r"the rows of 'prompts': the texts hold a chat's own"):
        tk.prompts([markup], **named)


def test_a_warning_points_at_who_reads(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Add up."}\n')
    (tmp_path / "pairs.jsonl").write_text('{"positive": "Yes.", "negative": "No."}\n')
    lines = ["import tracekit as tk, traits", "tk.read_prompts('rows.jsonl')"]
    lines += ["tk.prompts([{'prompt': 'Add up.'}])", "traits.read_pairs('pairs.jsonl')"]
    (tmp_path / "mine.py").write_text("\n".join(lines))
    command = [sys.executable, "mine.py"]
    environment = {**os.environ, "PYTHONPATH": str(Path(tk.__file__).parents[1])}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    places = re.findall(r"mine\.py:(\d): UserWarning: .*is read with", done.stderr)
    assert places == ["2", "3", "4"]


@pytest.mark.filterwarnings("ignore:.*Name fields")
def test_rows_of_a_dataset_a_table_and_a_list_are_the_same(tmp_path):
    rows = [
        {"question": "Is it?", "score": 0.5, "tags": ["a"], "hits": 3},
        {"question": "Is\nit, or?", "score": 1.5, "tags": [], "hits": 4},
    ]
    expected = [(p.id, p.text, p.labels) for p in tk.prompts(rows)]
    assert expected[1] == ("prompts/1", "Is\nit, or?", {"score": 1.5, "tags": [], "hits": 4})
    data = datasets.Dataset.from_list(rows)
    data.to_parquet(tmp_path / "prompts.parquet")
    for given in (data, pandas.DataFrame(rows), iter(rows), rows):
        assert [(p.id, p.text, p.labels) for p in tk.prompts(given)] == expected
    found = tk.read_prompts(tmp_path / "prompts.parquet")
    assert [(p.id, p.text, p.labels) for p in found] == expected
    assert [(p.id, p.text, p.labels) for p in tk.prompts(rows[::-1])] != expected
    with pytest.raises(TypeError, match=r"'train'.*one split"):
        tk.prompts(datasets.DatasetDict(train=data))
    refused = [(tmp_path / "a.json", "read_prompts"), ([], "no rows")]
    refused += [(None, "given a NoneType; .*Give one split"), (3, "given a int; it takes an iter")]
    for given, words in refused:
        with pytest.raises(tk.InputError, match=words):
            tk.prompts(given)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    datasets.Dataset.from_list([{"text": "a"}]).to_parquet(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(tk.InputError, match="pip install pyarrow"):
        tk.read_prompts(tmp_path / "a.parquet")
    monkeypatch.undo()
    (tmp_path / "a.parquet").write_bytes(b"PAR1 damaged PAR1")
    with pytest.raises(tk.InputError, match=r"cannot be read .*Write the parquet file anew"):
        tk.read_prompts(tmp_path / "a.parquet")


@pytest.mark.filterwarnings("ignore:.*Name fields")
def test_columns_of_csv_keep_their_texts_and_get_their_types(tmp_path):
    rows = [["id", "question", "code", "hits", "share", "ok"]]
    rows += [
        ["1", "42", "01", "3", "0.5", "true"],
        ["2", 'say "a",\nb', "None", "", "1e3", "False"],
    ]
    for name, comma in (("a.csv", ","), ("b.csv", ";"), ("c.tsv", "\t")):
        with (tmp_path / name).open("w", newline="", encoding="utf-8-sig") as file:
            csv.writer(file, delimiter=comma).writerows(rows)
        one, two = tk.read_prompts(tmp_path / name)
        assert [one.text, two.text] == ["42", 'say "a",\nb']
        assert one.id == f"{name[0]}/1"
        assert one.labels == {"code": "01", "hits": 3, "share": 0.5, "ok": True}
        assert two.labels == {"code": "None", "share": 1000.0, "ok": False}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text,n\na,b,c\n", r"2 columns, and 3 in row 2.*quotes"),
        ("a.csv", "text,text\na,b\n", "the column 'text' twice"),
        ("a.csv", "text\n", "holds no rows"),
        ("a.csv", 'text\n"a', "is not CSV"),
        ("a.jsonl", '{"text": "a"}\nb\n', "line 2 is 'b'.*one object a line"),
        ("a.jsonl", '{"text": "a", "text": "b"}', "the field 'text' twice"),
        ("a.txt", "one\ntwo\n", r"is a \.txt file;.*Convert it"),
        ("a.json", '{"prompts": ["a"], "questions": ["b"]}', "several lists that may be"),
        (
            "a.json",
            '[{"text": "a", "Best Answer": 1, "Best/Answer": 2}]',
            "both would be the label",
        ),
        ("a.json", '[{"turns": ["a", "b"]}]', "several turns are messages"),
    ],
)
def test_what_cannot_be_told_is_refused_in_words(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(tk.InputError, match=words):
        tk.read_prompts(tmp_path / name)


def test_what_messages_say_beside_their_text_is_said_not_to_be_read():
    talk = [
        {"role": "user", "content": "Hi", "country": "France", "toxic": False, "redacted": True}
    ]
    with pytest.warns(UserWarning, match=r"not read: the messages' country, redacted\."):
        (prompt,) = tk.prompts([{"id": 1, "messages": talk}])
    assert prompt.messages == (("user", "Hi"),)


def test_a_text_that_is_a_rendered_chat_is_said_to_be():
    with pytest.warns(UserWarning, match=r"chat's own markup \('<\|im_start\|>'\).*raw"):
        tk.prompts([{"prompt": "<|im_start|>user\nHi<|im_end|>"}])
