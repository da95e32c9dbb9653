"""Greedy is the argmax and sampling softmax(logits / T), whatever a checkpoint's settings are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import xarray as xr
from transformers import GenerationConfig

import tracekit as tk
from tracekit.passes import batching
from tracekit.storage.provenance import read

NEW, SEED = 5, 3
# below 1 a penalty draws to what is there: a random model hardly repeats itself
LESS = 0.3
TEXTS = ["Where is Paris on the map of France?", "Hello", "One, two, three"]
Pick = Callable[[torch.Tensor, list[int]], int]


def argmax(logits: torch.Tensor, before: list[int]) -> int:
    return int(logits.argmax())


def penalised(logits: torch.Tensor, before: list[int]) -> int:
    there = torch.tensor(sorted(set(before)))
    logits = logits.clone()
    logits[there] = torch.where(logits[there] > 0, logits[there] / LESS, logits[there] * LESS)
    return int(logits.argmax())


def by_hand(module: torch.nn.Module, prompts: xr.Dataset, pick: Pick = argmax) -> list[list[int]]:
    """Each row alone, a whole forward a token, no cache."""
    ends = module.generation_config.eos_token_id
    said = []
    for row in prompts.token_id.transpose("prompt", "token").values:
        ids = row[row >= 0].tolist()
        start = len(ids)
        with torch.no_grad():
            while len(ids) < start + NEW and (len(ids) == start or ids[-1] not in ends):
                logits = module(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
                ids.append(pick(logits.float(), ids))
        said.append(ids[start:])
    return said


def responses(runs: xr.Dataset) -> list[list[int]]:
    after = runs.sel(token=slice(0, None)).token_id.transpose("prompt", "token").values
    return [row[row >= 0].tolist() for row in after]


def generated(model: Any, prompts: xr.Dataset, **options: Any) -> list[list[int]]:
    return responses(tk.generate(model, prompts, max_new_tokens=NEW, progress=False, **options))


@pytest.fixture(scope="module")
def model(tiny_folder: Any, words: Any) -> Any:
    """A model whose text ends early: the id that one row says second is an end."""
    model = tk.load(tiny_folder, dtype="float32", tokenizer=words)
    module = model._module
    module.generation_config.eos_token_id = [module.generation_config.eos_token_id]
    second = by_hand(module, tk.encode(model, TEXTS, template="raw"))[2][1]
    module.generation_config.eos_token_id = [*module.generation_config.eos_token_id, second]
    return model


@pytest.fixture(scope="module")
def prompts(model: Any) -> xr.Dataset:
    return tk.encode(model, TEXTS, template="raw")


@pytest.fixture(scope="module")
def plain(model: Any, prompts: xr.Dataset) -> list[list[int]]:
    said = by_hand(model._module, prompts)
    assert sorted({len(ids) for ids in said}) == [2, NEW]
    return said


@pytest.fixture
def settings(model: Any) -> Iterator[GenerationConfig]:
    before = model._module.generation_config
    model._module.generation_config = copy.deepcopy(before)
    yield model._module.generation_config
    model._module.generation_config = before


OWN = {"bos_token_id", "eos_token_id", "pad_token_id"}
FIRST = "the ids that the plain loop says first"
# a value a checkpoint may hold for every key of transformers' configuration but the three kept
VALUES: dict[str, Any] = {
    "max_length": 3,
    "max_new_tokens": 1,
    "min_length": 40,
    "min_new_tokens": 4,
    "early_stopping": True,
    "max_time": 1e-9,
    "stop_strings": ["a", "e", " "],
    "do_sample": True,
    "num_beams": 3,
    "use_mtp": True,
    "use_cache": False,
    "cache_implementation": "quantized",
    "cache_config": {"backend": "none"},
    "max_cache_len": 2,
    "temperature": 0.01,
    "top_k": 3,
    "top_p": 0.1,
    "min_p": 0.9,
    "top_h": 0.1,
    "typical_p": 0.1,
    "epsilon_cutoff": 0.9,
    "eta_cutoff": 0.9,
    "repetition_penalty": LESS,
    "encoder_repetition_penalty": 0.1,
    "length_penalty": -3.0,
    "no_repeat_ngram_size": 1,
    "bad_words_ids": FIRST,
    "renormalize_logits": True,
    "forced_bos_token_id": 7,
    "forced_eos_token_id": 7,
    "remove_invalid_values": True,
    "exponential_decay_length_penalty": (0, 50.0),
    "suppress_tokens": FIRST,
    "begin_suppress_tokens": FIRST,
    "sequence_bias": FIRST,
    "token_healing": True,
    "guidance_scale": 3.0,
    "watermarking_config": {"bias": 20.0},
    "num_return_sequences": 2,
    "output_attentions": True,
    "output_hidden_states": True,
    "output_scores": True,
    "output_logits": True,
    "return_dict_in_generate": True,
    "encoder_no_repeat_ngram_size": 1,
    "decoder_start_token_id": 7,
    "is_assistant": True,
    "num_assistant_tokens": 2,
    "num_assistant_tokens_schedule": "heuristic",
    "assistant_confidence_threshold": 0.1,
    "prompt_lookup_num_tokens": 3,
    "max_matching_ngram_size": 2,
    "assistant_early_exit": 1,
    "assistant_lookbehind": 2,
    "target_lookbehind": 2,
    "assistant_ensemble_weight": 0.5,
    "speculation_type": "none",
    "compile_config": {"mode": "default"},
    "disable_compile": True,
    "continuous_batching_config": {"block_size": 3},
    "low_memory": True,
    "penalty_alpha": 0.6,
    "dola_layers": "low",
    "diversity_penalty": 2.0,
    "num_beam_groups": 3,
    "constraints": [],
    "force_words_ids": [[7]],
    "prefill_chunk_size": 2,
    "transformers_version": "4.0.0",
    "custom_generate": "someone/else",
}


def put(settings: GenerationConfig, key: str, said: list[list[int]]) -> None:
    value, firsts = VALUES[key], [ids[0] for ids in said]
    if value is FIRST and key == "sequence_bias":
        value = {(first,): -1e9 for first in firsts}
    elif value is FIRST:
        value = [[first] for first in firsts] if key == "bad_words_ids" else firsts
    setattr(settings, key, value)


def test_the_table_names_every_key_of_transformers() -> None:
    keys = {key for key in vars(GenerationConfig()) if not key.startswith("_")}
    assert keys - OWN - set(VALUES) == set()


@pytest.mark.parametrize("key", VALUES)
def test_a_checkpoints_setting_changes_no_id(
    key: str, model: Any, prompts: xr.Dataset, plain: Any, settings: GenerationConfig
) -> None:
    put(settings, key, plain)
    assert generated(model, prompts) == plain
    assert model._module.generation_config is settings


def test_the_twin_in_plain_transformers_is_changed_by_them(
    model: Any, prompts: xr.Dataset, plain: Any, settings: GenerationConfig
) -> None:
    made, changed, before = tk.inputs(prompts), set(), copy.deepcopy(settings)
    felt = {"repetition_penalty", "suppress_tokens", "sequence_bias", "num_beams", "min_new_tokens"}
    for key in felt:
        model._module.generation_config = copy.deepcopy(before)
        put(model._module.generation_config, key, plain)
        out = model._module.generate(**made, max_new_tokens=NEW, do_sample=False)
        new = out[:, made["input_ids"].shape[1] :].tolist()
        if [ids[: len(p)] for ids, p in zip(new, plain, strict=True)] != plain:
            changed.add(key)
    assert changed == felt


def test_settings_left_in_the_models_own_configuration_change_nothing(
    model: Any, prompts: xr.Dataset, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model._module.config, "repetition_penalty", 5.0, raising=False)
    monkeypatch.setattr(model._module.config, "use_cache", False)
    assert generated(model, prompts) == plain


def drawn(module: torch.nn.Module, prompts: xr.Dataset, temperature: float) -> list[list[int]]:
    """All rows together from softmax(logits / T), a whole forward of each row alone a token."""
    ids = [row[row >= 0].tolist() for row in prompts.token_id.transpose("prompt", "token").values]
    starts = [len(row) for row in ids]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(SEED)
        for _ in range(NEW):
            logits = [module(input_ids=torch.tensor([row])).logits[0, -1].float() for row in ids]
            chances = (torch.stack(logits) / temperature).softmax(-1)
            for row, new in zip(ids, torch.multinomial(chances, 1)[:, 0].tolist(), strict=True):
                row.append(new)
    said = [row[start:] for row, start in zip(ids, starts, strict=True)]
    ends = module.generation_config.eos_token_id
    first = [next((n + 1 for n, i in enumerate(new) if i in ends), NEW) for new in said]
    return [new[:end] for new, end in zip(said, first, strict=True)]


def test_sampling_is_softmax_of_the_logits_over_the_temperature(
    model: Any, prompts: xr.Dataset, settings: GenerationConfig
) -> None:
    settings.top_k, settings.top_p, settings.temperature, settings.min_p = 2, 0.3, 0.1, 0.5
    settings.repetition_penalty = 3.0
    # batches sort by length, and a draw follows its row: one row a batch is one generator a row
    one = prompts.isel(prompt=[0])
    for temperature in (0.7, 2.0):
        options = {"temperature": temperature, "seed": SEED}
        assert generated(model, one, **options) == drawn(model._module, one, temperature)
    assert generated(model, one, temperature=2.0, seed=SEED) != drawn(model._module, one, 0.7)


def test_a_penalty_is_an_argument_and_recorded(model: Any, prompts: xr.Dataset, plain: Any) -> None:
    runs = tk.generate(model, prompts, max_new_tokens=NEW, progress=False, repetition_penalty=LESS)
    expected = by_hand(model._module, prompts, penalised)
    assert responses(runs) == expected != plain
    assert read(runs)["text"]["decoding"] == {"repetition_penalty": LESS}
    assert (
        "decoding"
        not in read(tk.generate(model, prompts, max_new_tokens=1, progress=False))["text"]
    )


def test_rows_of_a_penalty_hold_no_padding_that_counts_as_ids() -> None:
    lengths = [5, 9, 5, 9, 9, 4]
    plan = batching.plan(lengths, 1000, padded=False)
    assert plan == [[1, 3, 4], [0, 2], [5]]
    assert batching.plan(lengths, 1000) != plan


def test_a_narrowed_draw_is_an_argument(model: Any, prompts: xr.Dataset, plain: Any) -> None:
    assert generated(model, prompts, temperature=1.0, top_k=1) == plain
    assert generated(model, prompts, temperature=5.0, top_k=0) != plain


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_beams": 2}, r"num_beams=2 .* one row of tokens a prompt"),
        ({"repetition_penality": 1.1}, r"Did you mean 'repetition_penalty'\?"),
        ({"max_tokens": 3}, r"Did you mean 'max_new_tokens'\?"),
        ({"top_p": 0.9}, r"top_p=0.9 .* temperature 0, where it changes nothing"),
        ({"suppress_tokens": {3}}, r"provenance cannot hold"),
    ],
)
def test_what_cannot_be_or_does_nothing_is_refused(
    asked: Any, message: str, model: Any, prompts: xr.Dataset
) -> None:
    with pytest.raises(ValueError, match=message):
        tk.generate(model, prompts, progress=False, **asked)


def test_a_tokenizer_without_padding_and_a_model_without_an_end(
    model: Any, prompts: xr.Dataset, settings: GenerationConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "tokenizer", copy.deepcopy(model.tokenizer))
    settings.pad_token_id = model.tokenizer.pad_token = None
    with_end = by_hand(model._module, prompts)
    assert generated(model, prompts) == with_end
    settings.eos_token_id = model.tokenizer.eos_token = None
    said = generated(model, prompts)
    assert [len(ids) for ids in said] == [NEW] * 3
    assert [ids[: len(p)] for ids, p in zip(said, with_end, strict=True)] == with_end
