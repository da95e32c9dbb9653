"""Steering on one subject only: an edit that acts where a probe is over its threshold.

python examples/conditional_steering.py
"""

import tracekit as tk

model = tk.load("smollm2-135m-instruct")


def direction(layer, towards, against):
    """The difference of the mean residuals of a text's last words: (dim)."""
    runs = tk.encode(model, [towards, against], template="raw")
    means = tk.capture(model, runs, [layer], tokens=slice(-5, -1), reduce="mean").isel(layer=0)
    return means[0] - means[1]


food = direction(10, "Boil the soup with onions and bread.", "The moon and Mars circle in the sky.")
sweet = direction(14, "I love chocolate, so add chocolate.", "I love music, so listen to music.")
asked = tk.encode(model, ["How do I make tomato soup?", "How far is it to Mars?"])
edited = tk.steer(model, sweet, coefficient=2.0, when=tk.when(food, above=200.0))
for name, one in (("before", model), ("after", edited)):
    for text in tk.generate(one, asked, max_new_tokens=30, progress=False).response.values:
        print(f"{name:>6}: {' '.join(text.split())}")
