"""Every site inside attention and MLP against plain hooks, on each architecture, with a LoRA."""

import numpy as np
import pytest
import torch

import tracekit as tk
from tests.support.models import tiny
from tests.support.oracles import inside, reference

TEXTS = ("The quick brown fox jumps over the dog.", "Yes, it is.", "No")
SITES = ("heads", "queries", "keys", "values", "pattern", "mlp_hidden", "router")
MIXED = ("Mixtral", "Qwen3-MoE")
# one key head for two query heads
SHARED = {"Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Gemma3", "Phi3", "OLMo2", *MIXED}


@pytest.fixture(scope="module", params=tiny.ARCHITECTURES)
def known(request, words, tmp_path_factory):
    """An architecture's name, ours and a plain one with the same LoRA, and what hooks saw."""
    folder = tmp_path_factory.mktemp("models")
    base = tiny.build(request.param, folder / "model", words)
    lora = tiny.build_lora(base, folder / "lora")
    model = tk.load(base, dtype="float32", tokenizer=words, adapter=lora)
    plain = inside.merged(reference.load(base, lora=lora))
    inputs = reference.padded(words, TEXTS)
    return request.param, model, plain, inputs, inside.read(plain, inputs)


def captured(model, site, **options):
    runs = tk.encode(model, TEXTS, template="raw")
    return tk.capture(model, runs, site=site, tokens="all", progress=False, **options)


def gap(ours, theirs, real):
    """The largest ‖ours − theirs‖ / ‖theirs‖ over tokens."""
    ours, theirs = (
        np.asarray(x)[real.numpy()].reshape(int(real.sum()), -1) for x in (ours, theirs)
    )
    return (np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)).max()


def there(name, inputs):
    """Where a fused projection's queries and keys are not turned by position yet: at the first."""
    real = inputs["attention_mask"].bool()
    if name not in ("Phi3", "GPT-NeoX", "GPT-NeoX sequential"):
        return real
    return real & (inputs["position_ids"] == 0)


@pytest.mark.parametrize("site", SITES)
def test_each_site_is_what_hooks_see_or_is_refused_by_name(known, site):
    name, model, _, inputs, seen = known
    if (site == "router") != (name in MIXED) and site in ("router", "mlp_hidden"):
        with pytest.raises(
            ValueError, match=rf"site='{site}' was asked for, but at layers\[3\] of"
        ):
            captured(model, site)
        return
    real = inputs["attention_mask"].bool()
    traces = captured(model, site)
    places = there(name, inputs) if site in ("queries", "keys") else real
    for layer in range(tiny.DEPTH):
        ours, theirs = traces.sel(layer=layer).values, seen[site, layer].numpy()
        if site == "pattern":
            masked = np.isnan(ours)
            assert np.array_equal(masked, np.broadcast_to(~visible(name, layer, real), ours.shape))
            ours, theirs = np.nan_to_num(ours), np.where(masked, 0, theirs)
        assert gap(ours, theirs, places) <= 1e-5
        # twins: another layer's values, and one number of one token
        other = seen[site, (layer + 1) % tiny.DEPTH].numpy()
        assert gap(ours, np.where(theirs == 0, 0, other), places) > 1e-3
        ours[-1, -1].flat[0] += 1e-2 * np.abs(theirs[-1, -1]).max()
        changed = places.clone()
        changed[-1, -1] = True
        assert gap(ours, theirs, changed) > 1e-4


def visible(name, layer, real):
    """(row, query, 1, key): those that a query sees."""
    columns = torch.arange(real.shape[1])
    back = columns[:, None] - columns
    seen = (back >= 0) & real[:, None] & real[:, :, None]
    windowed = name == "Mistral" or (name == "Gemma2" and layer % 2 == 0) or name == "Gemma3"
    return (seen & (back < 8) if windowed else seen)[:, :, None].numpy()


def test_axes_are_labelled_and_key_heads_may_be_fewer(known):
    name, model, *_ = known
    queries, keys = (captured(model, site, layers=[1]) for site in ("queries", "keys"))
    assert queries.dims == keys.dims == ("prompt", "token", "layer", "head", "dim")
    assert queries["head"].values.tolist() == [0, 1, 2, 3]
    assert keys.sizes["head"] == (2 if name in SHARED else 4)
    assert queries["dim"].values.tolist() == list(range(8))


def test_heads_and_the_bias_sum_to_what_attention_adds(known):
    _, model, plain, inputs, _ = known
    heads, attention = (captured(model, site).values for site in ("heads", "attention"))
    path, *_ = reference.WHERE.get(plain.config.model_type, reference.ELSEWHERE)
    output = inside.PROJECTIONS.get(plain.config.model_type, inside.ELSEWHERE)[0]
    biases = [block.get_submodule(output).bias for block in plain.get_submodule(path)]
    bias = [np.zeros(tiny.WIDTH) if b is None else b.detach().numpy() for b in biases]
    real = inputs["attention_mask"].bool()
    assert gap(heads.sum(3) + np.stack(bias), attention, real) <= 1e-5
    heads[-1, -1, 2, 1] *= 1.01
    assert gap(heads.sum(3) + np.stack(bias), attention, real) > 1e-4
