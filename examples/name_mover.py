"""Which place carries the name that comes next: patching both ways (indirect object)."""

import tracekit as tk

model = tk.load("smollm2-135m-instruct")
text = "When {} and {} went to the {}, {} gave a {} to"
scenes = [("Mary", "John", "store", "drink"), ("Tom", "Emma", "park", "book")]
# the second name again, so that the first comes next; then the other way round
first = [text.format(a, b, place, b, gift) for a, b, place, gift in scenes]
second = [text.format(a, b, place, a, gift) for a, b, place, gift in scenes]
clean, corrupted = (tk.encode(model, texts, template="raw") for texts in (first, second))
names = [[f" {scene[n]}" for scene in scenes] for n in (0, 1)]
metric = tk.logit_difference(model, *names)

for way, sides in {"denoising": (corrupted, clean), "noising": (clean, corrupted)}.items():
    found = tk.activation_patching(
        model, *sides, metric=metric, layers=range(0, 30, 5), tokens=[-5, -4, -1]
    )
    share = (found - found.unpatched) / (found.source - found.unpatched)
    print(f"{way}: the share that one place carries (-5: the name said again, -1: the end)")
    print(share.sel(site="residual").mean("prompt").to_pandas().round(2).to_string())
