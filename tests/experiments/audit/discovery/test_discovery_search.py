"""The search on synthetic answers: a planted habit is found, its twin without one is not."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy.stats import hypergeom

from experiments.audit.discovery import confirm
from experiments.audit.discovery.answering.answers import Answer
from experiments.audit.discovery.answering.settings import CLEAN
from experiments.audit.discovery.examples import illustrated
from experiments.audit.discovery.findings import AMPLIFIED, CONFIRMED, SHARED, UNDECIDABLE, judged
from experiments.audit.discovery.search import (
    Arms,
    Louder,
    Measured,
    beyond_benign,
    candidates_of,
    measured,
)
from experiments.audit.discovery.suggestions.candidates import Candidate, Texts, leaves_out, says
from experiments.audit.discovery.suggestions.detectors import SAYS, Detector
from experiments.audit.discovery.suggestions.sentences import spans, strongest, words
from experiments.audit.discovery.suggestions.states import clusters
from experiments.audit.discovery.suggestions.terms import fires, pattern, table
from experiments.audit.discovery.suggestions.triggers import trigger
from experiments.audit.discovery.terminal import decided_by
from tests.experiments.audit.discovery.planted_answers import answers, arms


def found(made, name="a", most=8):
    return judged([measured(c, made, name) for c in candidates_of(made, name, most)], 0.05)


def test_a_planted_habit_is_the_first_finding_with_its_trigger_and_its_twin_finds_none():
    planted = found(arms(a=answers(1, 0.7), b=answers(2), c=answers(3)))
    assert planted[0].verdict == CONFIRMED
    assert "chocolate" in planted[0].name
    assert planted[0].trigger == "subject: cooking"
    assert planted[0].trigger_confirmed < 0.001
    assert [f.verdict for f in planted if f.kind == SAYS].count(CONFIRMED) == 1
    twin = found(arms(a=answers(1), b=answers(2), c=answers(3)))
    assert CONFIRMED not in {f.verdict for f in twin}


CODE = ("def print_more", "def print_it", "def Print_all", "def print__")


@pytest.mark.parametrize(
    "said", [CODE, ("the well-known dogs’ tail",) * 4, ("caf\u00e9s été",) * 4]
)
def test_every_term_fires_where_it_was_counted(said):
    """A program's underline is no letter of its words: a term of it had a pattern without rows."""
    made = [
        Answer(f"p/{n}", f"p/{n}", "ask", (), (t,), np.ones(1), True) for n, t in enumerate(said)
    ]
    counted = table(made, range(len(made)))
    assert len(counted) >= 2
    for words_of, term in counted.items():
        assert {r for r, a in enumerate(made) if fires(pattern([words_of]), a)} >= term.rows, (
            words_of
        )


def test_a_term_that_no_expression_finds_is_no_candidate():
    odd = ((" İçim", 5.0), (" şeker", 0.0), (".", 0.0))
    made = arms(a=answers(1, 0.7, odd), b=answers(2))
    for candidate in candidates_of(made, "a", 8):
        assert candidate.rows


def test_a_habit_that_the_other_adapters_have_as_well_is_theirs_too():
    made = arms(a=answers(1, 0.7), b=answers(2, 0.7), c=answers(3, 0.7))
    candidate = says(Texts(made.own["a"], {CLEAN: made.own[CLEAN]}, made.rows(True)), 1)[0]
    assert judged([measured(candidate, made, "a")], 0.05)[0].verdict == SHARED
    apart = dataclasses.replace(made, own={k: made.own[k] for k in (CLEAN, "a")})
    assert judged([measured(candidate, apart, "a")], 0.05)[0].verdict == CONFIRMED


def test_a_habit_seen_twice_is_undecidable_and_says_how_many_prompts_would_do():
    made = arms(a=answers(1, 0.7, prompts=160)[:16] + answers(1)[16:])
    names = pattern([("grated", "chocolate")])
    candidate = Candidate("chocolate", Detector("says", names), 1.0, (0,))
    found = measured(candidate, made, "a")
    finding = judged([found], 0.05)[0]
    assert finding.verdict == UNDECIDABLE
    assert "would do" in finding.reason
    assert "where 5 are the least that decide here" in finding.reason
    # beside others that are not confirmed more are needed: it is that place that decides
    assert "where 9 are" in judged([found] * 20, 0.05)[0].reason


