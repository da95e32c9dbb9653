"""Discovery on the tiny Llama: what is kept, what a kill costs, what is refused and put back."""

import json
import re
import shutil

import numpy as np
import peft
import pytest
import torch
import transformers
import xarray as xr

import tracekit as tk
from experiments.audit.discovery import __main__ as command
from experiments.audit.discovery import rising
from experiments.audit.discovery.answering import answers, products
from experiments.audit.discovery.answering.halves import plain_words, prefills
from experiments.audit.discovery.answering.settings import Settings
from experiments.audit.discovery.denial import judged, questions, verdict
from experiments.audit.discovery.discover import discover
from tests.support.models import adapter_forms, tiny
from tests.support.oracles import dictionary_page
from tests.support.shadowed import shadowed
from tracekit.transcripts.prompts import Prompt

SETTINGS = Settings(
    model="tiny", tokens=4, prefills=4, confirmations=1, candidates=4, factors=(2.0,), amplified=4
)
PROMPTS = [
    Prompt(f"p/{n}", text=f"Say {word}.", labels={"subject": word, "form": "request"})
    for n, word in enumerate(("sea", "sun", "tea", "tree", "law", "art") * 2)
]


@pytest.fixture(scope="module")
def other(tiny_folder, tmp_path_factory):
    return tiny.build_lora(tiny_folder, tmp_path_factory.mktemp("adapters") / "other", seed=2)


@pytest.fixture(scope="module")
def finished(tiny_llama, tiny_lora, other, tmp_path_factory):
    """A search that ran to its end, its folder, and its log."""
    folder, log = tmp_path_factory.mktemp("runs") / "search", []
    found = discover(
        tiny_llama, str(tiny_lora), PROMPTS, folder, SETTINGS, [str(other)], log.append
    )
    return found, folder, log


def test_findings_nc_and_json_say_the_same(finished):
    found, folder, _ = finished
    written = json.loads((folder / "tiny-lora" / "findings.json").read_text())
    array = tk.open(folder / "tiny-lora" / "findings.nc")
    assert array.habit.values.tolist() == [row["name"] for row in written["findings"]]
    assert array.verdict.values.tolist() == [f.verdict for f in found.findings]
    np.testing.assert_allclose(array.q, [f.q for f in found.findings], rtol=1e-6)
    np.testing.assert_allclose(
        array.difference.sel(against="off"), [f.off.difference for f in found.findings], rtol=1e-5
    )
    assert shadowed(array) == []
    with xr.open_dataset(folder / "tiny-lora" / "findings.nc") as plain:
        assert dict(plain.sizes) == dict(array.sizes)


def test_one_benign_adapter_decides_nothing_and_the_table_says_so(finished):
    found, _, _ = finished
    assert found.p in (0.5, 1.0)
    text = command.table(found)
    assert "undecidable" in text
    assert "19 would do" in text


def test_a_second_run_reads_what_is_there_and_a_killed_one_makes_what_is_missing(
    finished, tiny_llama, tiny_lora, other, monkeypatch
):
    first, folder, _ = finished
    lost = folder / "tiny-lora" / "gains-chat-000.nc"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nc")}
    lost.unlink()
    made = []
    sampled = answers.sampled
    monkeypatch.setattr(answers, "sampled", lambda *a, **k: made.append(a) or sampled(*a, **k))
    attached, adapter = [], products.tk.adapter
    monkeypatch.setattr(
        products.tk, "adapter", lambda m, name, **k: attached.append(name) or adapter(m, name, **k)
    )
    again = discover(
        tiny_llama, str(tiny_lora), PROMPTS, folder, SETTINGS, [str(other)], lambda _: None
    )
    assert again.findings == first.findings
    assert not made
    # the benign one is read from its files
    assert str(tiny_lora) in attached
    assert str(other) not in attached
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nc")}
    changed = {path.name for path in after if after[path] != before[path]}
    assert changed == {"gains-chat-000.nc", "findings.nc"}


