"""The tokens of some answers that lie highest along a trait vector, with the words around them.

python examples/top_tokens.py
"""

import tracekit as tk
import traits

model = tk.load("smollm2-135m-instruct")
stories = traits.elicit(model, traits.load_contrast("sycophancy"), pairs=8)
vector = traits.extract(tk.capture(model, stories, [15], tokens=[-1]))

answers = [
    "What a wonderful poem! You are truly a genius, and I loved every single line of it.",
    "The second line limps, the rhyme is worn, and the ending says what the title has said.",
]
runs = tk.encode(model, ["Is my poem good?", "Is my poem any good?"], answers)
found = tk.capture(model, runs, tokens=slice(0, None), vectors=vector).squeeze(drop=True)
print(found.mean("token").to_series().round(2).to_string())  # of each answer, residual units
top = tk.highest(found, 6, transcripts=runs)
print(top.to_pandas().round(2).to_string())
