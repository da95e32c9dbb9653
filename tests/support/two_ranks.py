"""Captures on every rank of a tensor-parallel model; run by test_distributed through torchrun."""

import sys
from pathlib import Path

import torch
import torch.distributed as ranks

import tracekit as tk

TEXTS = ["Where is Paris?", "The sky is blue because"]
SITES = {
    "residual": "residual",
    "attention": "attention",
    "mlp": "mlp",
    "mlp_hidden": "mlp_hidden",
    # a column-wise layer's output and a row-wise one's, as a user's own trace reads them
    "queries": lambda block: block.attn.q_proj.output,
    "down": lambda block: block.mlp.down_proj.output,
}


def main(folder: str, lora: str, other: str, out: str) -> None:
    torch.set_num_threads(1)
    model = tk.load(folder, dtype="float32", tp_plan="auto")
    runs = tk.encode(model, TEXTS, template="raw")
    rank = ranks.get_rank()
    held = [model.layers[0].attn.q_proj._module.weight]
    for name, weights in {"lora": lora, "other": other, "bare": None}.items():
        with tk.adapter(model, weights):
            for site, where in SITES.items():
                traces = tk.capture(model, runs, site=where, tokens="all", progress=False)
                tk.save(traces, Path(out) / f"{name}-{site}-{rank}.nc")
    for site in ("heads", "keys", "pattern"):
        try:
            tk.capture(model, runs, site=site, progress=False)
        except ValueError as error:
            Path(out, f"{site}-{rank}.txt").write_text(str(error))
    held.append(model.layers[0].attn.q_proj._module.lora_B["default"].weight)
    shapes = [str(tuple(weight.to_local().shape)) for weight in held]
    Path(out, f"said-{rank}.txt").write_text(" ".join(shapes))
    ranks.barrier()
    ranks.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