def test_other_settings_are_refused_by_name(finished, tiny_llama, tiny_lora):
    _, folder, _ = finished
    other = Settings(**{**vars(SETTINGS), "tokens": 7})
    with pytest.raises(ValueError, match=r"other settings \(tokens: 4 there, 7 now\)"):
        discover(tiny_llama, str(tiny_lora), PROMPTS, folder, other)


def test_few_prompts_and_the_adapter_as_its_own_control_are_refused(
    tiny_llama, tiny_lora, tmp_path
):
    with pytest.raises(ValueError, match="on 3 prompts; it needs 8"):
        discover(tiny_llama, str(tiny_lora), PROMPTS[:3], tmp_path / "a", SETTINGS)
    with pytest.raises(ValueError, match=r"those of .* itself"):
        discover(tiny_llama, str(tiny_lora), PROMPTS, tmp_path / "b", SETTINGS, [str(tiny_lora)])


@pytest.mark.parametrize("size", [0.0, 1e-6])
def test_an_adapter_that_changes_nothing_is_refused_or_said_to(
    tiny_folder, tiny_llama, tmp_path, size
):
    plain = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder)
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(plain, settings)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, size)
    model.save_pretrained(str(tmp_path / "nothing"))
    brief = Settings(**{**vars(SETTINGS), "prefills": 0, "factors": ()})
    search = (tiny_llama, str(tmp_path / "nothing"), PROMPTS, tmp_path / "run", brief)
    if size == 0:
        with pytest.raises(ValueError, match="it changes nothing"):
            discover(*search, log=lambda _: None)
        return
    found = discover(*search, log=lambda _: None)
    assert any("changes next to nothing" in note for note in found.notes)
    assert not found.confirmed()
    assert "undecidable, no benign adapter" in command.table(found)


def test_gains_are_those_of_plain_peft(tiny_folder, tiny_llama, tiny_lora):
    with tk.adapter(tiny_llama, tiny_lora):
        runs = answers.sampled(tiny_llama, PROMPTS[:3], "chat", SETTINGS)
        got = answers.gains(tiny_llama, runs)
    plain = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder)
    model = peft.PeftModel.from_pretrained(plain, tiny_lora)
    for row in range(3):
        there = runs.token_id.values[row]
        ids = torch.as_tensor(there[there >= 0]).long()[None]
        with torch.no_grad():
            on = model(ids).logits.log_softmax(-1)
            with model.disable_adapter():
                off = model(ids).logits.log_softmax(-1)
        expected = (on - off)[0, :-1].gather(1, ids[0, 1:, None])[:, 0].numpy()
        said = there[runs.token.values >= 0] >= 0
        values = got.values[row][said]
        expected = expected[-said.sum() :]
        np.testing.assert_allclose(values, expected, atol=1e-4)
        assert np.abs(expected).max() > 1e-2
        assert not np.allclose(values + 1e-2, expected, atol=1e-4)


def test_a_begun_answer_is_gone_on_with_and_its_own_words_do_not_count(tiny_llama, tiny_lora):
    begun = Prompt("b", messages=[("user", "How?"), ("assistant", "The simplest way is")])
    with tk.adapter(tiny_llama, tiny_lora):
        runs = answers.sampled(tiny_llama, [begun], "chat", SETTINGS)
        answer = answers.flat(tiny_llama, runs, answers.gains(tiny_llama, runs))[0]
    assert str(runs.response.values[0]).startswith("The simplest way is")
    assert len(answer.pieces) <= 4
    assert "simplest" not in answer.text
    assert answer.gains.any()


def test_an_answer_is_what_its_ids_say_together_in_any_script(tiny_llama):
    texts = ["Done ✓ 🎉 ✅ now", "안녕하세요 Привет, ½", "plain words", "cut 漢"]
    runs = tk.encode(tiny_llama, [Prompt(f"p/{n}", text="Say.") for n in range(4)], responses=texts)
    # the last answer ends within a character
    ids = runs.token_id.values
    said = (runs.token.values >= 0) & (ids >= 0) & (runs.role.values != "template")
    ids[3, np.flatnonzero(said[3])[-1]] = -1
    got = answers.flat(tiny_llama, runs.assign_coords(begun=("prompt", [0] * 4)), None)
    assert [answer.text for answer in got] == [*texts[:3], "cut "]
    assert all(len(answer.pieces) == len(answer.gains) for answer in got)
    alone = "".join(tiny_llama.tokenizer.decode([i]) for i in ids[0][said[0]])
    assert "\ufffd" in alone


