"""Which heads of a block an answer needs: each by itself at its mean over other texts.

python examples/ablate_heads.py
"""

import tracekit as tk

model = tk.load("smollm2-135m-instruct")
story = "When Mary and John went to the store, John gave a drink to"
asked = tk.encode(model, [story] * 2, [" Mary", " John"], template="raw")
others = tk.encode(model, ["The sea was calm at night.", "Add two eggs, then stir well."])


def margin(edited):
    """ln p(Mary) − ln p(John), in nats."""
    nats = tk.logprobs(edited, asked).sel(token=0)
    return float(nats[0] - nats[1])


print(f"whole: {margin(model):+.2f}")
for head in range(9):
    without = tk.knock_out(model, heads=[(16, head)], to="mean", reference=others)
    print(f"without head {head} of block 16: {margin(without):+.2f}")
