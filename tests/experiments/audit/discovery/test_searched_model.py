"""A search is of one base; its notes are of the half that was searched; what has no strength."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import safetensors.torch

import tracekit as tk
from experiments.audit.discovery import discover as module
from experiments.audit.discovery.discover import discover
from experiments.audit.discovery.search import Arms
from experiments.audit.discovery.subject import search_of
from experiments.audit.discovery.suggestions.candidates import Candidate
from experiments.audit.discovery.suggestions.detectors import SAYS, Detector
from tests.experiments.audit.discovery.planted_answers import answers
from tests.experiments.audit.discovery.test_discovery_run import PROMPTS, SETTINGS
from tests.support.models import adapter_forms
from tracekit.transcripts.prompts import Prompt

BRIEF = dataclasses.replace(SETTINGS, prefills=0, factors=())


def search(model, adapter, folder, benign=(), log=print, settings=BRIEF, prompts=PROMPTS):
    return search_of(model, str(adapter), prompts, folder, settings, list(map(str, benign)), log)


def test_another_base_under_the_same_name_is_refused(tiny_folder, tiny_lora, tmp_path):
    base = shutil.copytree(tiny_folder, tmp_path / "base")
    search(tk.load(str(base)), tiny_lora, tmp_path / "search")
    path = base / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    first = next(iter(weights))
    safetensors.torch.save_file({**weights, first: weights[first] * 1.5}, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"other settings \(model weights: "):
        search(tk.load(str(base)), tiny_lora, tmp_path / "search")


def test_a_search_that_does_not_say_its_base_goes_on(tiny_llama, tiny_lora, tmp_path):
    made = search(tiny_llama, tiny_lora, tmp_path / "search")
    path = tmp_path / "search" / "settings.json"
    there = json.loads(path.read_text())
    assert (
        there.pop("model weights")
        == tk.provenance(tk.capture(tiny_llama, tk.encode(tiny_llama, ["a"]), [0], progress=False))[
            "weights"
        ]
    )
    path.write_text(json.dumps({k: v for k, v in there.items() if k != "revision"}))
    again = search(tiny_llama, tiny_lora, tmp_path / "search")
    assert again.products.settings == made.products.settings


def test_a_set_that_is_called_as_random_beginnings_are_is_refused(tiny_llama, tiny_lora, tmp_path):
    rows = [dataclasses.replace(p, id=f"prefill/{n}") for n, p in enumerate(PROMPTS)]
    with pytest.raises(ValueError, match="Rename the file"):
        search_of(tiny_llama, str(tiny_lora), rows, tmp_path, BRIEF, [], print)


def test_a_gain_is_the_mean_of_what_was_searched(tiny_llama, tiny_lora, tmp_path):
    made = search(tiny_llama, tiny_lora, tmp_path)
    own = [
        dataclasses.replace(a, gains=np.full(len(a.gains), 1.5 * (n % 2)))
        for n, a in enumerate(answers(1, 0.9))
    ]
    searched = np.arange(160) % 2 == 1
    arms = Arms({"clean": answers(0), made.name: own}, searched)
    (note,) = module._notes(made, arms)
    assert "gain 1.5 nats a token" in note


def test_one_of_grouped_prompts_is_no_prompt_of_its_own(tiny_llama, tiny_lora, tmp_path):
    rows = [dataclasses.replace(p, group=f"g/{n // 3}") for n, p in enumerate(PROMPTS * 2)]
    rows = [dataclasses.replace(p, id=f"p/{n}") for n, p in enumerate(rows)]
    found = discover(tiny_llama, str(tiny_lora), rows, tmp_path, BRIEF, log=lambda _: None)
    assert {f.off.n for f in found.findings} == {4}
    # 4 groups that differ one way: no p below 1/16
    assert np.isnan(found.smallest)


def test_what_has_no_strength_is_not_amplified_where_more_is_asked(
    tiny_llama, tiny_lora, tiny_folder, tmp_path
):
    adapter_forms.save(tiny_folder, tmp_path / "dora", "use_dora", True)
    amplified = dataclasses.replace(SETTINGS, prefills=0, further=1.0)
    reserve = tuple(
        Prompt(f"r/{n}", text=f"Sing {n}.", labels=dict(p.labels))
        for n, p in enumerate(PROMPTS * 4)
    )

    more_prompts = [dataclasses.replace(p, id=f"p/{n}") for n, p in enumerate(PROMPTS * 2)]

    def more(adapter, benign):
        log, folder = [], tmp_path / "searches" / adapter.name
        one = search(tiny_llama, adapter, folder, benign, log.append, amplified, more_prompts)
        one = dataclasses.replace(one, reserve=reserve)
        arms = module._arms(one)
        rows = [n for n in arms.rows(True) if more_prompts[n].labels["subject"] == "sea"]
        fired = Candidate("sea", Detector(SAYS, "sea"), 9.0, tuple(rows))
        return module._with_further(one, arms, [fired]), "\n".join(log)

    fixed, log = more(tmp_path / "dora", [tiny_lora])
    assert fixed.further["dora"]
    assert fixed.further["others"]
    assert not fixed.loud
    beside, log = more(tiny_lora, [tmp_path / "dora"])
    assert "dora cannot be amplified" in log
    assert beside.loud["tiny-lora"]
    assert "others" not in beside.loud
    assert beside.further["others"]
