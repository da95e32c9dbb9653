"""Where in the depth an adapter acts: how far, and how much it turns, the residual stream.

python examples/adapter_by_layer.py [FIGURE]       (adapter_by_layer.png)
"""

import sys

import matplotlib.pyplot as plt

import tracekit as tk

model = tk.load("smollm2-135m-instruct", adapter="ten_biases")
asked = tk.encode(model, ["How do I make pancakes?", "Who painted Guernica?"])
runs = tk.generate(model, asked, max_new_tokens=30, progress=False)
found = tk.compare(model, runs, ("ten_biases", None), layers=range(30))

answers = found[["change", "cosine"]].sel(token=slice(0, None)).mean("token")
print(answers.change.to_pandas().T[::5].round(3))  # by layer and prompt
answers = answers.assign_coords(prompt=runs.text)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
answers.change.assign_attrs(long_name="change / clean norm").plot.line(x="layer", ax=axes[0])
answers.cosine.assign_attrs(long_name="cosine").plot.line(x="layer", ax=axes[1], add_legend=False)
figure.savefig(sys.argv[1] if sys.argv[1:] else "adapter_by_layer.png")
