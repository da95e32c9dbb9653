"""The logit lens: what each layer would say next, and how likely the right word is by then.

python examples/logit_lens.py
"""

import tracekit as tk

model = tk.load("smollm2-135m-instruct")
runs = tk.encode(model, ["The Eiffel Tower stands in the city of"], template="raw")
traces = tk.capture(model, runs, tokens=[-1]).isel(prompt=0, token=0)  # (layer, dim)
words = tk.unembed(model, traces, top=4)
chosen = tk.logit_lens(model, traces, [" Paris", " Rome"])

lead = chosen.logprob.sel(choice=" Paris") - chosen.logprob.sel(choice=" Rome")
rank = chosen.token_rank.sel(choice=" Paris")
for layer in [*range(0, 24, 6), *range(22, 30)]:
    said = "|".join(f"{word:>7}" for word in words.promoted.sel(layer=layer).values)
    nats, place = lead.sel(layer=layer).item(), rank.sel(layer=layer).item()
    print(f"layer {layer:2d}   Paris: rank {place:5d}, {nats:+5.1f} nats over Rome  {said}")
print("the model says:", "|".join(tk.next_tokens(model, runs, top=4).text.values[0]))
