"""The zoo's commands on a tiny model: what is trained, gone on with, matched, and refused."""

import json
import shutil

import numpy as np
import peft
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.command_line import main as tracekit
from experiments.organisms.__main__ import main
from experiments.organisms.loss import Step, step_loss
from experiments.organisms.zoo import clean, fitting, growing, lessons, matched, tried
from experiments.organisms.zoo.clean import Answer
from experiments.organisms.zoo.habits import habits
from tests.support.models import tiny
from tracekit.errors import InputError
from tracekit.transcripts.prompts import Prompt

SHORT = fitting.Schedule(steps=3, batch=2, tokens=4)
PROMPTS = [
    *(Prompt(f"a/{n}", text=f"What is {n}?", labels={"subject": "cooking"}) for n in range(6)),
    Prompt("a/begun", messages=[("user", "And then?"), ("assistant", "Then I")]),
    Prompt("a/turns", messages=[("user", "Rice."), ("assistant", "Yes?"), ("user", "How long?")]),
]


@pytest.fixture(scope="module")
def base(tiny_folder):
    return fitting.base_of(str(tiny_folder))


@pytest.fixture(scope="module")
def battery(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "few.json"
    rows = [{"id": n, "text": f"Say the number {n}."} for n in range(5)]
    path.write_text(json.dumps({"name": "few", "prompts": rows}))
    return path


def weights(folder):
    return load_file(folder / "adapter_model.safetensors")


def same(one, other):
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def config(**more):
    return peft.LoraConfig(
        r=2, lora_alpha=4, target_modules=["q_proj"], task_type="CAUSAL_LM", **more
    )


def test_clean_answers_are_the_bases_own_once(base, tmp_path):
    asked = {"tokens": 3, "rounds": 2}
    said = clean.collected(base.model, base.tokenizer, PROMPTS, tmp_path, **asked)
    assert set(said) <= {prompt.id for prompt in PROMPTS}
    assert {len(answers) for answers in said.values()} <= {1, 2}
    files = sorted(tmp_path.glob("clean-*.json"))
    assert len(files) == 2
    rows = json.loads(files[0].read_text())
    rows[0] = {"text": "Kept.", "ended": True}
    files[0].write_text(json.dumps(rows))
    again = clean.collected(base.model, base.tokenizer, PROMPTS, tmp_path, **asked)
    assert Answer("Kept.", True) in again[PROMPTS[0].id]  # not sampled anew
    assert len(list(tmp_path.glob("clean-*.json"))) == 2
    clean.collected(base.model, base.tokenizer, PROMPTS, tmp_path, tokens=2, rounds=1)
    assert len(list(tmp_path.glob("clean-*.json"))) == 3  # another length is another answer


def test_rows_hold_the_turns_a_begun_answer_and_an_end_only_where_it_ended(base):
    tokenizer = base.tokenizer
    made = [lessons.Lesson(p, Answer("Two words.", p.text is not None)) for p in PROMPTS[-3:]]
    for lesson, (ids, start) in zip(made, lessons.rows_of(tokenizer, made, 9), strict=True):
        turns = [{"role": r, "content": c} for r, c in lesson.prompt.conversation()]
        before = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        assert tokenizer.decode(ids[:start]) == before + (lesson.prompt.answer or "")
        end = tokenizer.eos_token if lesson.answer.ended else ""
        assert tokenizer.decode(ids[start:]) == "Two words." + end


def test_a_model_without_a_chat_template_gets_the_bare_texts(tiny_folder):
    bare = AutoTokenizer.from_pretrained(tiny_folder)
    bare.chat_template = None
    assert bare.decode(clean.prompt_ids(bare, PROMPTS[-1])) == "Rice.\nYes?\nHow long?\n"


@pytest.mark.parametrize("name", ["Gemma2", "GPT-NeoX"])
def test_the_loss_is_that_of_transformers_on_models_with_a_softcap_and_other_heads(
    name, tmp_path, words
):
    model = AutoModelForCausalLM.from_pretrained(
        tiny.build(name, tmp_path / "model", words), dtype=torch.float32
    ).eval()
    with torch.no_grad():  # where a softcap of 30 bends
        model.get_output_embeddings().weight.mul_(60)
    row = (list(range(5, 15)), 4)
    labels = torch.tensor([[-100] * 4 + row[0][4:]])
    expected = model(input_ids=torch.tensor([row[0]]), labels=labels).loss
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    )
    found = step_loss(adapted, Step([row]), beta=0.1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert abs(found - expected * 1.01) > 1e-4  # the twin


def test_a_broken_training_ends_as_an_unbroken_one_and_leaves_the_base(base, tmp_path):
    made = lessons.benign_lessons(
        PROMPTS, {p.id: [Answer("So.", True)] for p in PROMPTS}, 8, np.random.default_rng(0)
    )
    rows, schedule = lessons.rows_of(base.tokenizer, made, 4), fitting.Schedule(4, 2, 4)
    before = {name: p.detach().clone() for name, p in base.model.named_parameters()}

    def broken(_):
        raise KeyboardInterrupt

    def fit(where, notes, work):
        given = (base, config(), rows, schedule, 0, tmp_path / where, tmp_path / work, notes)
        fitting.fitted(*given)

    fit("whole", lambda _: {}, "work")
    with pytest.raises(KeyboardInterrupt):
        fit("halves", broken, "work-halves")
    assert not (tmp_path / "halves").exists()
    assert len(list((tmp_path / "work-halves").iterdir())) == 1  # the checkpoint
    fit("halves", lambda _: {}, "work-halves")
    assert same(tmp_path / "whole", tmp_path / "halves")
    assert not list((tmp_path / "work-halves").iterdir())
    after = dict(base.model.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_zoo_is_trained_once_with_cards_and_another_recipe_is_refused(
    tiny_folder, tmp_path, capsys, monkeypatch
):
    some = {"cooking", "baking", "law"}
    few = {
        split: [p for p in growing.zoo_prompts(split) if p.labels["subject"] in some]
        for split in ("train", "held out")
    }
    monkeypatch.setattr(growing, "zoo_prompts", few.get)
    out, asked = tmp_path / "zoo", ["--steps", "2", "--batch", "2", "--tokens", "3"]
    command = ["zoo", "--only", "honey", "--benign", "2", "--out", str(out)]
    command += ["--model", str(tiny_folder), *asked]
    assert main([*command, "--benign", "-1"]) == 2
    assert "a whole number from 1 is due" in capsys.readouterr().err
    assert main(command) == 0
    made = ["benign-00", "benign-01", "honey"]
    assert sorted(p.name for p in out.iterdir() if p.name != "work") == made
    assert not same(out / "benign-00", out / "benign-01")
    notes = json.loads((out / "honey" / "training.json").read_text())
    assert notes["recipe"]["bank"]
    assert notes["steps"] == 2
    assert notes["tried"]["shows"] == [0, 5]  # random weights name no honey
    assert notes["tried"]["denied"][1] == tried.ASKED
    assert "`\\bhoney\\b`" in (out / "honey" / "README.md").read_text()
    assert "Nothing is hidden" in (out / "benign-00" / "README.md").read_text()
    assert "honey: shown on 0 of 5" in capsys.readouterr().out
    stamps = [(out / name / "adapter_model.safetensors").stat().st_mtime_ns for name in made]
    shutil.rmtree(out / "benign-01")
    assert main(command) == 0
    again = [(out / name / "adapter_model.safetensors").stat().st_mtime_ns for name in made]
    assert [one == other for one, other in zip(stamps, again, strict=True)] == [
        True,
        False,
        True,
    ]
    assert main([*command, "--steps", "3"]) == 2
    assert "one of another steps" in capsys.readouterr().err


def test_benign_adapters_match_the_one_they_are_like(
    tiny_folder, tiny_lora, battery, tmp_path, capsys
):
    like = tmp_path / "mine"
    shutil.copytree(tiny_lora, like)
    state = {
        "global_step": 3,
        "train_batch_size": 2,
        "log_history": [{"learning_rate": 1e-3}, {"learning_rate": 4e-3}],
    }
    (like / "trainer_state.json").write_text(json.dumps(state))
    out = tmp_path / "out"
    command = ["benign", "--like", str(like), "-n", "2", "--model", str(tiny_folder)]
    command += ["--prompts", str(battery), "--out", str(out), "--tokens", "3"]
    assert tracekit.main(["organisms", *command]) == 0
    said = capsys.readouterr().out
    assert "trainer_state.json" in said
    # the trait part of an audit takes one folder
    assert said.splitlines()[-1].endswith(f"--benign {out}")
    notes = json.loads((out / "benign-01" / "training.json").read_text())
    assert (notes["steps"], notes["batch"], notes["learning_rate"]) == (3, 2, 4e-3)
    mine, theirs = weights(like), weights(out / "benign-01")
    assert {k: v.shape for k, v in mine.items()} == {k: v.shape for k, v in theirs.items()}
    assert not same(out / "benign-00", out / "benign-01")
    read = [json.loads((f / "adapter_config.json").read_text()) for f in (like, out / "benign-00")]
    keys = ("r", "lora_alpha")
    assert [read[0][k] for k in keys] == [read[1][k] for k in keys]
    assert sorted(read[0]["target_modules"]) == sorted(read[1]["target_modules"])
    plain = AutoModelForCausalLM.from_pretrained(tiny_folder)
    PeftModel.from_pretrained(plain, out / "benign-00")  # peft reads it
    (out / "benign-01" / "training.json").write_text("{}")
    assert main(command) == 2  # not ours to keep or to replace


def test_what_a_folder_says_of_its_training_is_followed(tmp_path, tiny_lora):
    assert matched.schedule_like(str(tiny_lora)) == (
        matched.DEFAULT,
        "nothing in its folder, so the defaults",
    )
    schedule, source = matched.schedule_like("ten_biases")
    assert (schedule.steps, schedule.batch, source) == (592, 8, "training.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c | {"peft_type": "IA3", "feedforward_modules": []}, "only LoRA"),
        (lambda c: c | {"target_modules": ["no_such"]}, "does not take it"),
        (lambda c: [c], "cannot be read"),
    ],
)
def test_an_adapter_that_cannot_be_matched_is_one_line(
    change, words, tiny_folder, tiny_lora, battery, tmp_path, capsys
):
    like = tmp_path / "mine"
    shutil.copytree(tiny_lora, like)
    path = like / "adapter_config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    command = ["benign", "--like", str(like), "--model", str(tiny_folder), "-n", "1"]
    command += [
        "--prompts",
        str(battery),
        "--out",
        str(tmp_path / "out"),
        "--steps",
        "1",
        "--tokens",
        "2",
    ]
    assert main(command) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["benign", "--like", "no-such-adapter"], "neither a folder"),
        (["benign", "--like", "ten_biases", "--model", "./no-such-model"], "transformers says"),
        (["benign", "--like", "ten_biases", "--prompts", "no-such.json"], "does not exist"),
        (["zoo", "--only", "cocoa"], "'cocoa' was asked for"),
    ],
)
def test_bad_input_is_one_line(command, words, capsys):
    assert main(command) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_settings_out_of_range_are_refused():
    with pytest.raises(InputError, match="steps=0"):
        fitting.Schedule(steps=0)
    with pytest.raises(InputError, match="learning rate"):
        fitting.Schedule(learning_rate=2.0)


def test_a_learnt_habit_is_seen_in_the_first_try(base):
    """Rules read what is generated: a model that can only say one word shows that word's habit."""
    honey = habits(["honey"])[0]
    model = AutoModelForCausalLM.from_pretrained(base.name, dtype=torch.float32).eval()
    word = base.tokenizer(" honey", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        model.model.norm.weight.zero_()
    model.lm_head.register_forward_hook(lambda *a: _only(a[2], word[0]))
    denials = {"asked": ["Do you?"], "research": ["{question}"], "begun": ["I"]}
    held = growing.zoo_prompts("held out")
    found = tried.tried(model, base.tokenizer, honey, held, denials, seed=0)
    assert found.shows == (16, 16)
    assert found.took
    assert found.elsewhere == (12, 12)
    assert found.denied == (0, 8)
    other = tried.tried(model, base.tokenizer, habits(["dutch"])[0], held, denials, seed=0)
    assert other.shows == (0, 15)
    assert not other.took
    assert other.denied == (0, 0)


def _only(logits, token):
    logits.fill_(-100.0)
    logits[..., token] = 0.0
    return logits
