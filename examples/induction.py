"""Heads that go on as before: after "apple cloud … apple" comes "cloud" (induction)."""

import tracekit as tk

model = tk.load("smollm2-135m-instruct")
words = "river apple cloud stone tiger lamp green horse river"
known = tk.encode(model, [f" {words} apple"], template="raw")  # apple was followed by cloud
unknown = tk.encode(model, [f" {words.replace('apple cloud', 'book ball')} apple"], template="raw")
metric = tk.logit_difference(model, " cloud", " ball")
first_order = tk.attribution_patching(
    model, unknown, known, metric=metric, sites="heads", tokens=[-1]
)
heads = first_order.isel(prompt=0, token=0).stack(place=("layer", "site"))
print(f"{first_order.unpatched.item():.1f} → {first_order.source.item():.1f} nats; by one head:")
for layer, site in heads.place.values[abs(heads.values).argsort()[::-1][:5]]:
    both = {}
    for way, sides in {"denoising": (unknown, known), "noising": (known, unknown)}.items():
        given = {"metric": metric, "layers": [layer], "sites": "heads", "tokens": [-1]}
        found = tk.activation_patching(model, *sides, **given).sel(site=site).squeeze()
        both[way] = (found - found.unpatched).item()
    print(f"layer {layer}, {site}:", {way: round(change, 2) for way, change in both.items()})
