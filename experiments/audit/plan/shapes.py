"""Shapes of models and adapters, from their configurations alone: no weights, no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracekit.errors import InputError
from tracekit.model.embedded import EMBEDDED, adapter_folder, embedded_model

# config.json of meta-llama/Llama-3.1-70B and Llama-3.3-70B-Instruct, at the presets' revisions
LLAMA_70B: dict[str, Any] = {
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 28672,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
BUNDLED = {
    "meta-llama/Llama-3.3-70B-Instruct": LLAMA_70B,
    "meta-llama/Llama-3.1-70B": LLAMA_70B,
    "meta-llama/Llama-3.1-70B-Instruct": LLAMA_70B,
}
# adapter_config.json of the organism and of its earlier stages
BUNDLED_RANK = {"auditing-agents/llama-3.3-70b-": 256, "auditing-agents/llama_70b_": 64}


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama-like decoder."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    head: int
    intermediate: int
    vocabulary: int
    tied: bool

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of the seven projections of a block."""
        queries, keys = self.heads * self.head, self.key_heads * self.head
        attention = [(self.hidden, queries), (self.hidden, keys), (self.hidden, keys)]
        mlp = [(self.hidden, self.intermediate)] * 2 + [(self.intermediate, self.hidden)]
        return [*attention, (queries, self.hidden), *mlp]

    @property
    def in_blocks(self) -> int:
        """Parameters of all projections: what a 4- or 8-bit model holds in fewer bits."""
        return self.layers * sum(a * b for a, b in self.linears)

    @property
    def elsewhere(self) -> int:
        """Parameters of embedding, head and norms."""
        tables = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return tables + (2 * self.layers + 1) * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters.

        >>> shape("meta-llama/Llama-3.3-70B-Instruct").parameters
        70553706496
        """
        return self.in_blocks + self.elsewhere

    def adapter(self, rank: int) -> int:
        """Parameters of a LoRA of that rank on all seven projections."""
        return self.layers * rank * sum(a + b for a, b in self.linears)


def shape(model: str, revision: str = "") -> Shape:
    """The shape of a model: a folder, the embedded one, a hub id (cached, bundled, or fetched).

    Errors: `FileNotFoundError` for a model whose configuration is neither here nor on the hub;
    `ValueError` for one that lacks a size.

    >>> shape("meta-llama/Llama-3.1-70B").layers
    80
    """
    if model == EMBEDDED:
        return _from(json.loads((embedded_model() / "config.json").read_text("utf-8")), model)
    if (Path(model) / "config.json").is_file():
        return _from(json.loads((Path(model) / "config.json").read_text("utf-8")), model)
    if model in BUNDLED:
        return _from(BUNDLED[model], model)
    return _from(_fetched(model, "config.json", revision), model)


def rank(adapter: str) -> int:
    """The rank of an adapter: of a folder, a shipped organism, or a hub id; 0 for none.

    Errors: `FileNotFoundError` for an adapter whose configuration is nowhere.

    >>> rank("ten_biases")
    8
    """
    if not adapter:
        return 0
    config = adapter_folder(adapter) / "adapter_config.json"
    if config.is_file():
        return int(json.loads(config.read_text("utf-8"))["r"])
    known = [found for start, found in BUNDLED_RANK.items() if adapter.startswith(start)]
    return known[0] if known else int(_fetched(adapter, "adapter_config.json", "")["r"])


def at_hand(model: str, *adapters: str) -> bool:
    """Whether the shapes of a model and its adapters are known without the hub.

    >>> at_hand("meta-llama/Llama-3.1-70B", "ten_biases")
    True
    """
    config = Path(model) / "config.json"
    whole = model == EMBEDDED or model in BUNDLED
    if config.is_file():
        found = json.loads(config.read_text("utf-8"))
        whole = not (set(LLAMA_70B) - {"num_key_value_heads"} - set(found))
    return whole and all(
        not name
        or (adapter_folder(name) / "adapter_config.json").is_file()
        or name.startswith(tuple(BUNDLED_RANK))
        for name in adapters
    )


def _fetched(name: str, file: str, revision: str) -> dict[str, Any]:
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(name, file, revision=revision or None, etag_timeout=5)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{file} of {name!r} was asked for; it is no folder here, not bundled "
            f"({', '.join(BUNDLED)}), and the hub did not give it: "
            f"{str(error).splitlines()[0]} Give a local folder; a gated model needs HF_TOKEN."
        ) from error
    return json.loads(Path(path).read_text("utf-8"))


def _from(config: dict[str, Any], name: str) -> Shape:
    config = config.get("text_config", config)
    lacking = [key for key in LLAMA_70B if key not in config and key != "num_key_value_heads"]
    if lacking:
        raise InputError(
            f"The configuration of {Path(name).name!r} lacks {', '.join(lacking)}, so its memory "
            "cannot be planned. Plan a Llama-like model."
        )
    heads = config["num_attention_heads"]
    return Shape(
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        key_heads=config.get("num_key_value_heads") or heads,
        head=config.get("head_dim") or config["hidden_size"] // heads,
        intermediate=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        tied=config["tie_word_embeddings"],
    )
