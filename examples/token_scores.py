"""Which words a probe goes by: its score of each token of a text, as bars.

python examples/token_scores.py [FIGURE]
"""

import sys

import matplotlib.pyplot as plt

import tracekit as tk
import traits

food = ["Chop the onions and fry them.", "Boil the soup with bread.", "Bake the cake for an hour."]
sky = ["The moon circles the earth.", "Mars is a cold planet.", "Stars are far away suns."]
model = tk.load("smollm2-135m-instruct")
runs = tk.encode(model, ["Go on."] * 6, [*food, *sky], template="raw")
traces = tk.capture(model, runs, [10], tokens=slice(0, None), progress=False)
label = traces.group.copy(data=[1] * 3 + [0] * 3)
probe = traits.fit(traces, label, method="mean_diff", fractions={"fit": 1.0})
text = tk.encode(model, ["Go on."], ["We saw Mars rise while the soup was on."], template="raw")
scores = tk.capture(model, text, probes=probe, progress=False)[0, :, 0]
plt.bar(range(scores.size), scores)
plt.xticks(range(scores.size), scores.token_text.values, rotation=60)
plt.savefig(sys.argv[1] if sys.argv[1:] else "token_scores.png", bbox_inches="tight")
