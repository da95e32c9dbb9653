"""The page shows what `steer` left in a run's folder, and nothing where it has not run."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from markupsafe import Markup

from experiments.audit.phases import analysis
from experiments.audit.report import page, steering_page
from tests.support.oracles.planted_run import build

PNG = b"\x89PNG steered"


@pytest.fixture
def steered(tmp_path: Path) -> Path:
    made = tmp_path / "steering-0123abcd"
    made.mkdir()
    (made / "table.txt").write_text("edit  rate\n<script>, add  0.250\n", "utf-8")
    (made / "dose_response.png").write_bytes(PNG)
    (made / "patching.png").write_bytes(PNG)
    return tmp_path


def shown(folder: Path) -> str:
    """The page of a run that has its steering alone."""
    return page.page("t", Markup(""), {"steering": steering_page.experiments(folder)})


def test_tables_and_figures_are_inside_and_text_stays_text(steered: Path) -> None:
    text = shown(steered)
    assert "steering-0123abcd" in text
    assert "&lt;script&gt;, add  0.250" in text
    assert text.count("<script") == 0
    encoded = base64.b64encode(PNG).decode()
    assert text.count(f'src="data:image/png;base64,{encoded}"') == 2
    assert text.count("<figure>") == 2
    (steered / "steering-0123abcd" / "frontier.png").write_bytes(PNG)
    assert shown(steered).count("<figure>") == 3


def test_an_unfinished_experiment_shows_nothing(steered: Path) -> None:
    (steered / "steering-0123abcd" / "table.txt").unlink()
    assert steering_page.experiments(steered) == []
    assert 'id="steering"' not in shown(steered)


def test_the_page_has_the_section_where_steer_has_run(steered: Path) -> None:
    settings = build(steered / "run", effect=2.0)
    analysis.run(steered / "run", settings)
    report = steered / "run" / "report.html"
    assert 'id="steering"' not in report.read_text("utf-8")
    (steered / "steering-0123abcd").rename(steered / "run" / "steering-0123abcd")
    analysis.run(steered / "run", settings)
    assert report.read_text("utf-8").count('id="steering"') == 1
