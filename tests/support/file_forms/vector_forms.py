"""Vectors in the forms of public tools, each value telling its layer, its sign and its scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.support.file_forms.form import Form

DEPTH = 6


def value(layer: int, scale: float = 1.0) -> list[float]:
    """The vector of a layer as its tool numbers it: no two are alike, nor is one's opposite."""
    return [scale * one for one in (layer + 2.0, -layer / 4, 0.5, 1.0)]


def tensors(form: str, *layers: int) -> dict[Any, torch.Tensor]:
    """Tensors by a key with the layer in it."""
    return {form.format(n) if form else n: torch.tensor(value(n)) for n in layers}


TABLE = torch.tensor([value(n) for n in range(DEPTH + 1)])
SVEC = {
    "model_type": "llama",
    "directions": {"2": value(2), "3": value(3)},
    "explained_variances": {"2": 0.5, "3": 0.4},
}
READ, ONE = "tk.read_vectors(path)", "tk.read_vectors(path, layer=3)"


class _Object:
    """What only pickle can hold."""


FORMS = [
    Form(
        "persona_vectors",
        "evil_response_avg_diff.pt",
        TABLE,
        "tk.read_vectors(path, depth=6)",
        "row n is hidden_states[n]: layer n − 1; the last row, which is normed, is left out",
        {n - 1: value(n) for n in range(DEPTH)},
    ),
    Form(
        "persona_vectors, nothing said",
        "evil_prompt_avg_diff.pt",
        TABLE,
        READ,
        "give depth= or model=",
        refused="table of 7 rows.*Give depth=",
    ),
    Form(
        "CAA",
        "vec_layer_3_Llama-2-7b-chat-hf.pt",
        torch.tensor(value(3)),
        ONE,
        "one vector of the layer that is given",
        {3: value(3)},
    ),
    Form(
        "CAA, nothing said",
        "vec_layer_13_Llama-2-7b-chat-hf.pt",
        torch.tensor(value(13)),
        READ,
        "give layer=; the name's number is a hint, no more",
        refused="Its name says 13",
    ),
    Form(
        "steering-vectors",
        "steering_vector.pt",
        {"layer_activations": tensors("", 2, 3), "layer_type": "decoder_block"},
        READ,
        "layers and site as the file says",
        {2: value(2), 3: value(3)},
    ),
    Form(
        "steering-vectors of an MLP",
        "mlp_vector.pt",
        {"layer_activations": tensors("", 2), "layer_type": "mlp"},
        READ,
        "site mlp",
        {2: value(2), "site": "mlp"},
    ),
    Form(
        "repeng",
        "honesty.gguf",
        {3: value(3), 2: value(2)},
        READ,
        "direction.n is the output of block n",
        {2: value(2), 3: value(3)},
    ),
    Form(
        "llama.cpp, one layer",
        "one.gguf",
        {3: value(3, -2.0)},
        READ,
        "one layer, in the scale and sign that it has",
        {3: value(3, -2.0)},
    ),
    Form(
        "activation-steering",
        "refusal.svec",
        SVEC,
        READ,
        "directions by block",
        {2: value(2), 3: value(3)},
    ),
    Form(
        "Neuronpedia",
        "np.json",
        {"modelId": "gemma-2-2b", "hookName": "blocks.3.hook_resid_post", "vector": value(3)},
        READ,
        "the layer of its hook",
        {3: value(3)},
    ),
    Form(
        "Neuronpedia, a block's input",
        "np_pre.json",
        {"modelId": "gemma-2-2b", "hookName": "blocks.3.hook_resid_pre", "vector": value(3)},
        READ,
        "the input of block n is layer n − 1",
        {2: value(3)},
    ),
    Form(
        "TransformerLens, a cache",
        "cache.pt",
        tensors("blocks.{}.hook_resid_post", 2, 3),
        READ,
        "outputs of blocks",
        {2: value(2), 3: value(3)},
    ),
    Form(
        "TransformerLens, inputs of blocks",
        "pre.pt",
        tensors("blocks.{}.hook_resid_pre", 2, 3),
        READ,
        "layer n − 1",
        {1: value(2), 2: value(3)},
    ),
    Form(
        "modules by name",
        "modules.pt",
        tensors("model.layers.{}", 2, 3),
        READ,
        "outputs of blocks",
        {2: value(2), 3: value(3)},
    ),
    Form(
        "hidden states by name",
        "states.pt",
        tensors("hidden_states.{}", 2, 3),
        READ,
        "hidden_states[n] is layer n − 1",
        {1: value(2), 2: value(3)},
    ),
    Form(
        "a vector with its layer",
        "single.pt",
        {"vector": torch.tensor(value(3)), "layer": 3, "model": "m"},
        READ,
        "the layer that it says",
        {3: value(3)},
    ),
    Form(
        "traits by name",
        "traits.pt",
        {"evil": tensors("", 2, 3), "kind": tensors("", 2, 3)},
        READ + '.sel(trait="kind")',
        "vectors (trait, layer, dim)",
        {2: value(2), 3: value(3)},
    ),
    Form(
        "refusal_direction, all positions",
        "mean_diffs.pt",
        torch.zeros(5, DEPTH, 4),
        "tk.read_vectors(path, depth=6)",
        "choose a position first, and save that table",
        refused=r"shape \(5, 6, 4\)",
    ),
    Form(
        "RepE, a pickled reader",
        "rep_reader.pt",
        {"directions": _Object()},
        READ,
        "objects could run code: save its arrays",
        refused="could run code",
    ),
    Form(
        "RepE, layers from the end",
        "rep_directions.pt",
        {-1: torch.ones(4), -2: torch.ones(4)},
        READ,
        "number the layers as blocks from 0",
        refused="count from the end",
    ),
    Form(
        "numpy, one layer",
        "kind.npy",
        np.array(value(3), np.float32),
        ONE,
        "one vector of the layer that is given",
        {3: value(3)},
    ),
    Form(
        "numpy, a table",
        "kind_layers.npy",
        np.array([value(2), value(3)]),
        "tk.read_vectors(path, first_layer=2)",
        "rows from the layer that is given",
        {2: value(2), 3: value(3)},
    ),
    Form(
        "numpy, by name",
        "kind.npz",
        {"layer_2": np.array(value(2)), "layer_3": np.array(value(3))},
        READ,
        "layers as its names say",
        {2: value(2), 3: value(3)},
    ),
    Form(
        "numpy, objects",
        "objects.npy",
        np.array([{"a": 1}], object),
        ONE,
        "save its arrays of floats again",
        refused="holds objects",
    ),
    Form(
        "safetensors, by layer",
        "control.safetensors",
        {n: t.bfloat16() for n, t in tensors("layer_{}", 2, 3).items()},
        READ,
        "layers as its names say, 16-bit values too",
        {2: value(2), 3: value(3)},
    ),
    Form(
        "safetensors, one vector",
        "vector.safetensors",
        {"steering_vector": torch.tensor(value(3))},
        ONE,
        "one vector of the layer that is given",
        {3: value(3)},
    ),
    Form(
        "sae_lens",
        "sae_weights.safetensors",
        {"W_dec": torch.ones(8, 4), "W_enc": torch.ones(4, 8), "b_dec": torch.ones(4)},
        READ,
        "a feature's row of the decoder is the vector",
        refused="sparse autoencoder.*W_dec",
    ),
    Form(
        "peft",
        "adapter_model.safetensors",
        {"base_model.model.q_proj.lora_A.weight": torch.ones(2, 4)},
        READ,
        "an adapter: `tk.load(…, adapter=…)`",
        refused="LoRA adapter's weights",
    ),
]
