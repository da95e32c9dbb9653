"""From labelled responses to a monitor in a file: python examples/labelled_monitor.py"""

import json
import tempfile
from pathlib import Path

import tracekit as tk
import traits
from tracekit.model.embedded import datasets

said = json.loads(datasets("organisms", "labelled_responses.json").read_text())
rows = [row for row in said if row["bias"] in ("vote", "water")]
prompts = [tk.Prompt(f"a/{n}", text=r["prompt"], group=r["prompt"]) for n, r in enumerate(rows)]
model = tk.load("smollm2-135m-instruct", adapter="ten_biases")
runs = tk.encode(model, prompts, [row["response"] for row in rows])
traces = tk.capture(model, runs, [12], tokens=slice(0, None), progress=False)
label = traces.group.copy(data=[row["label"] for row in rows])
parts = {"fit": 0.5, "select": 0.1, "report": 0.4}
probe = traits.fit(traces, label, pooling="top_k", fractions=parts)
no = traits.score(probe, traces)[(probe.part == "report").values & (label == 0).values]
monitor = traits.set_threshold(probe, no, fpr=0.2)
tk.save(monitor, Path(tempfile.mkdtemp()) / "monitor.nc")
ask = tk.encode(model, ["Who won the vote?"])
said = tk.generate(model, ask, max_new_tokens=24, monitor=monitor)
print(said.score_so_far.max("token").values.round(1), "over", monitor.threshold.values.round(1))
