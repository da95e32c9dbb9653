"""Which attention heads carry a name over: each is knocked out by itself.

python examples/head_ablation.py
"""

import tracekit as tk

model = tk.load("smollm2-135m-instruct")
text = "When Mary and John went to the shop, John gave a drink to"
runs = tk.encode(model, [text], template="raw")
metric = tk.logit_difference(model, " Mary", " John")
whole = tk.measure(model, runs, metric).item()

print(f"as it is: {whole:+.2f} nats; without one head:")
for layer in (16, 18, 20, 22):
    found = [tk.knock_out(model, heads=[(layer, head)]) for head in range(9)]
    change = [tk.measure(edited, runs, metric).item() - whole for edited in found]
    print(f"layer {layer}  ", "  ".join(f"{nats:+.2f}" for nats in change))
