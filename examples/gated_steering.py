"""A probe decides where an edit acts: only in answers whose score so far is over its threshold.

python examples/gated_steering.py
"""

import tracekit as tk
import traits

food = ["Chop the onions and fry them.", "Boil the soup with bread.", "Bake the cake for an hour."]
food += ["Add salt and butter to the rice.", "Peel the potatoes first.", "Eat the apple raw."]
sky = ["The moon circles the earth.", "Mars is a cold planet.", "Stars are far away suns."]
sky += ["A comet has a long tail.", "The rocket left the orbit.", "Saturn has many rings."]
model = tk.load("smollm2-135m-instruct")
runs = tk.encode(model, ["Go on."] * 12, [*food, *sky], template="raw")
traces = tk.capture(model, runs, [10], tokens=slice(0, None), progress=False)
label = traces.group.copy(data=[1] * 6 + [0] * 6)
probe = traits.fit(traces, label, method="mean_diff", fractions={"fit": 0.8, "report": 0.2})
sweet = tk.encode(model, ["I love chocolate, so add it.", "I love music, so hear it."])
means = tk.capture(model, sweet, [14], tokens=slice(-9, -6), reduce="mean", progress=False)[:, 0]
gate = tk.when(probe, above=0.0, pooling="mean")
edited = tk.steer(model, means[0] - means[1], coefficient=1.5, when=gate)
asked = tk.encode(model, ["How do I make tomato soup?", "How far is it to Mars?"])
for name, one in (("before", model), ("after", edited)):
    for text in tk.generate(one, asked, max_new_tokens=24, progress=False).response.values:
        print(f"{name:>6}: {' '.join(text.split())}")
