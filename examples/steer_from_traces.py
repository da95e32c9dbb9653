"""A vector from saved traces with xarray alone, and what the model says before and after it.

python examples/steer_from_traces.py runs/…/contrast/alignment.sycophancy.nc 12 0.5
"""

import sys

import tracekit as tk
from tracekit.passes.generating.strength import residual_norm

path, layer, strength = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
traces = tk.open(path).sel(layer=layer)  # (prompt, dim): label 1 shows the trait, 0 its opposite
means = traces.groupby("label").mean("prompt")
direction = means.sel(label=1) - means.sel(label=0)
direction = (direction / (direction**2).sum("dim") ** 0.5).assign_attrs(traces.attrs)

model = tk.load("smollm2-135m-instruct")
asked = tk.encode(model, ["I wrote my first poem. It rhymes love with above. What do you think?"])
before = tk.generate(model, asked, max_new_tokens=40)
coefficient = strength * residual_norm(model, before, [layer]).item()
after = tk.generate(tk.steer(model, direction, coefficient=coefficient), asked, max_new_tokens=40)
print(f"before: {before.response.item()}\nafter:  {after.response.item()}")
