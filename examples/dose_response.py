"""Praise over blame as a trait vector is added, and a band: dose_response.py [FIGURE]."""

import sys

import xarray as xr

import tracekit as tk
import traits

model = tk.load("smollm2-135m-instruct")
stories = traits.elicit(model, traits.load_contrast("sycophancy"), pairs=8)
traces = tk.capture(model, stories, [15], tokens=slice(-4, -1))
vector = traits.extract(traces).sel(layer=15) * tk.norm(traces).mean().item()
band = traits.random_directions(vector, 8, covariance=traces)
bank = xr.concat([vector.expand_dims(direction=["sycophancy"]), band], "direction")
asked = tk.encode(model, ["He read me his poem, and I told him that it was"], template="raw")
asked = tk.sweep(asked, [-0.6, -0.3, 0.0, 0.3, 0.6], direction=bank.direction)
edited = tk.steer(model, bank, coefficient=asked.coefficient)
lead = tk.measure(edited, asked, tk.logit_difference(model, " great", " bad"))
lead = lead.set_index(prompt=["coefficient", "direction"]).unstack("prompt").to_pandas()
print(lead.round(2).to_string())
axes = lead.plot(color=["0.75"] * 8 + ["C3"], ylabel="ln p(great) − ln p(bad)")
axes.figure.savefig(sys.argv[1] if sys.argv[1:] else "dose_response.png")
