"""The steering experiments of a run as a section of the page."""

from __future__ import annotations

import base64
import html
from pathlib import Path

CAPTIONS = {
    "dose_response": "Exploitation rate against the strength that is added, by direction.",
    "frontier": "Rate against coherence: what an edit costs in perplexity under the clean model.",
    "by_bias": "By bias: the trait edit of each kind that drops most (chosen on these prompts).",
    "patching": "Clean residuals in the organism's place, a layer at a time: where it dies.",
}


def section(folder: Path) -> str:
    """The tables and figures that `steer` left in a run's folder; empty where it has not run.

    >>> section(Path("runs/smollm2-0123abcd")).startswith('<section id="steering">')
    True
    """
    parts = [_one(table.parent) for table in sorted(folder.glob("steering-*/table.txt"))]
    if not parts:
        return ""
    return f'<section id="steering"><h2>Steering</h2>{"".join(parts)}</section>'


def _one(folder: Path) -> str:
    table = html.escape((folder / "table.txt").read_text("utf-8"))
    drawn = [(folder / f"{name}.png", caption) for name, caption in CAPTIONS.items()]
    figures = "".join(_figure(path, caption) for path, caption in drawn if path.is_file())
    return f"<h3>{html.escape(folder.name)}</h3><div><pre>{table}</pre></div>{figures}"


def _figure(path: Path, caption: str) -> str:
    encoded, text = base64.b64encode(path.read_bytes()).decode(), html.escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{encoded}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
