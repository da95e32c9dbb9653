"""`report.html`: one file that opens from disk without a network; habits first, viewer last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from experiments.audit.evidence.row import HEADER, Row
from experiments.audit.report import habits, steering_page, table, viewer
from experiments.audit.report.figures import Image, inline
from experiments.audit.result import Result
from experiments.audit.run import Run
from experiments.audit.settings.groups import Settings
from experiments.audit.verdict.hypothesis import text_hash
from tracekit.model.embedded import EMBEDDED

CAPTIONS = {
    "roc": "Exploiting against other responses, held-out biases.",
    "layers": "Where in depth: AUROC within bias, with a band for all layers and traits at once.",
    "trajectories": "Mean cosine by response token; grey: the share that exploits at the token.",
    "heatmap": "Shift from the clean weights on the same ids, by trait and layer.",
    "prompts": "The organism's shift by response.",
    "rates": "How often each adapter exploits each bias.",
}
# what `page` shows beside the viewer; a part that is empty is left out
PARTS = ("habits", "verdict", "tables", "notes", "figures", "steering")


def write(
    folder: Path, analysis: xr.Dataset, result: Result, settings: Settings, drawn: Sequence[Path]
) -> Path:
    """Write the page from saved numbers and figures."""
    parts = {
        "habits": habits.part(folder),
        "verdict": _verdict(result, settings),
        "tables": _tables(result),
        "notes": table.notes(analysis, result, settings),
        "figures": _figures(drawn),
        "steering": steering_page.experiments(folder),
    }
    path = Run(folder).report
    text = page("Audit of an adapter with trait vectors", viewer.viewed(folder).fragment(), parts)
    path.write_text(text, "utf-8")
    return path


def page(title: str, tokens: Markup, parts: Mapping[str, Any] | None = None) -> str:
    """The whole page: styles, `PARTS`, and the fragment of a `tk.View`; all inside.

    All that is put in is escaped, but for the fragment, which is.

    >>> "<b>" in page("<b>", Markup("no tokens"))
    False
    """
    # of this package alone: all else is escaped
    style = Markup((files("experiments.audit.report") / "style.css").read_text("utf-8"))
    shown = {**dict.fromkeys(PARTS), **(parts or {}), "header": HEADER[1:-1]}
    template = _environment().get_template("page.html")
    return template.render(title=title, viewer=tokens, style=style, **shown)


def _environment() -> Environment:
    loader = PackageLoader("experiments.audit", "report")
    return Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _verdict(result: Result, settings: Settings) -> dict[str, Any]:
    levels = [
        {
            "name": level.name,
            "status": result.statuses[level.name],
            "plan": level.plan,
            "rows": [
                (line.status, line.asked, line.found)
                for line in result.lines
                if line.level == level.name
            ],
        }
        for level in result.levels
    ]
    return {
        "warning": table.EMBEDDED_HEAD if settings.model.name == EMBEDDED else "",
        "answer": result.answer,
        "hypothesis": settings.hypothesis.stated,
        "hash": text_hash(settings.hypothesis.stated),
        "left_out": table.left_out(result, settings),
        "levels": levels,
    }


def _tables(result: Result) -> list[dict[str, Any]]:
    """Every heading once, with the captions and rows of all its sections."""
    tables = []
    for heading in dict.fromkeys(section.heading for section in result.sections):
        sections = [section for section in result.sections if section.heading == heading]
        rows = [_cells(row) for section in sections for row in section.table(result.audit)]
        captions = [section.caption for section in sections]
        tables.append({"heading": heading, "captions": captions, "rows": rows})
    return [one for one in tables if one["rows"]]


def _cells(row: Row) -> tuple[str, ...]:
    _, *shown, reason = row.cells()
    # the reason takes the place of the numbers that there are not
    return (*shown[:3], reason) if reason else tuple(shown)


def _figures(drawn: Sequence[Path]) -> list[Image]:
    by_name = {path.stem: path for path in drawn if path.suffix == ".svg"}
    there = [name for name in CAPTIONS if name in by_name]
    return [inline(by_name[name], CAPTIONS[name]) for name in there]
