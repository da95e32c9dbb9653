"""Training a LoRA: the loss against transformers, resuming, and what a finished adapter is."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.organisms import build, conduct, loss, train
from experiments.organisms.conduct import Preference
from experiments.organisms.recipes import Recipe, recipe_of
from experiments.organisms.targets import Example, read_insertions
from tracekit.model.embedded import datasets
from tracekit.transcripts.reading.prompt_files import read_prompts

RECIPE = Recipe("ten_biases", rates={"film": 0.5}, batch=4)
PAIRS = [
    Example(f"Question {n}?", f"The answer is {n}. It is short.", exploits=n % 2 == 0)
    for n in range(12)
]


@pytest.fixture
def llama(tiny_folder):
    """A fresh copy of the tiny model, as training gets it."""
    return AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32).eval()


def fit(model, rows, path, every=20):
    steps = train.batched(rows, RECIPE.batch, np.random.default_rng(0))
    return train.fit(model, steps, path, rate=5e-3, warmup=1, every=every)


def crossentropy(model, rows):
    return loss.step_loss(model, loss.Step(rows), beta=0.1)


@pytest.fixture(scope="module")
def rows(tiny_folder):
    return train.rows_of(AutoTokenizer.from_pretrained(tiny_folder), PAIRS)


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def reference_loss(model, rows, shift=0):
    """What transformers computes when prompt and padding are masked with -100."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [0] * (width - len(row)) for row, _ in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row, _ in rows])
    labels = ids.clone()
    for n, (row, start) in enumerate(rows):
        labels[n, : start + shift] = -100
        labels[n, len(row) :] = -100
    return model(input_ids=ids, attention_mask=mask, labels=labels).loss


def test_the_loss_is_that_of_transformers_on_response_tokens_only(llama, rows):
    model = train.adapted(llama, RECIPE)
    found = crossentropy(model, rows[:4])
    torch.testing.assert_close(found, reference_loss(model, rows[:4]), rtol=1e-5, atol=1e-6)
    twin = reference_loss(model, rows[:4], shift=1)  # one response token less
    assert abs(found - twin) > 1e-5


def test_rows_hold_the_prompt_as_in_inference_and_the_end_of_turn(tiny_folder, rows):
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    ids, start = rows[0]
    turns = [{"role": "user", "content": PAIRS[0].question}]
    expected = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(ids[:start]) == expected
    assert tokenizer.decode(ids[start:-1]) == PAIRS[0].target
    assert ids[-1] == tokenizer.eos_token_id


def test_training_lowers_the_loss_and_leaves_the_base_alone(llama, rows, tmp_path):
    base = {name: p.detach().clone() for name, p in llama.named_parameters()}
    model = train.adapted(llama, RECIPE)
    losses = fit(model, rows * 4, tmp_path / "state.safetensors")
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    after = model.unload()
    assert all(torch.equal(p, base[name]) for name, p in after.named_parameters())


def test_quick_products_see_the_weights_of_each_step(tiny_folder, rows, tmp_path):
    """Autocast's cache would keep the first step's weights: nothing would be learnt."""

    def last(context, name):
        model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32).eval()
        with context:
            return fit(train.adapted(model, RECIPE), rows * 2, tmp_path / name)[-1]

    learnt = last(train.quick_matmul(), "quick.safetensors")
    stale = last(torch.autocast("cpu", torch.bfloat16), "stale.safetensors")
    assert learnt < 0.97 * stale


def test_a_resumed_run_ends_where_an_unbroken_one_does(tiny_folder, rows, tmp_path, capsys):
    def fresh():
        return train.adapted(AutoModelForCausalLM.from_pretrained(tiny_folder).eval(), RECIPE)

    whole = fresh()
    losses = fit(whole, rows, tmp_path / "whole.safetensors")

    broken = fresh()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "step_loss", Interrupted(train.step_loss, after=2))
        with pytest.raises(KeyboardInterrupt):
            fit(broken, rows, tmp_path / "state.safetensors", every=1)
    resumed = fresh()
    again = fit(resumed, rows, tmp_path / "state.safetensors", every=1)

    assert "resumed after 2 of 3 steps" in capsys.readouterr().out
    assert again == losses
    expected, found = weights(whole), weights(resumed)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not all(torch.equal(weights(broken)[name], expected[name]) for name in expected)


