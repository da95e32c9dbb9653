"""The tokens of one part of a conversation, and one word in it against the same word elsewhere.

python examples/turns.py
"""

import tracekit as tk

model = tk.load("smollm2-135m-instruct")
talk = [
    ("user", "Where is Paris?"),
    ("assistant", "It is in France."),
    ("user", "Thank you. And how far is it from there to Rome?"),
]
chat = tk.encode(model, [tk.Prompt("talk/0", messages=talk)])
raw = tk.encode(model, ["A friend of mine lives in Rome"], template="raw")  # no markup

second = tk.find(chat, role="user", turn=1)
print("second user turn:", "|".join(chat.token_text.values[second]))
layers, city = [0, 10, 20, 29], {"role": "user", "turn": 1, "which": "last"}
there = tk.capture(model, chat, layers, tokens=tk.find(chat, "Rome", **city)).values[0, 0]
turn = tk.capture(model, chat, layers, tokens=second, reduce="mean").values[0]
plain = tk.capture(model, raw, layers, tokens=tk.find(raw, "Rome")).values[0, 0]
for name, other in {"the mean of its turn": turn, "Rome in a raw text": plain}.items():
    cosine = (there * other).sum(-1) / ((there**2).sum(-1) * (other**2).sum(-1)) ** 0.5
    print(f"{name:>20} · Rome in the chat, at layers {layers}:", cosine.round(2))
