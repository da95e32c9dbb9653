"""Units inside an MLP: which fire most in a text, on which token, with the words around it.

python examples/mlp_units.py
"""

import tracekit as tk

model = tk.load("smollm2-135m-instruct")
text = (
    "The Louvre is in Paris, the Prado in Madrid, and 7 + 5 makes 12. def add(a, b): return a + b"
)
runs = tk.encode(model, [text], template="raw")
hidden = tk.capture(model, runs, [8, 16, 24], site="mlp_hidden", tokens="all", progress=False)

words = runs.token_text.isel(prompt=0)
values = hidden.isel(prompt=0, token=slice(4, -3))
for layer in values.layer.values:
    peaks = values.sel(layer=layer).max("token").to_series().nlargest(3)
    for unit, peak in peaks.items():
        at = int(values.sel(layer=layer, unit=unit).idxmax("token"))
        said = words.sel(token=slice(at - 4, at + 3)).values
        text = f"{''.join(said[:4])}[{said[4]}]{''.join(said[5:])}"
        print(f"layer {layer:2d}  unit {unit:4d}  {peak:5.1f}   {text}")