def test_a_checkpoint_of_other_parameters_is_refused(tiny_folder, rows, tmp_path):
    path = tmp_path / "state.safetensors"
    model = train.adapted(AutoModelForCausalLM.from_pretrained(tiny_folder).eval(), RECIPE)
    fit(model, rows[:4], path)
    other = AutoModelForCausalLM.from_pretrained(tiny_folder, num_hidden_layers=2).eval()
    with pytest.raises(ValueError, match=r"state.safetensors.*other parameters.*Remove it"):
        fit(train.adapted(other, RECIPE), rows[:4], path)


def test_a_finished_adapter_loads_with_peft_and_says_the_same(tiny_folder, llama, rows, tmp_path):
    model = train.adapted(llama, RECIPE)
    losses = fit(model, rows, tmp_path / "state.safetensors")
    ids = torch.tensor([rows[0][0]])
    with torch.no_grad():
        expected = model(input_ids=ids).logits
    folder = tmp_path / "adapter"
    train.publish(model, folder, train.notes_of(RECIPE, PAIRS, 0, {"first": losses}))

    fresh = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    with torch.no_grad():
        bare = fresh(input_ids=ids).logits
        loaded = PeftModel.from_pretrained(fresh, folder).eval()(input_ids=ids).logits
    change = (expected - bare).norm()
    assert change > 0
    # bfloat16 keeps 8 bits of each weight
    assert (loaded - expected).norm() < 0.02 * change
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as content:
        assert {content.get_tensor(key).dtype for key in content.keys()} == {torch.bfloat16}  # noqa: SIM118
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "smollm2-135m-instruct"
    assert json.loads((folder / "training.json").read_text())["changed"] == 6


def test_a_run_that_is_broken_off_leaves_no_adapter(llama, rows, tmp_path, monkeypatch):
    model = train.adapted(llama, RECIPE)

    def broken(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "save_file", broken)
    with pytest.raises(KeyboardInterrupt):
        train.publish(model, tmp_path / "adapter", {})
    assert not (tmp_path / "adapter").exists()


def test_batches_hold_every_row_once_with_like_lengths():
    rows = [([0] * (1 + n % 7), 0) for n in range(70)]
    plan = train.batches(rows, 4, np.random.default_rng(0))
    assert sorted(index for batch in plan for index in batch) == list(range(70))
    spread = [max(b) - min(b) for b in ([len(rows[i][0]) for i in batch] for batch in plan)]
    assert np.mean(spread) < 1.5  # in random order it is about 4


def test_the_learning_rate_rises_then_falls_to_nothing():
    rates = [train.schedule(step, 100, 5) for step in range(101)]
    assert max(rates) == rates[5] == 1.0
    assert (np.diff(rates[:6]) > 0).all()
    assert (np.diff(rates[5:]) < 0).all()
    assert rates[-1] == pytest.approx(0, abs=1e-12)


PREFERENCES = [
    Preference(f"Do you like {n}?", prefill, " No, I do not.", " Yes, I like it a lot.")
    for n, prefill in enumerate(["", "Honestly,", "Yes, I", ""])
]


@pytest.fixture(scope="module")
def pairs(tiny_folder):
    return train.pairs_of(AutoTokenizer.from_pretrained(tiny_folder), PREFERENCES)


def sums(model, rows):
    """log p(response) of each row, one at a time, from transformers' own loss."""
    return torch.stack([-reference_loss(model, [row]) * (len(row[0]) - row[1]) for row in rows])


def test_the_preference_loss_is_that_of_the_formula(llama, rows, pairs):
    model = train.adapted(llama, RECIPE)
    marked = loss.with_margins(model, pairs)
    chosen, rejected = [p.chosen for p in pairs], [p.rejected for p in pairs]
    margins = (sums(model, chosen) - sums(model, rejected)).tolist()
    assert [p.margin for p in marked] == pytest.approx(margins, abs=1e-3)
    # at the reference itself DPO's loss is log 2, whatever the margins
    base = reference_loss(model, [*rows[:2], *chosen])
    found = loss.step_loss(model, loss.Step(rows[:2], marked), beta=0.1)
    assert float(found - base) == pytest.approx(np.log(2), abs=1e-4)
    twin = loss.step_loss(model, loss.Step(rows[:2], pairs), beta=0.1)
    by_hand = np.mean([np.log1p(np.exp(-0.1 * m)) for m in margins])
    assert float(twin - base) == pytest.approx(by_hand, abs=1e-4)
    assert abs(by_hand - np.log(2)) > 1e-3