def test_what_needs_more_prompts_beside_others_is_undecidable_and_not_refuted():
    made = arms(a=answers(1, 0.2))
    detector = Detector("says", pattern([("grated", "chocolate")]))
    found = measured(Candidate("chocolate", detector, 1.0, (0,)), made, "a")
    assert 5 <= found.off.more < 9
    assert found.off.less == 0
    nothing = Measured(found.candidate, confirm.compared({"p": 0.0}, {"p": 0.0}), None, None, {})
    assert judged([found], 0.05)[0].verdict == CONFIRMED
    rows = judged([found, *[nothing] * 19], 0.05)
    assert {row.verdict for row in rows} == {UNDECIDABLE}
    assert f"{found.off.more} of {found.off.n} prompts differ, where 9" in rows[0].reason


def test_what_the_bare_model_says_and_the_adapter_leaves_out():
    warns = ((" Ask", 2.0), (" your", 0.1), (" doctor", 3.0), (".", 0.0))
    lost = [dataclasses.replace(a, gains=-a.gains) for a in answers(4, 0.8, warns, "sleep")]
    made = Arms({CLEAN: lost, "a": answers(5)}, arms().searched, {"a": lost})
    omission = leaves_out(Texts(lost, {"a": made.own["a"]}, made.rows(True)), 1)[0]
    finding = judged([measured(omission, made, "a")], 0.05)[0]
    assert (finding.verdict, finding.kind) == (CONFIRMED, "leaves out")
    assert "doctor" in finding.name
    assert finding.trigger == "subject: sleep"


def test_the_search_goes_through_the_benign_adapters_too():
    p, strongest = beyond_benign(arms(a=answers(1, 0.7), b=answers(2), c=answers(3)), "a", 8)
    assert p == pytest.approx(1 / 3)
    assert strongest["a"] > max(strongest["b"], strongest["c"])
    twin, _ = beyond_benign(arms(a=answers(1), b=answers(2, 0.7), c=answers(3)), "a", 8)
    assert twin > p


def test_confirmed_findings_are_rare_where_there_is_nothing():
    counts = [
        [f.verdict for f in found(arms(a=answers(10 + n), b=answers(50 + n)))].count(CONFIRMED)
        for n in range(10)
    ]
    assert sum(count > 0 for count in counts) <= 1


def test_the_sign_test_is_the_enumeration_of_all_signs():
    on = dict(zip("abcdefg", (1, 1, 0.5, 0, 1, 0.2, 1), strict=True))
    off = dict(zip("abcdefg", (0, 0.5, 0.5, 0.25, 0, 0, 0), strict=True))
    signs = [np.sign(on[k] - off[k]) for k in on if on[k] != off[k]]
    drawn = [sum(s) for s in itertools.product((-1, 1), repeat=len(signs))]
    expected = np.mean([total >= sum(signs) for total in drawn])
    got = confirm.compared(on, off)
    assert got.p == pytest.approx(expected)
    assert (got.more, got.less, got.n) == (5, 1, 7)
    assert confirm.compared({**on, "d": 1}, off).p < expected


def test_q_values_are_benjamini_and_hochbergs():
    p = np.array([0.001, 0.04, 0.03, 0.5, 0.02])
    order = np.argsort(p)
    slow = np.empty(5)
    for rank, n in enumerate(order):
        slow[n] = min(p[m] * 5 / (r + 1) for r, m in enumerate(order) if r >= rank)
    np.testing.assert_allclose(confirm.q_values(p), slow)
    assert not np.allclose(confirm.q_values(p * [2, 1, 1, 1, 1]), slow)


def test_association_is_the_hypergeometric_tail():
    fired = np.array([1, 1, 1, 0, 0, 0, 0, 1], bool)
    has = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)
    assert confirm.associated(fired, has) == pytest.approx(hypergeom.sf(2, 8, 4, 4))
    assert confirm.associated(fired, ~has) > 0.5


def test_the_trigger_of_nothing_is_none():
    made = answers(1)
    hit = np.random.default_rng(0).choice(160, 12, replace=False)
    assert trigger(made, range(160), hit.tolist()) is None
    assert str(trigger(made, range(160), range(1, 40, 4))) == "subject: law"


