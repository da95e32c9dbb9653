"""A section and a line of the verdict come from outside: one entry each, and all pages have it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import tracekit as tk
from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.row import Row, from_dataset
from experiments.audit.evidence.section import Section
from experiments.audit.phases import analysis
from experiments.audit.sections import SECTIONS
from experiments.audit.settings.groups import Null, Settings
from experiments.audit.verdict.criteria import LEVELS
from experiments.audit.verdict.judgement import Judgement
from experiments.audit.verdict.lines import Criterion, Level
from experiments.audit.verdict.lines import from_dataset as lines_of
from tests.support.oracles.planted_run import build

HOSTILE = "<script>alert(2)</script>"


def lengths(audit: Audit) -> list[Row]:
    """The mean length of the responses: a section of one's own."""
    return [Row("length", f"all {HOSTILE}", "tokens", float(audit.rows["length"].mean()))]


def brief(audit: Audit) -> Judgement:
    """A line of one's own, judged by that section's number."""
    (row,) = audit.once(lengths)
    return Judgement("met" if row.estimate < 100 else "not met", f"{row.estimate:.0f} tokens")


TOY = Section("length", f"How long the responses are, in tokens {HOSTILE}.", lengths)
SHORT = Level("short", "of one's own", (Criterion("responses are short", brief),))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings]:
    folder = tmp_path_factory.mktemp("planted") / "run"
    null = Null(directions=19, repetitions=20)
    settings = replace(build(folder, effect=2.0), null=null)
    analysis.run(folder, settings)
    return folder, settings


def test_a_section_from_outside_is_in_the_table_the_page_and_the_file(
    planted: tuple[Path, Settings], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(planted[0], tmp_path / "run"))
    analysis.run(folder, planted[1], sections=(*SECTIONS, TOY))
    table = (folder / "table.txt").read_text("utf-8")
    (line,) = [line for line in table.splitlines() if line.startswith("length ")]
    assert f"all {HOSTILE}" in line
    assert "24.000" in line
    page = (folder / "report.html").read_text("utf-8")
    shown = page[page.index("<h3>length</h3>") : page.index("What these numbers are")]
    assert "How long the responses are, in tokens &lt;script&gt;" in shown
    assert "<td>24.000</td>" in shown
    assert HOSTILE not in page
    (row,) = [r for r in from_dataset(tk.open(folder / "rows.nc")) if r.section == "length"]
    assert row.estimate == 24
    # and nothing else has changed
    before = (planted[0] / "table.txt").read_text("utf-8")
    assert table.count("\n") == before.count("\n") + 1
    assert "<h3>length</h3>" not in (planted[0] / "report.html").read_text("utf-8")


def test_a_line_from_outside_is_in_the_verdict_the_table_and_the_page(
    planted: tuple[Path, Settings], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(planted[0], tmp_path / "run"))
    analysis.run(folder, planted[1], levels=(*LEVELS, SHORT))
    assert "responses are short  24 tokens" in (folder / "table.txt").read_text("utf-8")
    page = (folder / "report.html").read_text("utf-8")
    assert '<h3>short: <span class="met">met</span></h3>' in page
    line = lines_of(tk.open(folder / "verdict.nc"))[-1]
    assert (line.level, line.asked, line.status) == ("short", "responses are short", "met")


def test_a_row_under_another_heading_is_refused(planted: tuple[Path, Settings]) -> None:
    settings = planted[1]
    stray = Section("mine", "How long the responses are, in tokens.", lengths)
    with pytest.raises(ValueError, match=r"'mine' were asked for; some are of 'length'"):
        analysis.audited(planted[0], settings, sections=[stray]).rows


def test_every_section_says_what_its_numbers_are_in_one_sentence() -> None:
    assert all(section.caption.endswith(".") for section in SECTIONS)
    captions = [section.caption for section in SECTIONS]
    assert len(set(captions)) == len(captions)


def test_a_statistic_is_computed_once(planted: tuple[Path, Settings]) -> None:
    calls: list[Audit] = []

    def count(audit: Audit) -> int:
        calls.append(audit)
        return len(calls)

    audit = analysis.audited(*planted).audit
    assert (audit.once(count), audit.once(count)) == (1, 1)
    other = audit.of(audit.rows.isel(prompt=slice(0, 4)))
    assert other.once(count) == 2
    assert other.rows.sizes["prompt"] == 4
