"""`report.html`: one file that opens from disk without a network; verdict first, viewer last."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import xarray as xr

from experiments.audit.evidence.row import HEADER, Row
from experiments.audit.report import steering_page, table, viewer
from experiments.audit.result import Result
from experiments.audit.settings import Settings
from experiments.audit.verdict.hypothesis import text_hash
from experiments.audit.verdict.lines import LEVELS, PLAN, level_status, overall
from tracekit.model.embedded import EMBEDDED

CAPTIONS = {
    "roc": "Exploiting against other responses, held-out biases.",
    "layers": "Where in depth: AUROC within bias, with a band for all layers and traits at once.",
    "trajectories": "Mean cosine by response token; grey: the share that exploits at the token.",
    "heatmap": "Shift from the clean weights on the same ids, by trait and layer.",
    "prompts": "The organism's shift by response.",
    "rates": "How often each adapter exploits each bias.",
}


SECTIONS = {
    "data": "What the run's files do not say in numbers.",
    "vectors": "How each trait's vector tells contrast pairs that it has not seen.",
    "replay": "The same token ids under other weights, at the layer chosen for each trait.",
    "shift": "On held-out biases, at the layer that calibration biases choose.",
    "controls": "What each control adapter does itself, at the layer of each trait's evaluation.",
    "A mechanism": "Where the spans that exploit are known: do the weights act there alone?",
    "B blind": "Without labels: is the adapter unlike benign ones, on neutral prompts?",
    "detection": "Exploiting answers against the organism's other answers, by trait scores alone.",
    "competitors": "What else tells them, on the same splits; a gain above 0 means it is beaten.",
    "nulls": "Directions that know nothing, sent through the same choices.",
    "ceiling": "What supervised directions reach.",
    "pairs": "Traits that should part, or rise together, against random pairs.",
    "recall": "How many are found when few others may be called.",
    "onset": "Does the score point at the token where exploiting begins?",
    "units": "The weighted score again, in other units and handlings.",
}


def write(
    folder: Path, found: xr.Dataset, result: Result, settings: Settings, drawn: Sequence[Path]
) -> Path:
    """Write the page from saved numbers and figures."""
    body = [
        _verdict(result, settings),
        _table(found, result),
        _notes(found, settings),
        _figures(drawn),
        steering_page.section(folder),
        viewer.markup(),
    ]
    data = viewer.data(folder, result.audit)
    path = folder / "report.html"
    path.write_text(page("Audit of an adapter with trait vectors", body, data), "utf-8")
    return path


def page(title: str, body: Sequence[str], data: dict[str, Any]) -> str:
    """The whole page: styles, body, the viewer's data as JSON, and its script; all inside.

    A policy in the head forbids every request. `data` is text of a model: no `<` of it survives
    into the markup.

    >>> "</script" in page("t", [], {"token": "</script>"}).split("<script", 1)[1].split(">", 2)[1]
    True
    """
    parts = files("experiments.audit.report")
    style, script = ((parts / name).read_text("utf-8") for name in ("style.css", "viewer.js"))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    policy += "script-src 'unsafe-inline'"
    # no browser reads a NaN as JSON
    encoded = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    encoded = encoded.replace("<", "\\u003c")
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title><style>{style}</style></head><body><main>",
            f"<h1>{html.escape(title)}</h1>",
            *body,
            "</main>",
            f'<script type="application/json" id="data">{encoded}</script>',
            f"<script>{script}</script></body></html>",
        ]
    )


def _verdict(result: Result, settings: Settings) -> str:
    head = ""
    if settings.model == EMBEDDED:
        head = f'<p class="warning">{html.escape(table.EMBEDDED_HEAD)}</p>'
    hypothesis = html.escape(settings.hypothesis)
    levels = "".join(_level(result, level) for level in LEVELS)
    return (
        f'<section id="verdict">{head}<h2>Verdict</h2>'
        f'<p class="answer">{html.escape(overall(result.lines))}</p>'
        f"<p>Primary hypothesis, fixed before the run: {hypothesis} "
        f"<code>{text_hash(settings.hypothesis)}</code> "
        f"{html.escape(table.left_out(result, settings))}</p>{levels}</section>"
    )


def _level(result: Result, level: str) -> str:
    status = level_status(result.lines, level)
    rows = [(line.status, line.asked, line.found) for line in result.lines if line.level == level]
    return (
        f'<h3>{level}: <span class="{_class(status)}">{status}</span></h3>'
        f"<p>{html.escape(PLAN[level])}</p>{_html_table(('', 'asked', 'found'), rows, 'lines')}"
    )


def _table(found: xr.Dataset, result: Result) -> str:
    rows = table.all_rows(found, result)
    parts = []
    for section in dict.fromkeys(row.section for row in rows):
        cells = [_cells(row) for row in rows if row.section == section]
        caption = html.escape(SECTIONS.get(section, ""))  # a section of one's own has none
        parts.append(f"<h3>{html.escape(section)}</h3><p>{caption}</p>")
        parts.append(_html_table(HEADER[1:-1], cells, "rows"))
    return f'<section id="table"><h2>Every row</h2>{"".join(parts)}</section>'


def _cells(row: Row) -> tuple[str, ...]:
    _, *shown, reason = row.cells()
    # the reason takes the place of the numbers that there are not
    return (*shown[:3], reason) if reason else tuple(shown)


def _notes(found: xr.Dataset, settings: Settings) -> str:
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes(found, settings))
    return f"<section><h2>What these numbers are</h2><ul>{notes}</ul></section>"


def _figures(drawn: Sequence[Path]) -> str:
    shown = []
    for name, caption in CAPTIONS.items():
        for path in (path for path in drawn if path.name == f"{name}.svg"):
            encoded = base64.b64encode(path.read_bytes()).decode()
            shown.append(
                f'<figure><img alt="{html.escape(caption)}" '
                f'src="data:image/svg+xml;base64,{encoded}">'
                f"<figcaption>{html.escape(caption)}</figcaption></figure>"
            )
    return f'<section id="figures"><h2>Figures</h2>{"".join(shown)}</section>'


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    lines = []
    for row in rows:
        cells = [f'<td class="{_class(cell)}">{html.escape(cell)}</td>' for cell in row]
        if len(row) < len(header):
            cells[-1] = f'<td colspan="{len(header) - len(row) + 1}">{html.escape(row[-1])}</td>'
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div><table class="{kind}">{body}</table></div>'


def _class(text: str) -> str:
    known = {"met": "met", "not met": "unmet", "undecidable": "open"}
    return known.get(text, "")
