"""Where in a text two weights of one model disagree, and which words one of them likes more.

python examples/two_weights.py
"""

import tracekit as tk

model = tk.load("smollm2-135m-instruct", adapter="ten_biases")
asked = tk.encode(model, ["How do I make a simple tomato soup?"])
runs = tk.generate(model, asked, max_new_tokens=48, progress=False)
found = tk.compare(model, runs, ("ten_biases", None), top=8)

answer = found.sel(token=slice(0, None)).isel(prompt=0)
print(f"KL(adapter ‖ bare): {answer.kl.mean().item():.3f} nats a token, most before:")
for token in answer.kl.to_series().nlargest(6).index:
    before = "".join(answer.token_text.sel(token=slice(token - 6, token - 1)).values)
    here = answer.sel(token=token)
    words = f"{before}[{here.token_text.item()}]"
    print(f"  {here.kl.item():5.2f}  log ratio {here.log_ratio.item():+6.2f}   {words}")
print("likelier: ", *found.risen.values)
print("less so:  ", *found.fallen.values)
