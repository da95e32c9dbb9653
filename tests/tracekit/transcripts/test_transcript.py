"""Prompts and transcripts: labels relative to the response, strict prefixes, refusals."""

import copy

import numpy as np
import pytest
from tokenizers.normalizers import Strip

import tracekit as tk
from tracekit.storage.provenance import read
from tracekit.transcripts.encode import ids_hash, ids_of, subset

TALK = (("user", "Where is Paris?"), ("assistant", "In France."), ("user", "And Rome?"))

ANSWERED = ({"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "It is 4"})


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
        ({"prompts": "hello"}, "'hello', a single str.*a list"),
        ({"prompts": ["a"], "responses": "b"}, "One text responses"),
        ({"prompts": [{"role": "user", "content": "a"}]}, "prompt 0, a dict.*tk.Prompt"),
        ({"prompts": [["a", "b"]]}, "prompt 0, a list"),
        ({"prompts": ["a\ud83d"]}, "lone surrogate"),
        ({"prompts": ["a"], "responses": ["b\ud83d"]}, "lone surrogate"),
        ({"prompts": [tk.Prompt("x/1", messages=ANSWERED)], "responses": ["5"]}, "another"),
        ({"prompts": [tk.Prompt("x/1", messages=ANSWERED[1:])]}, "nothing before its answer"),
        ({"prompts": [tk.Prompt("x/1", text="a", system="b")], "system": "c"}, "of its own"),
    ],
)
def test_bad_prompts_are_refused(tiny_llama, arguments, words):
    with pytest.raises(ValueError, match=words):
        tk.encode(tiny_llama, **arguments)


def test_text_with_nul_and_newlines_is_storable(tiny_llama, tmp_path):
    runs = tk.encode(tiny_llama, [tk.Prompt("n/1", text="a\0b\nc")], template="raw")
    tk.save(runs, tmp_path / "runs.nc")
    back = tk.open(tmp_path / "runs.nc")
    assert np.array_equal(back.token_id, runs.token_id)
    assert back.token_text.values.tolist() == runs.token_text.values.tolist()
    assert ids_of(back) == ["n/1"]


@pytest.mark.parametrize("template", ["chat", "raw"])
def test_a_conversation_that_ends_with_the_assistant_has_its_answer_as_response(
    tiny_llama, template
):
    words = tiny_llama.tokenizer
    runs = tk.encode(tiny_llama, [tk.Prompt("x/1", messages=ANSWERED), "Say hi"], template=template)
    asked = "2+2?"
    if template == "chat":
        asked = words.apply_chat_template([ANSWERED[0]], tokenize=False, add_generation_prompt=True)
    before = words(asked, add_special_tokens=False)["input_ids"]
    after = words("It is 4", add_special_tokens=False)["input_ids"]
    assert row(runs) == before + after
    assert row(runs)[:-1] != before + after
    first = runs.isel(prompt=0)
    response = first.token_id.sel(token=slice(0, None)).values.tolist()
    assert response == after
    assert set(first.role.sel(token=slice(0, None)).values) == {
        "assistant" if template == "chat" else "text"
    }
    assert (runs.isel(prompt=1).token_id.sel(token=slice(0, None)) == -1).all()
    assert first.prompt_length.item() == len(before)
    assert first.text.item() == "2+2?"
    assert first.response.item() == "It is 4"
    assert read(runs)["text"] == "given"
    if template == "chat":
        said = tk.generate(tiny_llama, runs, max_new_tokens=1, progress=False)
        assert row(said)[: len(before + after)] == before + after


def test_a_long_role_of_a_template_is_kept_whole(fresh_llama):
    fresh_llama.tokenizer = copy.deepcopy(fresh_llama.tokenizer)
    talk = [("assistant_of_old", "Hello"), ("user", "Hi")]
    runs = tk.encode(fresh_llama, [tk.Prompt("x/1", messages=talk)])
    assert "assistant_of_old" in runs.role.values


def test_a_tokenizer_larger_than_the_embedding_is_refused_where_it_matters(fresh_llama):
    words = fresh_llama.tokenizer = copy.deepcopy(fresh_llama.tokenizer)
    size = fresh_llama.embed._module.weight.shape[0]
    words.add_tokens([f"<new{n}>" for n in range(size - len(words) + 1)])
    last = len(words) - 1
    assert words.convert_ids_to_tokens(last).startswith("<new")
    with pytest.raises(ValueError, match=rf"'text/1' has the token '<new\d+>' of id {last}"):
        tk.encode(fresh_llama, ["Hi", words.convert_ids_to_tokens(last)], template="raw")
    assert tk.encode(fresh_llama, ["Hi"], template="raw").sizes["token"] == 1


def test_a_text_without_tokens_is_refused(fresh_llama):
    words = fresh_llama.tokenizer = copy.deepcopy(fresh_llama.tokenizer)
    words.backend_tokenizer.normalizer = Strip()
    for arguments, what in (((["Hi", "  "],), "prompt 'text/1'"), ((["a"], [" "]), "response to")):
        with pytest.raises(ValueError, match=f"{what}.*into no tokens"):
            tk.encode(fresh_llama, *arguments, template="raw")