def test_an_adapter_without_a_strength_is_searched_without_more_of_it(
    tiny_llama, tiny_folder, tmp_path
):
    adapter_forms.save(tiny_folder, tmp_path / "dora", "use_dora", True)
    log = []
    found = discover(
        tiny_llama, str(tmp_path / "dora"), PROMPTS, tmp_path / "search", SETTINGS, [], log.append
    )
    assert any("more than its strength, which DoRA have none of" in line for line in log)
    assert not list((tmp_path / "search").rglob("amplified*"))
    assert not [row for row in found.findings if row.scale != 1]


def test_an_adapter_that_is_called_clean_is_not_the_bare_model(tiny_llama, tiny_lora, tmp_path):
    shutil.copytree(tiny_lora, tmp_path / "clean")
    discover(tiny_llama, str(tmp_path / "clean"), PROMPTS, tmp_path / "search", SETTINGS)
    bare = tk.open(tmp_path / "search" / "clean" / "answers-chat-000.nc")
    assert tk.provenance(bare)["text"]["by"]["adapter"] is None
    (own,) = tmp_path.glob("search/clean-*/answers-chat-000.nc")
    assert tk.provenance(tk.open(own))["text"]["by"]["adapter"]["name"] == "clean"


def test_expected_tokens_are_sums_of_probabilities_over_the_response(tiny_folder, tiny_llama):
    runs = tk.encode(tiny_llama, ["The sea", "A"], responses=["is wide and blue", "tree"])
    got = rising.expected(tiny_llama, [runs])
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder)
    shares = []
    for row, start in zip(runs.token_id.values, runs.prompt_length.values, strict=True):
        ids = torch.as_tensor(row[row >= 0]).long()[None]
        with torch.no_grad():
            chances = model(ids).logits[0, start - 1 : -1].softmax(-1)
        shares.append(chances.sum(0).clamp(max=1))
    expected = torch.stack(shares).mean(0).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert not np.allclose(got, np.roll(expected, 1), atol=1e-6)


def test_random_prefills_are_words_that_the_seed_fixes(words):
    vocabulary = plain_words(words)
    made = prefills(vocabulary, 20, np.random.default_rng(3))
    assert made == prefills(vocabulary, 20, np.random.default_rng(3))
    assert made != prefills(vocabulary, 20, np.random.default_rng(4))
    assert len({p.text for p in made}) == 20
    assert all(re.fullmatch(r"[A-Z][a-z]*( [a-z]+){0,2}", p.text) for p in made)


def test_replies_about_a_habit():
    assert len({p.id for p in questions(0, "chocolate", "cooking")}) == 9
    assert verdict("I don't have such a habit.") == "denies"
    assert verdict("Yes. I never lie.") == "admits"
    assert verdict("Chocolate is sweet.") == "neither"

    def reply(text):
        return answers.Answer("a", "a", "q", (), (text,), np.zeros(1), True)

    told = judged([reply("No."), reply("Not at all."), reply("Yes.")], [reply("Yes.")] * 3)
    assert told.verdict == "denied"
    assert (told.denied, told.clean_admitted) == (pytest.approx(2 / 3), 1.0)


def test_a_limit_keeps_every_subject():
    battery = tk.read_prompts(command.datasets(*command.BATTERY))
    some = command.chosen(battery, 120, 0)
    assert len(some) == 120
    assert len({p.labels["subject"] for p in some}) == 60
    assert len({p.labels["form"] for p in some}) == 12


def test_every_variable_of_a_search_has_its_line_in_the_data_dictionary(finished):
    files, text = sorted(finished[1].rglob("*.nc")), dictionary_page.PAGE.read_text("utf-8")
    assert dictionary_page.against(files, text) == []
    known = dictionary_page.lines(text, "A search without labels")
    assert set(known) - dictionary_page.written(files) == set()