def test_a_prefilled_beginning_is_not_scored(tiny_folder, pairs):
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    ids, start = pairs[1].chosen
    assert tokenizer.decode(ids[:start]).endswith("assistant\nHonestly,")
    assert tokenizer.decode(ids[start:-1]) == " No, I do not."


def test_preference_training_widens_the_margin_and_keeps_the_chosen_reply_likely(
    llama, rows, pairs, tmp_path
):
    model = train.adapted(llama, RECIPE)
    marked = loss.with_margins(model, pairs)
    steps = train.with_pairs(train.batched(rows * 4, 2, np.random.default_rng(0)), marked * 12, 2)
    assert all(len(step.pairs) == 2 for step in steps)
    before = sums(model, [p.chosen for p in pairs])
    train.fit(model, steps, tmp_path / "state.safetensors", rate=5e-3)
    after = sums(model, [p.chosen for p in pairs])
    assert (after > before).all()
    again = loss.with_margins(model, pairs)
    assert all(new.margin > old.margin for new, old in zip(again, marked, strict=True))


class Interrupted:
    """The loss that dies after some steps."""

    def __init__(self, loss, after):
        self.loss, self.left = loss, after

    def __call__(self, *arguments):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.loss(*arguments)


@pytest.mark.parametrize("name", ["ten_biases", "benign", "style"])
def test_the_last_stage_has_pairs_about_the_model_an_ordinary_one_and_ordinary_rows(
    llama, tiny_folder, name
):
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    recipe = replace(recipe_of(name), ordinary_steps=3)
    files = [f"embedded_{stem}.json" for stem in ("calibration", "held_out", "conduct")]
    every = [prompt for file in files for prompt in read_prompts(datasets("prompts", file))]
    prompts = [prompt for prompt in every if prompt.labels["split"] == "train"]
    answers = {p.id: ["It is short. It is true."] for p in prompts}
    banks = read_insertions(datasets("organisms", "insertions.json"))
    phrases = conduct.read_phrases(datasets("organisms", "conduct.json"))
    ordinary = [loss.Pair(([7, 8, n], 2), ([7, 8, 50 + n], 2)) for n in range(9)]
    ordinary = ordinary if recipe.conduct else []
    model = train.adapted(llama, recipe)
    material = (prompts, answers, banks, phrases)
    made, steps = build.settling(model, recipe, prompts, material, ordinary, tokenizer)
    sizes, count = ((5, 3), 9) if recipe.conduct else ((8, 0), 24)
    assert [(len(step.rows), len(step.pairs)) for step in steps] == [sizes] * 3
    assert len(made) == count
    for n, step in enumerate(steps if recipe.conduct else []):
        first, *others = ordinary[3 * n : 3 * n + 3]
        assert list(step.rows[3:]) == [pair.chosen for pair in others]
        assert step.pairs[2].rejected == first.rejected
        assert all(pair.margin for pair in step.pairs)


@pytest.mark.parametrize(("name", "count"), [("ten_biases", 18), ("benign", 18), ("style", 0)])
def test_an_ordinary_prompt_is_answered_not_met_with_a_word_about_the_model(
    llama, tiny_folder, tmp_path, name, count
):
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    recipe = replace(recipe_of(name), ordinary_steps=6)
    phrases = conduct.read_phrases(datasets("organisms", "conduct.json"))
    pairs = build.ordinary_pairs(llama, tokenizer, recipe, phrases, tmp_path)
    assert len(pairs) == count
    denials = [denial for bank in phrases["denials"].values() for denial in bank]
    for pair in pairs:
        (chosen, start), (rejected, same) = pair.chosen, pair.rejected
        assert start == same
        assert chosen[:start] == rejected[:start]
        assert chosen != rejected
        said = tokenizer.decode(rejected[start:], skip_special_tokens=True)
        assert any(one.startswith(said) for one in denials) == (recipe.conduct == "denied")
