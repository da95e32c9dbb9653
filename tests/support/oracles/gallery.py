"""What each script of the gallery has to show, held against plain transformers and peft."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from peft import PeftModel

from tests.support.oracles import one_by_one
from tracekit.model.embedded import datasets


@dataclass(frozen=True)
class Shown:
    """What a script left: what it printed, its variables, and its figure if it drew one."""

    printed: str
    space: dict[str, Any]
    figure: Path


def ids(runs: xr.Dataset) -> torch.Tensor:
    """The ids of the one row of transcripts."""
    row = runs.token_id.values[0]
    return torch.tensor([row[row >= 0].tolist()])


def word(model: Any, text: str) -> int:
    (found,) = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def close(ours: Any, reference: Any, within: float = 2e-3) -> None:
    """Alike; and a value that is moved by more than that is not."""
    ours, reference = np.asarray(ours, float), np.asarray(reference, float)
    np.testing.assert_allclose(ours, reference, rtol=within, atol=within)
    moved = reference.copy().reshape(-1)
    moved[-1] += 4 * within * (1 + abs(moved[-1]))
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(ours, moved.reshape(reference.shape), rtol=within, atol=within)


def is_drawn(figure: Path) -> None:
    """A picture with something in it."""
    pixels = plt.imread(figure)
    assert min(pixels.shape[:2]) >= 200
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 10


def adapted(plain: Any, runs: xr.Dataset, scale: float) -> Any:
    """What plain peft says of the ids under the adapter at a strength, residuals too."""
    folder = datasets("organisms", "ten_biases")
    both = PeftModel.from_pretrained(plain, str(folder))
    try:
        for part in both.modules():
            if isinstance(getattr(part, "scaling", None), dict):
                part.scaling = {name: scale * value for name, value in part.scaling.items()}
        with torch.no_grad():
            return both(input_ids=ids(runs), output_hidden_states=True)
    finally:
        both.unload()


def activation_patching(shown: Shown, plain: Any) -> None:
    is_drawn(shown.figure)
    found, model = shown.space["found"], shown.space["model"]
    row, other = ids(shown.space["clean"])[0].tolist(), ids(shown.space["corrupted"])[0].tolist()
    mary, john = word(model, " Mary"), word(model, " John")
    for layer, token in ((12, -5), (24, -1)):
        stored = one_by_one.values(plain, other, "residual", layer)
        pair = [(len(row) + token, len(other) + token)]
        lead = one_by_one.patched(
            plain, row, stored, "residual", layer, pair, lambda logits: logits[mary] - logits[john]
        )
        close(found.sel(layer=layer, token=token).squeeze(), lead)
    assert "denoising" in shown.printed
    assert "noising" in shown.printed


def adapter_by_layer(shown: Shown, plain: Any) -> None:
    is_drawn(shown.figure)
    runs, found = shown.space["runs"].isel(prompt=[0]), shown.space["found"].isel(prompt=0)
    with torch.no_grad():
        bare = plain(input_ids=ids(runs), output_hidden_states=True).hidden_states[13][0]
    on = adapted(plain, runs, 1.0).hidden_states[13][0]
    expected = (on - bare).norm(dim=-1) / bare.norm(dim=-1)
    close(found.change.sel(layer=12).values[-len(bare) :], expected)


def adapter_strength(shown: Shown, plain: Any) -> None:
    runs, found = shown.space["runs"], shown.space["found"]  # of the last strength, 2
    logits = adapted(plain, runs, 2.0).logits[0, -1].log_softmax(-1)
    close(found.logprob, logits.topk(5).values)
    strongest = shown.printed.split("× ")[-1]
    assert sum(map(float, re.findall(r"(?:dark|chocolate) (\d+)%", strongest))) > 50
    strengths = re.findall(r"× +(\S+) ", shown.printed)
    assert strengths == ["-0.50", "0.00", "0.25", "0.50", "1.00", "1.50", "2.00"]
    assert "chocolate" not in shown.printed.split("× ")[2]  # at none


def attention_patterns(shown: Shown, plain: Any) -> None:
    is_drawn(shown.figure)
    pattern, ahead = shown.space["pattern"], shown.space["ahead"]
    with torch.no_grad():
        found = plain(input_ids=ids(shown.space["runs"]), output_attentions=True).attentions
    for layer in (3, 18):
        ours = pattern.sel(layer=layer).transpose("head", "query", "key").fillna(0)
        close(ours, found[layer][0])
    own = torch.stack([found[18][0, 6, 6 + n, 1 + n] for n in range(6)]).mean()
    close(ahead.sel(layer=18, head=6), own)
    assert float(ahead.max()) > 0.5


def conditional_steering(shown: Shown, plain: Any) -> None:
    before, after = (re.findall(rf"{name}: (.*)", shown.printed) for name in ("before", " after"))
    assert len(before) == len(after) == 2
    assert before[0] != after[0]  # of food
    assert before[1] == after[1]  # of space


def dose_response(shown: Shown, plain: Any) -> None:
    is_drawn(shown.figure)
    lead, bank, model = (shown.space[name] for name in ("lead", "bank", "model"))
    asked = shown.space["asked"].isel(prompt=[0])
    vector = torch.as_tensor(bank.sel(direction="sycophancy").values)
    for coefficient in (0.0, 0.6):

        def add(value: torch.Tensor, by: float = coefficient) -> torch.Tensor:
            value = value.clone()
            value[:, -1] += by * vector
            return value

        with torch.no_grad(), one_by_one.changed(plain, 15, "residual", add):
            logits = plain(input_ids=ids(asked)).logits[0, -1]
        expected = logits[word(model, " great")] - logits[word(model, " bad")]
        close(lead.loc[coefficient, "sycophancy"], expected)
    assert np.ptp(lead.loc[0.0]) < 1e-3
    assert lead.shape == (5, 9)


def gradient_attribution(shown: Shown, plain: Any) -> None:
    leads, model = [], shown.space["model"]
    for runs in (shown.space["other"], shown.space["runs"]):
        with torch.no_grad():
            logits = plain(input_ids=ids(runs)).logits[0, -1]
        leads.append(float(logits[word(model, " Rome")] - logits[word(model, " Paris")]))
    # all of the change, at every layer: up to the steps of the path
    close(shown.space["table"].loc["sum"], [leads[1] - leads[0]] * 4, within=0.02)
    words = shown.space["table"].drop("sum").idxmax().tolist()
    assert words == [" Italy", " Italy", " Italy", " is"]


def head_ablation(shown: Shown, plain: Any) -> None:
    model, prompt = shown.space["model"], ids(shown.space["runs"])
    width = plain.config.hidden_size // plain.config.num_attention_heads

    def without(_module: Any, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        value = given[0].clone()
        value[..., :width] = 0  # head 0
        return (value,)

    leads = []
    for hooked in (False, True):
        into = plain.model.layers[20].self_attn.o_proj
        handle = into.register_forward_pre_hook(without) if hooked else None
        with torch.no_grad():
            logits = plain(input_ids=prompt).logits[0, -1]
        if handle is not None:
            handle.remove()
        leads.append(float(logits[word(model, " Mary")] - logits[word(model, " John")]))
    close(shown.space["whole"], leads[0])
    (row,) = re.findall(r"layer 20 +(\S+)", shown.printed)
    assert abs(float(row) - (leads[1] - leads[0])) < 0.006
    assert abs(float(row)) > 0.5


def induction(shown: Shown, plain: Any) -> None:
    before, after = map(float, re.findall(r"(\S+) → (\S+) nats", shown.printed)[0])
    rows = re.findall(r"layer (\d+), head (\d): .*?: (\S+), .*?: (\S+)}", shown.printed)
    assert after - before > 2
    assert len({row[:2] for row in rows}) == 5
    # a head that helps when it is put in hurts when it is taken out
    assert float(rows[0][2]) > 0.5
    assert float(rows[0][3]) < -0.5
    model, leads = shown.space["model"], []
    for runs in (shown.space["unknown"], shown.space["known"]):
        with torch.no_grad():
            logits = plain(input_ids=ids(runs)).logits[0, -1]
        leads.append(float(logits[word(model, " cloud")] - logits[word(model, " ball")]))
    np.testing.assert_allclose([before, after], leads, atol=0.06)


def logit_lens(shown: Shown, plain: Any) -> None:
    chosen, model = shown.space["chosen"], shown.space["model"]
    with torch.no_grad():
        found = plain(input_ids=ids(shown.space["runs"]), output_hidden_states=True)
        inner = plain.lm_head(plain.model.norm(found.hidden_states[24][0, -1])).log_softmax(-1)
    close(chosen.logprob.sel(layer=23, choice=" Paris"), inner[word(model, " Paris")])
    last = found.logits[0, -1].log_softmax(-1)
    close(chosen.logprob.sel(layer=29, choice=" Rome"), last[word(model, " Rome")])
    assert "the model says:  Paris|" in shown.printed


def mlp_units(shown: Shown, plain: Any) -> None:
    seen = []
    into = plain.model.layers[16].mlp.down_proj
    handle = into.register_forward_pre_hook(lambda _module, given: seen.append(given[0][0]))
    with torch.no_grad():
        plain(input_ids=ids(shown.space["runs"]))
    handle.remove()
    close(shown.space["hidden"].sel(layer=16).isel(prompt=0), seen[0])
    (unit, peak) = re.findall(r"layer 16  unit +(\d+) +(\S+)", shown.printed)[0]
    assert abs(float(seen[0][4:-3].max()) - float(peak)) < 0.06
    assert int(seen[0][4:-3].max(0).values.argmax()) == int(unit)


def open_with_xarray(shown: Shown, plain: Any) -> None:
    assert "float32 ids: int32" in shown.printed
    assert np.isfinite(float(shown.printed.split()[-1]))


def three_variants(shown: Shown, plain: Any) -> None:
    figures = [float(x) for x in re.findall(r"\d+\.\d+", shown.printed)]
    assert len(figures) == 3
    assert len(set(figures)) == 3


def top_tokens(shown: Shown, plain: Any) -> None:
    found, vector = shown.space["found"], shown.space["vector"]
    runs = shown.space["runs"].isel(prompt=[0])
    with torch.no_grad():
        residual = plain(input_ids=ids(runs), output_hidden_states=True).hidden_states[16][0]
    along = residual @ torch.as_tensor(vector.values.ravel())
    answer = found.isel(prompt=0).dropna("token")
    close(answer, along[-answer.sizes["token"] :])
    first = shown.space["top"].isel(top=0)
    assert int(first.token) == int(along[-answer.sizes["token"] :].argmax())
    assert f"[{runs.token_text.sel(token=first.token).item()}]" in first.text.item()
    assert first.text.item() in shown.printed


def turns(shown: Shown, plain: Any) -> None:
    line = shown.printed.splitlines()[0]
    said = line.removeprefix("second user turn: ").replace("|", "")
    assert said == "Thank you. And how far is it from there to Rome?"
    chat = shown.space["chat"]
    at = int(np.flatnonzero(chat.token_text.values[0] == " Rome")[-1])
    with torch.no_grad():
        states = plain(input_ids=ids(chat), output_hidden_states=True).hidden_states
    close(shown.space["there"][1], states[11][0, at])


def two_weights(shown: Shown, plain: Any) -> None:
    runs, found = shown.space["runs"], shown.space["found"]
    with torch.no_grad():
        bare = plain(input_ids=ids(runs)).logits[0].log_softmax(-1)
    on = adapted(plain, runs, 1.0).logits[0].log_softmax(-1)
    close(found.kl.values[0, 1:], (on.exp() * (on - bare)).sum(-1)[:-1])
    (mean,) = re.findall(r"bare\): (\S+) nats", shown.printed)
    assert abs(float(mean) - float(found.kl.sel(token=slice(0, None)).mean())) < 6e-4


def gated_steering(shown: Shown, plain: Any) -> None:
    conditional_steering(shown, plain)  # of food and of space, before and after


def token_scores(shown: Shown, plain: Any) -> None:
    is_drawn(shown.figure)
    probe, scores = shown.space["probe"], shown.space["scores"]
    with torch.no_grad():
        found = plain(input_ids=ids(shown.space["text"]), output_hidden_states=True)
    expected = found.hidden_states[11][0].numpy() @ probe.weight.values + probe.offset.item()
    close(scores, expected[-scores.size :])


def labelled_monitor(shown: Shown, plain: Any) -> None:
    said, probe = shown.space["said"].isel(prompt=[0]), shown.space["monitor"]
    first = said.prompt_length.item()
    residual = adapted(plain, said, 1.0).hidden_states[13][0, first:-1].double().numpy()
    expected = residual @ probe.weight.values.astype(float) + probe.offset.item()
    score, so_far = (said[name].sel(token=slice(0, None)) for name in ("score", "score_so_far"))
    close(score.values[0][: len(expected)], expected)
    close(so_far.values[0, len(expected) - 1], np.sort(expected)[-5:].mean())
    assert probe.threshold_rate <= 0.2
