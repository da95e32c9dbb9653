"""Contrast pairs in the forms of other projects: sides, groups and labels are right, or refused."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import tracekit as tk
import traits

AB = {
    "question": "I think it is round. Is it?\n(A) Yes\n(B) No",
    "answer_matching_behavior": " (A)",
    "answer_not_matching_behavior": " (B)",
}
TALK = "\n\nHuman: Is it?\n\nAssistant: Which?\n\nHuman: This.\n\nAssistant: {}"


def written(folder, name, content):
    path = folder / name
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, "utf-8")
    return path


def shown(prompts):
    return [(p.id, p.group, p.labels["label"], p.messages or p.text) for p in prompts]


@pytest.mark.filterwarnings("ignore:.*is read with")
@pytest.mark.parametrize(
    ("row", "positive", "negative"),
    [
        (
            AB,
            (("user", AB["question"]), ("assistant", "(A)")),
            (("user", AB["question"]), ("assistant", "(B)")),
        ),
        ({"positive": "I did.", "negative": "I lied."}, "I did.", "I lied."),
        (
            {"prompt": "Is it?", "chosen": "Yes", "rejected": "No"},
            (("user", "Is it?"), ("assistant", "Yes")),
            (("user", "Is it?"), ("assistant", "No")),
        ),
        (
            {s: TALK.format(s) for s in ("chosen", "rejected")},
            (
                ("user", "Is it?"),
                ("assistant", "Which?"),
                ("user", "This."),
                ("assistant", "chosen"),
            ),
            (
                ("user", "Is it?"),
                ("assistant", "Which?"),
                ("user", "This."),
                ("assistant", "rejected"),
            ),
        ),
        (
            {
                s: [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": s}]
                for s in ("chosen", "rejected")
            },
            (("user", "Hi"), ("assistant", "chosen")),
            (("user", "Hi"), ("assistant", "rejected")),
        ),
    ],
)
def test_rows_of_two_sides_are_twins(tmp_path, row, positive, negative):
    path = written(tmp_path, "mine.json", [{**row, "kind": "a"}])
    prompts = traits.read_pairs(path, name="alignment/mine")
    assert shown(prompts) == [
        ("alignment/mine/positive/0", "alignment/mine/0", 1, positive),
        ("alignment/mine/negative/0", "alignment/mine/0", 0, negative),
    ]
    assert [p.labels["kind"] for p in prompts] == ["a", "a"]
    assert shown(prompts[::-1]) != shown(prompts)


ASKED = {"role": "user", "content": "Is it?"}


@pytest.mark.filterwarnings("ignore:.*is read with")
@pytest.mark.parametrize(
    "asked", ["Is it?", [ASKED], "\n\nHuman: Is it?\n\nAssistant:", json.dumps([ASKED])]
)
@pytest.mark.parametrize(
    "said",
    [
        "{}",
        [{"role": "assistant", "content": "{}"}],
        "\n\nAssistant: {}",
        "\n\nHuman: Is it?\n\nAssistant: {}",
        [ASKED, {"role": "assistant", "content": "{}"}],
    ],
)
def test_what_is_asked_and_what_is_said_are_one_conversation(tmp_path, asked, said):
    row = {"prompt": asked, "rejected": "No"}
    row["chosen"] = json.loads(json.dumps(said).replace("{}", "Yes"))
    positive, negative = traits.read_pairs(written(tmp_path, "a.json", [row]))
    assert positive.messages == (("user", "Is it?"), ("assistant", "Yes"))
    assert negative.messages == (("user", "Is it?"), ("assistant", "No"))


@pytest.mark.filterwarnings("ignore:.*is read with")
@pytest.mark.parametrize("answer", ["completion", "response"])
def test_answers_with_a_label_are_conversations_without_twins(tmp_path, answer):
    said = [{"role": "assistant", "content": "No"}]
    rows = [
        {"prompt": "Is it?", answer: "Yes", "label": True, "kind": "a"},
        {"prompt": [ASKED], answer: said, "label": False, "kind": "b"},
    ]
    path = written(tmp_path, "kto.json", rows)
    prompts = traits.read_pairs(path)
    assert shown(prompts) == [
        ("kto/0", "kto/0", 1, (("user", "Is it?"), ("assistant", "Yes"))),
        ("kto/1", "kto/1", 0, (("user", "Is it?"), ("assistant", "No"))),
    ]
    assert [one.labels["kind"] for one in prompts] == ["a", "b"]
    named = traits.read_pairs(path, asked="prompt", text=answer, label="label")
    assert shown(named) == shown(prompts)


@pytest.mark.filterwarnings("ignore:.*is read with")
def test_statements_of_one_group_of_the_file_are_twins(tmp_path):
    text = "statement,label,Group\nIt is in Rome.,1,paris/a\nIt is in Oslo.,0,paris/a\nNo.,0,2\n"
    prompts = traits.read_pairs(written(tmp_path, "st.csv", text))
    assert [one.group for one in prompts] == ["st/paris/a", "st/paris/a", "st/2"]
    assert [one.id for one in prompts] == ["st/0", "st/1", "st/2"]
    assert [{*one.labels} for one in prompts] == [{"label"}] * 3
    with pytest.warns(UserWarning, match="is read with") as said:
        traits.read_pairs(written(tmp_path, "st.csv", text))
    assert "without twins" not in str(said[0].message)
    with pytest.raises(tk.InputError, match=r"'Group', .* 1 of 3 rows have none \(first: row 2"):
        traits.read_pairs(written(tmp_path, "st.csv", text.replace(",2\n", ",\n")))
    twins = [{"positive": "Yes.", "negative": "No.", "group": "g"}]
    (one, other) = traits.read_pairs(written(tmp_path, "tw.json", twins))
    assert one.group == other.group == "tw/0"
    assert one.labels["my_group"] == "g"


@pytest.mark.filterwarnings("ignore:.*is read with")
@pytest.mark.parametrize("name", ["system", "system_prompt"])
def test_system_messages_of_rows_and_of_the_file_are_used(tmp_path, name):
    rows = [
        {"question": "Is it?", "chosen": "Yes", "rejected": "No", name: "Be brief."},
        {"question": "Is it?", "chosen": "Yes", "rejected": "No", name: ""},
    ]
    path = written(tmp_path, "a.json", {name: "Be kind.", "pairs": rows})
    prompts = traits.read_pairs(path)
    assert [p.system for p in prompts] == ["Be brief.", "Be kind."] * 2
    assert {*prompts[0].labels} == {"label"}
    two = {"positive": "I did.", "negative": "I lied.", "sort": 1}
    path = written(tmp_path, "b.json", {"version": 2, "pairs": [two]})
    with pytest.warns(UserWarning, match=r"labels: sort; not read: version\. Name fields"):
        traits.read_pairs(path)


def test_instructions_are_system_messages_of_every_question(tmp_path):
    content = {
        "instruction": [{"pos": "Be sly.", "neg": "Be plain."}, {"pos": "Lie.", "neg": "Tell."}],
        "questions": ["Who?", "Why?"],
        "eval_prompt": "Judge {answer}.",
    }
    with pytest.warns(UserWarning, match=r"2 instructions × 2 questions; not read: eval_prompt"):
        prompts = traits.read_pairs(written(tmp_path, "sly.json", content))
    assert len(prompts) == 8
    one = prompts[3]
    assert (one.id, one.group, one.text, one.system) == (
        "sly/positive/1-1",
        "sly/1-1",
        "Why?",
        "Lie.",
    )
    assert [p.system for p in prompts if p.group == "sly/0-1"] == ["Be sly.", "Be plain."]
    with pytest.raises(tk.InputError, match="instructions and questions of another form"):
        traits.read_pairs(written(tmp_path, "b.json", {**content, "instruction": ["Be sly."]}))


def test_texts_are_twins_line_by_line(tmp_path):
    written(tmp_path, "positive.txt", "Act\\nglad\nGo\n")
    written(tmp_path, "negative.txt", "Act sad\nStay\n")
    prompts = traits.read_pairs(tmp_path, name="mood")
    assert [p.text for p in prompts] == ["Act\nglad", "Go", "Act sad", "Stay"]
    two = traits.read_pairs(tmp_path / "positive.txt", tmp_path / "negative.txt", name="mood")
    assert shown(two) == shown(prompts)
    with pytest.raises(FileNotFoundError, match="twin of the other"):
        traits.read_pairs(tmp_path / "positive.txt", tmp_path / "none.txt")


def test_statements_without_twins_make_the_vector_that_plain_numpy_makes(tmp_path, tiny_llama):
    rows = ["statement,label,city"]
    rows += [
        f'"The city of {c} is in {w}.",{t},{c}'
        for c, w, t in (
            ("Oslo", "Norway", 1),
            ("Rome", "Peru", 0),
            ("Lima", "Peru", 1),
            ("Oslo", "Chad", 0),
            ("Bern", "Mali", 0),
        )
    ]
    path = written(tmp_path, "cities.csv", "\n".join(rows))
    with pytest.warns(
        UserWarning, match=r"text='statement', label='label', without twins: extract"
    ):
        prompts = traits.read_pairs(path)
    assert [p.labels for p in prompts][1] == {"label": 0, "city": "Rome"}
    runs = tk.encode(tiny_llama, prompts, template="raw")
    traces = tk.capture(tiny_llama, runs, layers=[1, 2], tokens=[-1], progress=False)
    with pytest.raises(ValueError, match=r"5 of 5 groups have one side only.*paired=False"):
        traits.extract(traces)
    vector = traits.extract(traces, paired=False)
    values = traces.values[:, 0].astype(float)
    truth = np.array([1, 0, 1, 0, 0]) == 1
    plain = values[truth].mean(0) - values[~truth].mean(0)
    plain /= np.linalg.norm(plain, axis=-1, keepdims=True)
    np.testing.assert_allclose(vector.values, plain, atol=1e-5)
    assert not np.allclose(vector.values, -plain, atol=1e-5)
    assert vector.trait.item() == "cities"
    assert tk.provenance(vector)["statements"] == [2, 3]
    for method in ("probe", "whitened"):
        assert float((traits.extract(traces, method, paired=False) * plain).sum()) > 0
    with pytest.raises(tk.InputError, match="'first_component' was asked for with paired=False"):
        traits.extract(traces, "first_component", paired=False)
    with pytest.raises(tk.InputError, match="2 rows are labelled 1 and 0"):
        traits.extract(traces.isel(prompt=[0, 2]), paired=False)


def test_only_fields_that_were_guessed_are_said(tmp_path):
    path = written(tmp_path, "moods.csv", "glad,sad,asked\nI smile.,I weep.,How are you?\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        traits.read_pairs(path, positive="glad", negative="sad", asked="asked")
    path = written(tmp_path, "moods.csv", "positive,negative,prompt\nI smile.,I weep.,Well?\n")
    words = r"is read with positive='positive', negative='negative'\. Name fields"
    with pytest.warns(UserWarning, match=words):
        traits.read_pairs(path, asked="prompt")


@pytest.mark.filterwarnings("ignore:.*is read with")
def test_two_statements_of_a_row_are_twins(tmp_path):
    rows = [{"sentence": ["It rains.", "It glows."], "label": [False, True]}]
    assert shown(traits.read_pairs(written(tmp_path, "r.json", rows))) == [
        ("r/0-0", "r/0", 0, "It rains."),
        ("r/0-1", "r/0", 1, "It glows."),
    ]


@pytest.mark.filterwarnings("ignore:.*is read with")
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"a": 1}], "no two are known as sides.*positive=, negative="),
        ([{"positive": "a", "negative": ""}], "row 0, negative is ''"),
        ([{"positive": "a", "negative": "a"}], "the same text on both sides of 1 pairs"),
        ([{"statement": "a", "label": 2}], "the label 2; it has to be 1 or 0"),
        ([{"statement": 3, "label": 1}], "the statement 3; it has to be text"),
        (["a"], "Row 0 of .* is 'a', not an object"),
        ([{**AB, "answer_matching_behavior": ["(B)", "(C)"]}], "a list of 2 texts.*Choose one"),
        ([{"prompt": "Why?", "chosen": TALK, "rejected": TALK + "!"}], "'Why.', which is not in"),
        ([{"prompt": "a", "chosen": "b", "rejected": "c", "system": 3}], "the system message 3"),
        ([], "holds no rows"),
    ],
)
def test_what_are_no_pairs_is_refused(tmp_path, rows, words):
    with pytest.raises(tk.InputError, match=words):
        traits.read_pairs(written(tmp_path, "x.json", rows))


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"asked": "zz"}, "asked='zz'; its fields are 'question', 'positive', 'negative'. Give"),
        ({"positive": "zz", "negative": "negative"}, "positive='zz'; its fields are 'question'"),
        ({"label": "zz"}, "label='zz'; its fields"),
        ({"system": "zz"}, "system='zz'; its fields"),
        ({"negative": "question"}, "negative='question' alone. Give positive= too"),
    ],
)
def test_fields_that_are_named_and_not_there_are_refused(tmp_path, named, words):
    row = {"question": "Is it?", "positive": "Yes", "negative": "No"}
    with pytest.raises(tk.InputError, match=words):
        traits.read_pairs(written(tmp_path, "x.json", [row]), **named)
