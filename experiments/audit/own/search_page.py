"""A search's own page: what an adapter does that its base does not, without the trait part."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from experiments.audit.discovery.findings import Findings
from experiments.audit.report import habits
from experiments.audit.report.page import page
from experiments.audit.run import Run
from tracekit.storage.files import whole


def write(folder: Path, found: Findings) -> Path:
    """Write the findings' section of the audit's page, alone, into the folder.

    >>> write(Path("search"), Findings("style", [], float("nan"), {})).name
    'report.html'
    """
    text = page(f"Search of {found.adapter}", Markup(""), {"habits": habits.shown(found)})
    path = Run(folder).report
    folder.mkdir(parents=True, exist_ok=True)
    with whole(path, len(text.encode())) as part:
        part.write_text(text, "utf-8")
    return path