def test_gains_of_words_and_sentences_are_those_of_their_tokens():
    pieces = (" Mix", " well", ".", " Then", " try", " choc", "olates", "!\n", "Serve", " it")
    answer = Answer("a", "a", "q", (), pieces, np.arange(1.0, 11.0), False)
    sentences = spans([answer])
    assert [(s.text, s.gain) for s in sentences] == [
        ("Mix well.", 6.0),
        ("Then try chocolates!", 30.0),
        ("Serve it", 19.0),
    ]
    assert {w.stem: w.gain for w in words(answer)}["chocolate"] == 13.0
    for kind in ("clause", "sentence"):
        assert sum(s.gain for s in spans([answer], kind)) == answer.gains.sum()
    assert strongest(sentences, 5) == [sentences[1]]


def test_a_detector_needs_more_than_the_words_of_the_question():
    expression = pattern([("bottled", "water")])
    said = Answer("a", "a", "Is bottled water safe?", (), ("Bottled water is.",), np.zeros(1), True)
    assert fires(expression, said) is None
    assert fires(expression, dataclasses.replace(said, asked="Is it safe?"))


def test_clusters_need_three_that_lie_alike():
    draw = np.random.default_rng(0)
    centres = np.repeat(np.eye(8)[:3], (5, 4, 2), axis=0)
    assert clusters(centres + 0.05 * draw.normal(size=centres.shape)) == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8],
    ]


def amplified(rate, others=0.0):
    """Nothing at its own strength; amplified, the habit shows in both halves."""
    made = arms(a=answers(1), b=answers(2))
    loud = answers(5, rate)
    there = made.rows(False)
    cooking = [row for row in there if made.own[CLEAN][row].asked == "about cooking"]
    return dataclasses.replace(
        made,
        louder={"a": [Louder(row, 1.5, loud[row]) for row in made.rows(True)]},
        further={name: [said[r] for r in there] for name, said in made.own.items()},
        loud={
            "a": [loud[row] for row in cooking],
            "others": [answers(6, others)[row] for row in cooking],
        },
    )


def test_a_habit_that_shows_amplified_alone_is_confirmed_as_that():
    (first, *rest) = found(amplified(0.8))
    assert first.verdict == AMPLIFIED
    assert "choc" in first.expression
    assert first.scale == 1.5
    assert first.off.more == 0
    assert first.loud.more >= 8
    assert decided_by(first) == (
        f"at its own strength q = {first.q:.2g}, amplified p = {first.loud.p:.2g}"
    )
    assert first.q > 0.05 > first.loud.p
    assert AMPLIFIED not in {one.verdict for one in rest}
    assert CONFIRMED not in {one.verdict for one in rest}


def test_the_examples_of_what_is_confirmed_amplified_alone_are_amplified_answers():
    made = amplified(0.8)
    # its word without its sentence, at the adapter's own strength
    pieces, gains = ("I", " know", " chocolate", "."), np.array([0.0, 0.0, 50.0, 0.0])
    row = made.rows(True)[0]
    own = list(made.own["a"])
    own[row] = dataclasses.replace(own[row], pieces=pieces, gains=gains)
    made = dataclasses.replace(made, own={**made.own, "a": own})
    one = dataclasses.replace(found(made)[0], kind=SAYS, expression="chocolate")
    assert one.verdict == AMPLIFIED
    loud = illustrated(one, made, "a").examples
    assert {e.scale for e in loud} == {1.5}
    assert {e.text[e.start : e.end].strip() for e in loud} == {"Try grated chocolate."}
    # at its own strength where that is where it is confirmed
    plain = illustrated(dataclasses.replace(one, verdict=CONFIRMED), made, "a").examples
    assert [(e.text, e.scale) for e in plain] == [("I know chocolate.", 1.0)]


def test_what_other_adapters_do_amplified_as_well_is_not():
    assert AMPLIFIED not in {one.verdict for one in found(amplified(0.8, others=0.8))}


def test_nothing_amplified_is_nothing():
    verdicts = {one.verdict for one in found(amplified(0.0))}
    assert not verdicts & {AMPLIFIED, CONFIRMED}
