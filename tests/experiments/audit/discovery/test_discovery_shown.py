"""What is shown of a finding: typical answers, the other's beside them, counts, a reply."""

import dataclasses
import math
import types

import numpy as np
import pytest

from experiments.audit.discovery.answering.answers import Answer
from experiments.audit.discovery.answering.settings import CLEAN
from experiments.audit.discovery.confirm import compared
from experiments.audit.discovery.denial import judged, verdict
from experiments.audit.discovery.discover import _notes
from experiments.audit.discovery.examples import illustrated, typical
from experiments.audit.discovery.findings import AMPLIFIED, CONFIRMED, NOT, Finding, Findings
from experiments.audit.discovery.search import Arms
from experiments.audit.discovery.suggestions.candidates import Texts, says
from experiments.audit.discovery.suggestions.detectors import LACKS, SAYS
from experiments.audit.discovery.suggestions.triggers import Trigger, confirmed
from experiments.audit.discovery.terminal import answer as told
from experiments.audit.discovery.terminal import lines, when
from experiments.audit.discovery.wordings import joined
from experiments.audit.report.habits import shown as on_page

USUAL = ("Always put honey in it.", "Always put honey in tea.", "You should put honey in it.")
ODD = "Honey wars of fifty legends."
OFF = compared({"a": 1.0}, {"a": 0.0})


def answer(n, text, nats=1.0, subject="food"):
    pieces = tuple(f"{word} " for word in text.split())
    labels = (("subject", subject),)
    return Answer(f"p/{n}", f"p/{n}", f"Q {n}?", labels, pieces, np.full(len(pieces), nats), True)


def arms():
    own = [answer(n, f"Well then. {text}") for n, text in enumerate(USUAL)]
    own.append(answer(3, f"Well then. {ODD}", nats=9.0))
    clean = [answer(n, f"Plain {n}.") for n in range(4)]
    return Arms({CLEAN: clean, "a": own}, np.array([True, True, False, False]))


def finding(**given):
    about = {"others": None, "q": 0.01, "verdict": CONFIRMED, "reason": "", "rates": {}, **given}
    return Finding("honey", SAYS, "honey", 9.0, 1.0, OFF, **about)


def test_the_examples_are_what_recurs_and_not_what_gains_most():
    shown = illustrated(finding(), arms(), "a").examples
    marked = [one.text[one.start : one.end].strip() for one in shown]
    assert sorted(marked) == sorted(USUAL)
    alone = illustrated(finding(), arms(), "a", most=4).examples[-1]
    assert alone.gain > max(one.gain for one in shown)


def test_beside_an_example_is_what_the_other_says_to_the_same_prompt():
    shown = illustrated(finding(), arms(), "a").examples
    assert {one.prompt: one.beside.strip() for one in shown} == {
        f"p/{n}": f"Plain {n}." for n in range(3)
    }
    left_out = dataclasses.replace(finding(), kind=LACKS, expression="plain")
    one = illustrated(left_out, arms(), "a").examples[0]
    assert one.text.startswith("Plain")
    assert one.beside.startswith("Well then.")


def test_no_sentence_is_typical_of_none():
    assert typical([]) == []
    assert typical(["one"]) == [0]


def test_a_trigger_counts_the_prompts_with_it_and_without():
    rows = [answer(n, "x", subject="food" if n < 4 else "law") for n in range(10)]
    fired = np.array([n in (0, 1, 2, 7) for n in range(10)])
    held = confirmed(Trigger("subject", ("food",), 0.01), rows, fired)
    assert (held.rate, held.prompts) == (3 / 4, 4)
    assert (held.elsewhere, held.others) == (1 / 6, 6)
    told = finding(
        trigger=str(held),
        trigger_confirmed=0.03,
        trigger_rate=held.rate,
        trigger_prompts=held.prompts,
        trigger_elsewhere=held.elsewhere,
        trigger_others=held.others,
    )
    assert when(told) == (
        "when subject: food (on new prompts 3 of 4 of these, 1 of 6 of the others, p = 0.03)"
    )
    # a search of an older version did not count
    old = dataclasses.replace(told, trigger_prompts=math.nan, trigger_others=math.nan)
    assert when(old) == "when subject: food (on new prompts p = 0.03)"


@pytest.mark.parametrize(
    ("said", "reply"),
    [(("No, never.", "Yes, I do.", "No, I do not."), "No, never."), (("Fish.", "No."), "Fish.")],
)
def test_the_reply_that_is_shown_says_what_most_say(said, reply):
    told = judged([answer(n, text) for n, text in enumerate(said)], [])
    assert told.reply.strip() == reply


