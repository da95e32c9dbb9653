"""One model type against plain transformers + peft: values, generation, steering; with a LoRA."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from transformers import AutoModelForCausalLM, AutoTokenizer

import tracekit as tk
from tests.support.models import tiny, tiny_configurations
from tests.support.oracles import additions, unbatched

TEXTS = (
    "The quick brown fox jumps over the lazy dog, and then it sleeps for a while.",
    "Paris is the capital of France.",
    "Yes, it is.",
)
COLUMNS = ("residual", "attention", "mlp", "logprobs", "generation", "steering")
# of a token's norm, and in nats: what float32 explains between a text in a batch and alone
BOUND = 1e-4
NEW, BACK, TIE = 6, 3, 1e-3
REFUSALS = (ValueError, TypeError, KeyError, FileNotFoundError)
Cell = tuple[str, str]  # outcome (a number, "refused", "wrong …", "crash"), and the reason


def build(kind: str, folder: Path, seed: int = 0) -> Path:
    """A random tiny model of a type, saved with a tokenizer of its own vocabulary.

    Errors: `ValueError` for a type that is not built, and whatever transformers raises.
    """
    words = tiny.tokenizer(TEXTS)
    words.save_pretrained(folder)
    ends = {
        f"{name}_token_id": getattr(words, f"{name}_token_id") for name in ("bos", "eos", "pad")
    }
    sizes = tiny_configurations.settings(kind, len(words), ends)
    tiny.module(kind, sizes, seed).save_pretrained(folder)
    return folder


def plain(folder: Path, lora: Path | None, change: Callable[[Any], None] | None = None) -> Any:
    """Unsteered and steered, as plain transformers (and peft) say; the vector with them."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if change is not None:
        change(model)
    if lora is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, lora).eval().get_base_model()
    rows = [AutoTokenizer.from_pretrained(folder)(text)["input_ids"] for text in TEXTS]
    blocks = unbatched.decoder_blocks(model, rows[0])
    straight = unbatched.read(model, blocks, rows, NEW)
    at = len(blocks) // 2
    stream = straight.sites["residual", at]
    vector = torch.randn(stream.shape[-1], generator=torch.Generator().manual_seed(7))
    vector *= stream.norm(dim=-1).mean() / vector.norm()
    bent = _steered(model, blocks, rows, at, vector)
    return straight, bent, at, vector


def _steered(model: Any, blocks: Any, rows: Any, at: int, vector: torch.Tensor) -> unbatched.Said:
    parts = []
    for row in rows:
        with unbatched.steered(blocks[at], vector, len(row) - BACK):
            parts.append(unbatched.read(model, blocks, [row], NEW, proved=False))
    return unbatched.Said(
        {},
        [part.logprobs[0] for part in parts],
        [part.ids[0] for part in parts],
        [part.margins[0] for part in parts],
    )


def row(model: Any, reference: Any) -> dict[str, Cell]:
    """The six cells of a loaded model against what `plain` said."""
    straight, bent, at, vector = reference
    runs = tk.encode(model, TEXTS, template="raw")
    cells = {site: site_cell(model, runs, site, straight) for site in unbatched.SITES}
    cells["logprobs"] = outcome(lambda: nats(model, runs, straight))
    cells["generation"] = outcome(lambda: _ids(model, runs, straight))
    direction = xr.DataArray(vector.numpy(), dims="dim", coords={"layer": at})

    def steering() -> str:
        span = slice(-BACK, None)
        edited = tk.steer(model, direction, coefficient=1.0, layers=[at], tokens=span)
        scores, ids = nats(edited, runs, bent), _ids(edited, runs, bent)
        return next((cell for cell in (scores, ids) if cell.startswith("wrong")), scores)

    cells["steering"] = outcome(steering)
    return cells


def outcome(measure: Callable[[], str]) -> Cell:
    """What a measurement came to: its own word, or `refused` or `crash` with the reason."""
    try:
        return measure(), ""
    except Exception as error:
        return failed(error)


