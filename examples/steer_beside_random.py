"""A dose–response beside its band: a vector, and random directions of its norm and covariance.

python examples/steer_beside_random.py
"""

import xarray as xr

import tracekit as tk
import traits

model = tk.load("smollm2-135m-instruct")
texts = ["I love this.", "What great news.", "I hate this.", "What awful news."]
traces = tk.capture(model, tk.encode(model, texts, template="raw"), [12], tokens="all")
mean = traces.sel(layer=12).mean("token")
vector = (mean[:2].mean("prompt") - mean[2:].mean("prompt")).assign_attrs(traces.attrs)
null = traits.random_directions(vector, 8, covariance=traces.sel(token=slice(-2, None)))
bank = xr.concat([vector.expand_dims(direction=["glad"]), null], "direction")
asked = tk.encode(model, ["Today was"] * 2, [" wonderful", " terrible"], template="raw")
rows = tk.sweep(asked, [-0.5, -0.25, 0.0, 0.25, 0.5], direction=bank.direction)
nats = tk.logprobs(tk.steer(model, bank, coefficient=rows.coefficient), rows).sel(token=0)
nats = nats.set_index(prompt=["group", "direction", "coefficient"]).unstack("prompt")
rise = nats.sel(group="text/0") - nats.sel(group="text/1")
band = rise.sel(direction=null.direction).quantile([0.05, 0.95], "direction").values
for line in zip(rise.coefficient.values, rise.sel(direction="glad").values, *band, strict=True):
    print("{:+.2f}: {:+.2f}, band {:+.2f} to {:+.2f}".format(*line))
