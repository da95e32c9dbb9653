"""Steering that acts only at tokens where the text has left its side of a direction.

python examples/steer_where_needed.py
"""

import tracekit as tk

model = tk.load("smollm2-135m-instruct")
texts = ["I love this.", "What great news.", "I hate this.", "What awful news."]
runs = tk.encode(model, texts, template="raw")
mean = tk.capture(model, runs, [12], tokens=slice(-2, None), reduce="mean").sel(layer=12)
vector = (mean[:2].mean("prompt") - mean[2:].mean("prompt")).assign_attrs(mean.attrs)

asked = tk.encode(model, ["Tell me about your day.", "How is the weather?"])
plain = tk.generate(model, asked, max_new_tokens=16)
along = tk.capture(model, plain, [12]).sel(layer=12) @ vector  # at each token
gloomy = tk.when(vector, below=float(along.median()))
print(f"never: {plain.response.values.tolist()}")
for name, condition in {"where gloomy": gloomy, "always": None}.items():
    edited = tk.steer(model, vector, coefficient=0.5, when=condition)
    said = tk.generate(edited, asked, max_new_tokens=16)
    print(f"{name}: {said.response.values.tolist()}")
