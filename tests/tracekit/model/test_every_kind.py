"""Ten kinds of architecture against plain transformers + peft, each text alone, with a LoRA on."""

import pytest
import torch

import tracekit as tk
from tests.support.models import tiny
from tests.support.oracles import every_kind

# kind → the sites that it has not, or not at every layer: what is refused, and never read
SAMPLE = {
    "gemma2": {},  # softcaps on logits and attention, norms after each part, tied
    "granite": {},  # five scales
    "granitemoe": {},  # the same, and a mixture of experts under another name
    "cohere": {},  # parallel parts, a logit scale, tied
    "gpt_bigcode": {},  # multi-query
    "mixtral": {},  # experts, untied
    "bamba": {},  # Mamba and attention blocks
    "mamba": {},
    "bert": {},  # norms the stream itself
    "gemma3": {},  # the text model of a vision-language one
}


@pytest.fixture(scope="module", params=SAMPLE)
def measured(request, tmp_path_factory):
    folder = every_kind.build(request.param, tmp_path_factory.mktemp(request.param))
    lora = tiny.build_lora(folder, tmp_path_factory.mktemp("adapter"))
    model = tk.load(folder, dtype="float32", adapter=lora)
    return request.param, folder, lora, model, every_kind.plain(folder, lora)


def test_every_value_is_right_or_refused_with_a_reason(measured):
    _, _, _, model, reference = measured
    cells = every_kind.row(model, reference)
    assert not [name for name, (word, _) in cells.items() if word.startswith(("wrong", "crash"))]


def nudge(model):
    inner = [p for name, p in model.named_parameters() if ".1." in name and p.ndim > 1]
    with torch.no_grad():
        # the first may be an image tower's, the last a router's
        for weight in (inner[0], inner[-1]):
            weight.flatten()[5] += 0.2


def test_one_perturbed_weight_shows(measured):
    _, folder, lora, model, _ = measured
    straight = every_kind.plain(folder, lora, change=nudge)[0]
    runs = tk.encode(model, every_kind.TEXTS, template="raw")
    assert every_kind.site_cell(model, runs, "residual", straight)[0].startswith("wrong")
    assert every_kind.nats(model, runs, straight).startswith("wrong")
