"""Where a model keeps who gives and who gets: one residual at a time from another prompt.

python examples/activation_patching.py [FIGURE]    (activation_patching.png: denoised, noised)
"""

import sys

import matplotlib.pyplot as plt

import tracekit as tk

model = tk.load("smollm2-135m-instruct")
texts = [f"When Mary and John went to the shop, {who} gave a drink to" for who in ("John", "Mary")]
clean, corrupted = (tk.encode(model, [text], template="raw") for text in texts)
metric, figure = tk.logit_difference(model, " Mary", " John"), plt.figure(figsize=(11, 4))
arms = {"denoising": (corrupted, clean), "noising": (clean, corrupted)}
for place, (name, (runs, sources)) in enumerate(arms.items(), 1):
    found = tk.activation_patching(model, runs, sources, metric=metric, layers=range(0, 30, 3))
    share = ((found - found.unpatched) / (found.source - found.unpatched)).squeeze()
    share.plot.imshow(ax=figure.add_subplot(1, 2, place), yincrease=False, vmin=-1, cmap="RdBu_r")
    plt.xticks(share.token, runs.token_text.values[0], rotation=90)
    plt.title(f"{name}: {found.unpatched.item():+.2f} to {found.source.item():+.2f} nats")
    print(f"{name}: what the second name's residual carries over, and the last one's")
    print(share.sel(token=[-5, -1]).to_pandas()[::2].round(2).to_string())
plt.savefig(sys.argv[1] if sys.argv[1:] else "activation_patching.png", bbox_inches="tight")
