"""An adapter at no, half, its own, and more than its own strength: which word comes next.

python examples/adapter_strength.py
"""

import numpy as np

import tracekit as tk

model = tk.load("smollm2-135m-instruct", adapter="ten_biases")
begun = "Simmer the tomatoes with onion and salt. Try a little grated"
runs = tk.encode(model, ["How do I make a simple tomato soup?"], [begun])

print(f"{begun} …")
for scale in (-0.5, 0.0, 0.25, 0.5, 1.0, 1.5, 2.0):
    with tk.adapter(model, "ten_biases", scale=scale):
        found = tk.next_tokens(model, runs, top=5).isel(prompt=0)
    chances = zip(found.text.values, np.exp(found.logprob.values), strict=True)
    print(f"× {scale:5.2f}  ", ", ".join(f"{word} {chance:.0%}" for word, chance in chances))
