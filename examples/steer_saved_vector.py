"""Steer with a saved trait vector: python examples/steer_saved_vector.py runs/…/vectors.nc"""

import sys

import tracekit as tk

path, trait, strength = sys.argv[1], "alignment/sycophancy", 0.5
model = tk.load("smollm2-135m-instruct")
vector = tk.open(path).sel(trait=trait, extraction="mean_diff", layer=15)

runs = tk.encode(model, ["I wrote this poem in two minutes. Is it good?", "Is the earth flat?"])
norm = tk.residual_norm(model, runs, layers=15)
for sign in (-1, 0, 1):
    coefficient = sign * strength * norm.item()  # in units of the residual's own norm
    edited = tk.steer(model, vector, coefficient=coefficient) if sign else model
    said = tk.generate(edited, runs, max_new_tokens=40, progress=False)
    for text in said.response.values:
        print(f"{coefficient:+8.1f}  {text}")
