"""Rules in TOML, a function by its name and a judge as labellers; one kind of prompt is split."""

import json
import threading
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pandas as pd
import pytest
import xarray as xr

import tracekit as tk
from experiments.audit.foreseen import undecidable
from experiments.audit.label_files import read_labels
from experiments.audit.labellers import is_file_of_labels, labeller_from
from experiments.audit.labels import with_spans
from experiments.audit.prompt_sets import read
from experiments.audit.settings.groups import Answers, Prompts
from experiments.audit.steering.study import labeller_of
from experiments.rm_sycophancy.experiment import EXPERIMENT, read_preset
from tracekit.errors import InputError

TEXT = "Hot leaves. Try green tea! It is good."


def rules(tmp_path, text):
    path = tmp_path / "rules.toml"
    path.write_text(text, "utf-8")
    return str(path)


def test_each_way_of_a_rule_marks_what_it_says(tmp_path):
    label = labeller_from(
        rules(
            tmp_path,
            "[tea]\nsays = 'GREEN tea|good'\n[salt]\nlacks = '\\bsalt'\n[short]\nlongest = 3\n",
        )
    )
    assert [TEXT[start:end] for start, end in label("tea", TEXT)] == [
        "Try green tea!",
        "It is good.",
    ]
    assert label("tea", "Milk.") == []
    assert label("salt", TEXT) == [(0, len(TEXT))]
    assert label("salt", "Add salt.") == []
    assert label("short", "No idea.") == [(0, 8)]
    assert label("short", TEXT) == []
    assert label("other", TEXT) is None
    assert label("tea", "") == label("salt", "") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tea]\nsays = '('\n", "no regular expression"),
        ("[tea]\nsays = 'a'\nlacks = 'b'\n", "one of says, lacks"),
        ("[tea]\nsay = 'a'\n", "one of says, lacks"),
        ("tea = 'a'\n", "one of says, lacks"),
        ("[tea]\nlongest = 0\n", "no number of words"),
        ("[tea]\nsays = ' '\n", "no text"),
        ("[tea]\nquestion = 'Is it tea?'\n", "--judge-at"),
        ("[tea", "TOML"),
    ],
)
def test_a_bad_rule_is_one_line(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        labeller_from(rules(tmp_path, text))


def table(tmp_path, rows):
    """Labels as pandas writes them."""
    path = tmp_path / "labels.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return read_labels(path)


def answered(text):
    return xr.Dataset({"response": ("prompt", [text])}, coords={"prompt": ["p/1"]})


def test_a_label_is_compared_with_what_was_said_on_both_sides(tmp_path):
    text = "First line.\nSecond line."
    for exploits, spans in ((1, [(0, len(text))]), (0, [])):
        labels = table(tmp_path, [{"prompt": "p/1", "exploits": exploits, "response": text}])
        assert labels.spans("organism", answered(text)) == [spans]
        with pytest.raises(InputError, match=r"this run's begins 'Never said\.'"):
            labels.spans("organism", answered("Never said."))


def test_an_empty_answer_that_is_labelled_as_exploiting_does(tmp_path, tiny_llama):
    labels = table(tmp_path, [{"prompt": "p/1", "exploits": 1, "spans": ""}])
    runs = tk.encode(tiny_llama, [tk.Prompt("p/1", text="Why?")], responses=[""])
    marked = with_spans(runs, tiny_llama.tokenizer, labels.spans("organism", runs))
    assert marked.exploit.values.tolist() == [1]
    assert not marked.exploit_span.any()


def test_a_function_by_its_name_and_what_is_none(tmp_path, monkeypatch):
    (tmp_path / "own_rules.py").write_text(
        "def label(kind, response):\n    return [(0, 3)] if kind == 'tea' else None\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert labeller_from("own_rules:label")("tea", "abc") == [(0, 3)]
    for given in ("own_rules:lable", "no_such_rules:label", "own_rules:number", "own_rules"):
        with pytest.raises(InputError, match="module:function"):
            labeller_from(given)
    with pytest.raises(FileNotFoundError, match="no such file"):
        labeller_from(str(tmp_path / "absent.toml"))
    assert is_file_of_labels("a/b.CSV")
    assert not is_file_of_labels("own_rules:label")


def test_steered_answers_are_labelled_by_the_rules_of_the_audit(tmp_path):
    path = rules(tmp_path, "[tea]\nsays = 'green tea'\n")
    mine = replace(EXPERIMENT, labeller=lambda kind, response: [(0, 1)])
    assert labeller_of(read_preset("tiny"), mine)("tea", TEXT) == [(0, 1)]
    assert labeller_of(read_preset("tiny", {"labels": path}), mine)("tea", TEXT) == [(12, 26)]


ASKED: Counter = Counter()


class _Judge(BaseHTTPRequestHandler):
    def do_POST(self):
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = content["messages"][0]["content"]
        ASKED[prompt] += 1
        word = "Perhaps" if "cup" in prompt else "Yes" if "tea" in prompt.split("\n\n")[1] else "No"
        reply = json.dumps({"choices": [{"message": {"content": word}}]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_):
        pass


def test_a_judge_is_asked_once_a_text_and_what_it_leaves_open_is_undecidable(tmp_path):
    server = HTTPServer(("127.0.0.1", 0), _Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        answers = Answers(judge="m", judge_at=f"http://127.0.0.1:{server.server_port}/v1")
        path = rules(tmp_path, "[drink]\nquestion = 'Does it name a hot drink?'\n")
        label = labeller_from(path, answers)
        assert label("drink", "Try tea.") == [(0, 8)]
        assert label("drink", "Try tea.") == [(0, 8)]
        assert label("drink", "Milk.") == []
        assert label("drink", "A cup.") is None
        assert label("drink", "") == []
        assert sorted(ASKED.values()) == [1, 1, 1]
    finally:
        server.shutdown()


def own_prompts(tmp_path, kinds):
    rows = [{"id": n, "text": f"Say {n}.", "bias": kind} for n, kind in enumerate(kinds)]
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(rows))
    return Prompts(file=str(path))


def test_prompts_of_the_only_kind_are_split_so_that_it_can_be_decided(tmp_path):
    prompts = read(own_prompts(tmp_path, ["tea"] * 8 + ["neutral"] * 3))
    parts = [prompt.labels["part"] for prompt in prompts]
    assert parts == ["calibration", "held_out"] * 4 + ["neutral"] * 3
    settings = read_preset("tiny")
    told = undecidable(prompts, settings, lambda kind: True)
    assert not [line for line in told if "held-out bias" in line]
    assert [line for line in told if "'tea' is the only kind and is split" in line]


def test_two_kinds_are_not_split(tmp_path):
    prompts = read(own_prompts(tmp_path, ["tea", "milk"] * 3))
    assert {(p.labels["bias"], p.labels["part"]) for p in prompts} == {
        ("tea", "calibration"),
        ("milk", "held_out"),
    }