def failed(error: Exception) -> Cell:
    """`refused` for an error that tracekit raised for the user, else `crash`; with the reason."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, REFUSALS) and "/tracekit/" in frame.filename:
        return "refused", " ".join(str(error).split())
    return "crash", _words(error)


def site_cell(model: Any, runs: xr.Dataset, site: str, straight: unbatched.Said) -> Cell:
    """A site at every layer; where all together are refused, at each layer that is not."""
    layers = list(range(len(model.layers)))
    whole = outcome(lambda: _gap(model, runs, site, layers, straight))
    if whole[0] != "refused":
        return whole
    parts = [outcome(lambda n=n: _gap(model, runs, site, [n], straight)) for n in layers]  # type: ignore[misc]
    given = [part for part, _ in parts if part != "refused"]
    bad = [part for part in given if not _is_number(part)]
    if not given or bad:
        return (bad[0] if bad else "refused"), whole[1]
    return f"{max(map(float, given)):.1e} ({len(given)} of {len(layers)})", whole[1]


def _gap(
    model: Any,
    runs: xr.Dataset,
    site: str,
    layers: list[int],
    straight: unbatched.Said,
    budget: int | None = None,
) -> str:
    options: dict[str, Any] = {"tokens": "all", "progress": False, "token_budget": budget or None}
    traces = tk.capture(model, runs, layers, site=site, **options)
    flat = traces.stack(place=("prompt", "token")).dropna("place", how="all")
    worst = 0.0
    for layer in layers:
        ours = torch.as_tensor(flat.sel(layer=layer).transpose("place", "dim").values)
        theirs = straight.sites.get((site, layer))
        if theirs is None:
            return f"wrong: layer {layer} adds no such part"
        if theirs.shape != ours.shape:
            return f"wrong: shape {tuple(ours.shape)}, not {tuple(theirs.shape)}"
        worst = max(worst, _largest(ours, theirs))
    return judged(worst)


def _largest(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    # a token to which a part adds nothing is measured against the others
    norms = theirs.norm(dim=-1)
    return float(
        ((ours - theirs).norm(dim=-1) / norms.clamp(min=1e-3 * norms.mean() + 1e-12)).max()
    )


def judged(gap: float) -> str:
    """A gap as the table shows it."""
    return f"{gap:.1e}" if gap <= BOUND else f"wrong: {gap:.1e}"


def nats(model: Any, runs: xr.Dataset, said: unbatched.Said) -> str:
    """The largest difference of log-probabilities, as the table shows it."""
    values = tk.logprobs(model, runs).transpose("prompt", "token").values
    worst = 0.0
    for ours, theirs in zip(values, said.logprobs, strict=True):
        # a model may have no logit at all for what it never says
        pair = ours[np.isfinite(ours)], theirs[torch.isfinite(theirs)].numpy()
        if len(pair[0]) != len(pair[1]):
            return f"wrong: {len(pair[0])} values, not {len(pair[1])}"
        worst = max(worst, float(np.abs(pair[0] - pair[1]).max()))
    return judged(worst)


def _ids(model: Any, runs: xr.Dataset, said: unbatched.Said) -> str:
    longer = tk.generate(model, runs, max_new_tokens=NEW, progress=False)
    ids = longer.token_id.sel(token=slice(0, None)).transpose("prompt", "token").values
    for number, (mine, theirs) in enumerate(zip(ids, said.ids, strict=True)):
        ours = mine[mine >= 0].tolist()
        if ours != theirs and said.margins[number] > TIE:
            return f"wrong: row {number} says {ours}, not {theirs}"
    return "equal"


def _is_number(text: str) -> bool:
    return text[:1].isdigit()


def measure(kind: str, scratch: Path) -> list[dict[str, str]]:
    """The rows of a model type: without a LoRA, and with one."""
    folder = scratch / "model"
    try:
        build(kind, folder)
        reference = plain(folder, None)
    except Exception as error:
        return [record(kind, "no", "transformers", reason=_words(error))]
    try:
        model = tk.load(folder, dtype="float32")
    except Exception as error:
        return [record(kind, "no", *refused_whole(folder, reference, error))]
    bare = record(kind, "no", "", row(model, reference))
    try:
        lora = tiny.build_lora(folder, scratch / "lora")
        reference = plain(folder, lora)
    except Exception as error:
        return [bare, record(kind, "yes", "peft", reason=_words(error))]
    rows: list[dict[str, Cell]] = []

    def adapted() -> str:
        with tk.adapter(model, lora):
            rows.append(row(model, reference))
        return ""

    word, reason = outcome(adapted)
    return [bare, record(kind, "yes", word, rows[0] if rows else {}, reason=reason)]


def refused_whole(
    folder: Path, reference: Any, error: Exception
) -> tuple[str, dict[str, Cell], str]:
    """What `load` refused or broke on, and the residual stream that it would have read."""
    word, reason = failed(error)
    if word == "crash":
        return "crash", {}, reason

    def residual() -> str:
        model = tk.load(folder, dtype="float32", check=False)
        runs = tk.encode(model, TEXTS, template="raw")
        layers = list(range(len(model.layers)))
        if _shape_of_stream(folder) != 3:
            return "no stream (row, column, dim)"
        cells = (_gap(model, runs, "residual", layers, reference[0], alone) for alone in (0, 1))
        return next((cell for cell in cells if _is_number(cell)), "wrong")

    return "refused whole", {"residual": outcome(residual)}, reason


def _shape_of_stream(folder: Path) -> int:
    """The number of dims of (row, column, dim) that plain blocks' outputs have, for two rows."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    blocks = unbatched.decoder_blocks(model, [1] * 5)
    seen: list[torch.Tensor] = []
    handle = blocks[0].register_forward_hook(lambda *a: seen.append(additions.tensor(a[-1])))
    with torch.no_grad():
        model(input_ids=torch.ones(2, 5, dtype=torch.long), use_cache=False)
    handle.remove()
    wanted = (2, 5, model.config.get_text_config().hidden_size)
    return sum(a == b for a, b in zip(seen[0].shape, wanted, strict=False))


def record(
    kind: str, lora: str, word: str, cells: Mapping[str, Cell] | None = None, reason: str = ""
) -> dict[str, str]:
    """A row of the table; its outcome is the worst of its cells unless `word` says it."""
    cells = cells or {}
    words = [cell for cell, _ in cells.values()]
    worst = (w for w in ("crash", "wrong", "refused") if any(c.startswith(w) for c in words))
    partly = "refused" if any("(" in cell for cell in words) else "right"
    reasons = [reason, *dict.fromkeys(why for _, why in cells.values() if why)]
    return {
        "kind": kind,
        "lora": lora,
        "outcome": word or next(worst, partly),
        **{column: cells.get(column, ("", ""))[0] for column in COLUMNS},
        "reason": " | ".join(why for why in reasons if why),
    }


def _words(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
    return f"{where}: {' '.join(str(error).split())}"
