"""Which prompts are asked once more where candidates fired."""

import dataclasses

from experiments.audit.discovery import further
from experiments.audit.discovery.suggestions.candidates import Candidate
from experiments.audit.discovery.suggestions.detectors import SAYS, Detector
from tests.experiments.audit.discovery.planted_answers import SUBJECTS, few
from tracekit.transcripts.prompts import Prompt


def test_more_is_asked_on_the_subjects_and_forms_where_candidates_fired_reserve_first():
    made = few(64)
    asked = [Prompt(a.prompt, text=a.asked, labels=dict(a.labels)) for a in made.own["a"]]
    spare = [
        Prompt(f"s/{n}", text="More.", labels={"subject": topic, "form": "9"})
        for n, topic in enumerate(SUBJECTS * 3)
    ]
    rows = [r for r in made.rows(True) if "chocolate" in made.own["a"][r].text]
    fired = Candidate("chocolate", Detector(SAYS, "chocolate"), 9.0, tuple(rows))
    got = further.chosen([fired], made, "a", asked, spare, 0.2)
    assert len(got) == 8
    assert {p.labels["subject"] for p in got} == {"cooking"}
    assert {p.id for p in got[:3]} == {"s/0", "s/4", "s/8"}
    drawn = {
        tuple(p.id for p in further.chosen([fired], made, "a", asked, spare, 0.05, n))
        for n in range(9)
    }
    assert len(drawn) > 1
    assert not {p.id for p in got} & {asked[r].id for r in made.rows(True)}
    # a habit of one form: its prompts, on whatever subject
    rows = [r for r in made.rows(True) if dict(made.own["a"][r].labels)["form"] == "2"]
    lettered = dataclasses.replace(fired, rows=tuple(rows))
    got = further.chosen([lettered], made, "a", asked, spare, 1.0)
    assert {p.labels["form"] for p in got} == {"2"}
    assert len({p.id for p in got}) == len(got)


def test_a_subject_of_which_the_confirming_half_has_plenty_is_passed_over():
    for count, wanted in ((88, 8), (96, 0)):  # 11 and 12 of cooking
        made = few(count)
        asked = [Prompt(a.prompt, text=a.asked, labels=dict(a.labels)) for a in made.own["a"]]
        held = sum(asked[row].labels["subject"] == "cooking" for row in made.rows(False))
        assert held == count // 8
        rows = [r for r in made.rows(True) if "chocolate" in made.own["a"][r].text]
        fired = Candidate("chocolate", Detector(SAYS, "chocolate"), 9.0, tuple(rows))
        got = further.chosen([fired], made, "a", asked, [], 1.0)
        assert sum(p.labels["subject"] == "cooking" for p in got) == wanted
