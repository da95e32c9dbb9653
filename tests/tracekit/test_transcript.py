"""Prompts and transcripts: labels relative to the response, strict prefixes, refusals."""

import json

import numpy as np
import pytest

import tracekit as tk
from tracekit.prompts import take
from tracekit.provenance import read
from tracekit.transcript import ids_hash, ids_of, subset

TALK = (("user", "Where is Paris?"), ("assistant", "In France."), ("user", "And Rome?"))


def row(runs, n=0):
    ids = runs.token_id.values[n]
    return ids[ids >= 0].tolist()


def test_labels_count_from_the_first_response_token(tiny_llama):
    runs = tk.encode(tiny_llama, ["Hi", "Where is Paris?"], ["Yes it is.", "Fr"], template="raw")
    words = tiny_llama.tokenizer
    first = runs.isel(prompt=0)
    assert words.decode(first.token_id.sel(token=-1).item()) == "Hi"
    response = first.token_id.sel(token=slice(0, None)).values
    assert words.decode(response[response >= 0]) == "Yes it is."
    assert (runs.role.sel(token=-1) == "text").all()
    assert runs.prompt_length.values.tolist() == [1, 4]
    assert runs.role.isel(prompt=0, token=0).item() == "pad"


@pytest.mark.parametrize("template", ["chat", "raw"])
def test_a_prompts_ids_are_a_strict_prefix(tiny_llama, template):
    # joined and tokenised anew, "Par" + "is" would be one token
    alone = tk.encode(tiny_llama, ["Say Par"], template=template)
    both = tk.encode(tiny_llama, ["Say Par"], ["is"], template=template)
    assert row(both)[: len(row(alone))] == row(alone)
    assert len(row(both)) == len(row(alone)) + 1


def test_all_earlier_turns_have_negative_labels(tiny_llama):
    runs = tk.encode(tiny_llama, [tk.Prompt("talk/1", messages=TALK)], ["In Italy."])
    roles = runs.role.isel(prompt=0)
    assert set(roles.sel(token=slice(0, None)).values) == {"assistant"}
    before = roles.sel(token=slice(None, -1)).values
    assert set(before) == {"template", "user", "assistant"}
    texts = tiny_llama.tokenizer.decode(
        runs.token_id.isel(prompt=0).sel(token=slice(None, -1)).values[before == "assistant"]
    )
    assert texts == "In France."


def test_the_system_prompt_is_recorded_and_refused_twice(tiny_llama):
    runs = tk.encode(tiny_llama, ["Hi"], system="Be brief.")
    assert read(runs)["system"] == "Be brief."
    assert read(tk.encode(tiny_llama, ["Hi"]))["system"] is None
    own = tk.Prompt("s/1", messages=(("system", "Be long."), ("user", "Hi")))
    with pytest.raises(ValueError, match="'s/1' has a system message of its own"):
        tk.encode(tiny_llama, [own], system="Be brief.")


def test_the_prompt_set_and_its_ids_are_hashed(tiny_llama):
    one, same = (tk.encode(tiny_llama, ["Hi", "Ho"]) for _ in range(2))
    other = tk.encode(tiny_llama, ["Hi", "Ha"])
    assert read(one) == read(same)
    assert read(one)["prompts"] != read(other)["prompts"]
    assert read(one)["ids"] != read(other)["ids"]
    part = subset(one, prompt=["text/1"])
    assert read(part)["ids"] == ids_hash(part) != read(one)["ids"]


def test_labels_and_groups_ride_along(tiny_llama):
    prompts = [
        tk.Prompt("set/1", text="Hi", group="set/a", labels={"bias": "vote", "label": 1}),
        tk.Prompt("set/2", text="Ho", group="set/a", labels={"bias": "tip", "label": 0}),
    ]
    runs = tk.encode(tiny_llama, prompts)
    assert runs.bias.values.tolist() == ["vote", "tip"]
    assert runs.label.dtype.kind == "i"
    assert set(runs["group"].values) == {"set/a"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompts": []}, "no prompts"),
        ({"prompts": [""]}, "empty text"),
        ({"prompts": ["a"], "responses": ["b", "c"]}, "2 responses for 1 prompts"),
        ({"prompts": ["a"], "template": "plain"}, "template='plain'"),
        ({"prompts": ["a " * 600]}, "context holds 512"),
        ({"prompts": [tk.Prompt("x/1", text="a"), tk.Prompt("x/1", text="b")]}, r"x/1 \(2x\)"),
        ({"prompts": [tk.Prompt("x/1", messages=TALK)], "template": "raw"}, "3 turns"),
    ],
)
def test_bad_prompts_are_refused(tiny_llama, arguments, words):
    with pytest.raises(ValueError, match=words):
        tk.encode(tiny_llama, **arguments)


def write(folder, rows):
    path = folder / "set.json"
    path.write_text(json.dumps({"name": "set", "prompts": rows}))
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


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "holds no prompts"),
        ([{"text": "a"}], "needs an id"),
        ([{"id": 1, "text": ""}], "non-empty text"),
        ([{"id": 1, "text": "a"}, {"id": 1, "text": "b"}], r"set/1 \(2x\)"),
    ],
)
def test_bad_files_are_refused(tmp_path, rows, words):
    with pytest.raises(ValueError, match=words):
        tk.read_prompts(write(tmp_path, rows))


def test_a_missing_file_names_its_neighbours(tmp_path):
    write(tmp_path, [{"id": 1, "text": "a"}])
    with pytest.raises(FileNotFoundError, match=r"set\.json"):
        tk.read_prompts(tmp_path / "sets.json")


def test_text_with_nul_and_newlines_is_storable(tiny_llama, tmp_path):
    runs = tk.encode(tiny_llama, [tk.Prompt("n/1", text="a\0b\nc")], template="raw")
    tk.save(runs, tmp_path / "runs.nc")
    back = tk.open(tmp_path / "runs.nc")
    assert np.array_equal(back.token_id, runs.token_id)
    assert back.token_text.values.tolist() == runs.token_text.values.tolist()
    assert ids_of(back) == ["n/1"]
