"""What a changed word does to the answer, and through which tokens: gradients along the way.

python examples/gradient_attribution.py
"""

import tracekit as tk

model = tk.load("smollm2-135m-instruct")
runs, other = (
    tk.encode(model, [f"Rome and Paris are old. The capital of {country} is"], template="raw")
    for country in ("Italy", "France")
)
metric, layers = tk.logit_difference(model, " Rome", " Paris"), [-1, 7, 15, 23]
begin = tk.capture(model, other, layers, tokens="all")
given = {"tokens": "all", "times_input": True, "baseline": begin, "steps": 8}
found = tk.gradients(model, runs, layers, metric=metric, **given).sum("dim").isel(prompt=0)

table = found.to_pandas()  # what each token's residual adds, in nats
table.index = runs.token_text.values[0]
table.loc["sum"] = table.sum()
print(table.round(2).to_string())
