"""The same function on an instruct model, its nf4 form, and nf4 with a LoRA.

python examples/three_variants.py [ADAPTER]     (a folder, a hub id, or a shipped organism)
"""

import sys

import tracekit as tk

NAME = "smollm2-135m-instruct"


def middle_norm(model):
    """The root-mean-square norm of the residual stream half way up, over the tokens."""
    runs = tk.encode(model, ["Where is Paris?", "Write a haiku about rain."])
    traces = tk.capture(model, runs, [len(model.layers) // 2], tokens="all")
    return float((traces**2).sum("dim", skipna=False).mean() ** 0.5)


adapter = sys.argv[1] if sys.argv[1:] else "ten_biases"
print("instruct   ", middle_norm(tk.load(NAME)))
print("nf4        ", middle_norm(tk.load(NAME, dtype="nf4")))
print("LoRA on nf4", middle_norm(tk.load(NAME, dtype="nf4", adapter=adapter)))
