"""Captures on every rank of a tensor-parallel model; run by test_distributed through torchrun."""

import sys
from pathlib import Path

import torch
import torch.distributed as ranks

import tracekit as tk

TEXTS = ["Where is Paris?", "The sky is blue because"]


def main(folder: str, lora: str, out: str) -> None:
    torch.set_num_threads(1)
    model = tk.load(folder, dtype="float32", tp_plan="auto")
    runs = tk.encode(model, TEXTS, template="raw")
    rank = ranks.get_rank()
    for site in ("residual", "attention", "mlp"):
        traces = tk.capture(model, runs, site=site, tokens="all", progress=False)
        tk.save(traces, Path(out) / f"{site}-{rank}.nc")
    shard = model.layers[0].attn.q_proj._module.weight
    refusal = ""
    try:
        with tk.adapter(model, lora):
            pass
    except ValueError as error:
        refusal = str(error)
    held = tuple((shard.to_local() if hasattr(shard, "to_local") else shard).shape)
    Path(out, f"said-{rank}.txt").write_text(f"{held}\n{refusal}")
    ranks.barrier()
    ranks.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
