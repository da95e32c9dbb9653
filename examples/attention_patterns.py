"""Induction: in a text said twice, which heads look from a word to what came after it before.

python examples/attention_patterns.py [FIGURE]     (attention_patterns.png, the strongest head's)
"""

import sys

import matplotlib.pyplot as plt
import xarray as xr

import tracekit as tk

model = tk.load("smollm2-135m-instruct")
runs = tk.encode(model, [" table green seven river quiet lamp" * 2], template="raw")
pattern = tk.capture(model, runs, site="pattern", tokens="all").isel(prompt=0)
period, words = runs.sizes["token"] // 2, runs.token_text.values[0]
query = xr.DataArray(range(-period, 0), dims="pair")
ahead = pattern.sel(query=query, key=query + 1 - period).mean("pair")  # (layer, head)
print(ahead.to_series().nlargest(6).round(3).to_string())
layer, head = ahead.to_series().idxmax()
pattern.sel(layer=layer, head=head).plot.imshow(yincrease=False, cmap="Greys", figsize=(5, 4))
plt.title(f"layer {layer}, head {head}")
plt.xticks(pattern["key"], words, rotation=90)
plt.yticks(pattern["query"], words)
plt.savefig(sys.argv[1] if sys.argv[1:] else "attention_patterns.png", bbox_inches="tight")