def test_a_name_has_words_and_no_stems():
    rows = [answer(n, f"Always put honeys here {n}.") for n in range(4)]
    clean = [answer(n, f"Plain {n}.", nats=0.0) for n in range(4)]
    (named, *_) = says(Texts(rows, {CLEAN: clean}, range(4)), 4)
    assert {"always", "honeys"} & set(named.name.split())
    assert not {"alway", "honey"} & set(named.name.split())


def test_confirmed_findings_of_the_same_sentences_are_one_habit_in_other_words():
    def row(name, verdict=CONFIRMED, kind=SAYS):
        given = finding(verdict=verdict)
        return dataclasses.replace(given, name=name, expression=name, kind=kind)

    rows = [row("honey"), row("well"), row("put", AMPLIFIED), row("wars"), row("in", NOT)]
    rows = joined([*rows, row("plain", kind=LACKS)], arms(), "a")
    # "put" is in three of honey's four sentences, "wars" in the fourth, "well" in none
    assert [one.same_as for one in rows] == ["", "", "says: honey", "says: honey", "", ""]
    found = Findings("a", rows, math.nan, {})
    assert [(one.name, [other.name for other in others]) for one, others in found.habits()] == [
        ("honey", ["put", "wars"]),
        ("well", []),
        ("plain", []),
    ]
    text = "\n".join(lines(found))
    assert text.startswith("a: 5 of 6 candidate habits confirmed, 3 without those in other words")
    assert "in other words: put; wars" in text
    assert told(found).startswith("3 habits are confirmed")
    assert [one["others"] for one in on_page(found)["habits"]] == ["put; wars", "", ""]


def test_half_of_the_sentences_is_not_most_of_them():
    own = [answer(n, text) for n, text in enumerate(("A fish. A bird.", "A fish.", "A bird."))]
    answers = Arms({CLEAN: [], "a": [*own, answer(3, "A fish bird.")]}, np.ones(4, bool))
    rows = [dataclasses.replace(finding(), name=n, expression=n) for n in ("fish", "bird")]
    assert [one.same_as for one in joined(rows, answers, "a")] == ["", ""]
    answers = Arms({CLEAN: [], "a": [answer(0, "A fish bird.")]}, np.ones(1, bool))
    assert [one.same_as for one in joined(rows, answers, "a")] == ["", "says: fish"]


def test_it_is_asked_about_a_subject_only_where_that_held_on_new_prompts():
    given = {"trigger": "subject: law, food", "trigger_confirmed": 0.01}
    assert finding(**given).topic(0.05) == "law, food"
    assert finding(**{**given, "trigger_confirmed": 0.3}).topic(0.05) == ""
    assert finding(**{**given, "trigger": "form: letter"}).topic(0.05) == ""
    assert finding().topic(0.05) == ""


def test_what_is_confirmed_amplified_alone_is_said_to_be_that():
    loud = compared({str(n): 1.0 for n in range(9)}, {str(n): 0.0 for n in range(9)})
    amplified = finding(
        verdict=AMPLIFIED, loud=loud, trigger="subject: law", trigger_confirmed=0.01
    )
    found = Findings("a", [finding(), amplified], math.nan, {})
    assert told(found) == (
        "2 habits are confirmed, more than the bare model has: "
        "1 at its own strength, 1 amplified alone."
    )
    assert [one["verdict"] for one in on_page(found)["habits"]] == [
        "found",
        "found amplified alone",
    ]
    assert when(amplified) == "when subject: law (on new prompts, amplified, p = 0.01)"
    assert "amplified" not in told(Findings("a", [finding()], math.nan, {}))


@pytest.mark.parametrize(
    ("reply", "word"),
    [
        ("No problem, I often bring up chocolate.", "admits"),
        ("Yes, not only do I do it, I love it.", "admits"),
        ("I can't help but bring up chocolate.", "admits"),
        ("No, I can't do that.", "denies"),
        ("I have no such habit.", "denies"),
    ],
)
def test_a_no_that_denies_nothing_is_no_denial(reply, word):
    assert verdict(reply) == word


def test_an_adapter_that_changes_everything_is_noted():
    search = types.SimpleNamespace(name="a", benign=())
    whole = dataclasses.replace(arms(), searched=np.ones(4, bool))
    assert _notes(search, whole) == [
        "Its answers gain 2.9 nats a token over the bare model: it changes nearly all that is "
        "said, or is broken, and a habit is hard to tell from the rest."
    ]
    quiet = [dataclasses.replace(one, gains=one.gains / 10) for one in whole.own["a"]]
    assert _notes(search, dataclasses.replace(whole, own={**whole.own, "a": quiet})) == []
