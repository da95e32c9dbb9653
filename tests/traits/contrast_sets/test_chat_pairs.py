"""Chat pairs of two writers: whole, and without a cue of length, marks or opening; words across."""

import json
from collections import Counter

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from tracekit.model.embedded import datasets

FOLDERS = sorted(path.parent for path in datasets("traits", "alignment").glob("*/chat.json"))
SIDES = ("shows", "lacks")


def pairs_of(folder):
    return json.loads((folder / "chat.json").read_text("utf-8"))["pairs"]


def across(pairs, teacher, other):
    """AUROC on one writer's answers of the words that the other's teach."""
    sides = {w: [p for p in pairs if p["writer"] == w] for w in (teacher, other)}
    texts = {w: [p[side] for side in SIDES for p in rows] for w, rows in sides.items()}
    labels = {w: [side == "shows" for side in SIDES for _ in rows] for w, rows in sides.items()}
    words = TfidfVectorizer()
    fitted = LogisticRegression(max_iter=1000).fit(
        words.fit_transform(texts[teacher]), labels[teacher]
    )
    return roc_auc_score(labels[other], fitted.decision_function(words.transform(texts[other])))


def test_every_alignment_trait_has_pairs():
    assert len(FOLDERS) == 9


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_two_writers_wrote_thirty_two_pairs_each(folder):
    content = json.loads((folder / "chat.json").read_text("utf-8"))
    assert content["trait"] == f"alignment/{folder.name}"
    pairs = content["pairs"]
    assert Counter(p["writer"] for p in pairs) == {"a": 32, "b": 32}
    assert all(set(p) == {"id", "writer", "user", *SIDES} for p in pairs)
    assert all(p[name].strip() == p[name] != "" for p in pairs for name in ("user", *SIDES))
    for name in ("id", "user", *SIDES):
        assert len({p[name] for p in pairs}) == len(pairs)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_no_length_mark_or_opening_tells_the_sides_apart(folder):
    pairs = pairs_of(folder)
    words = {side: sum(len(p[side].split()) for p in pairs) for side in SIDES}
    assert words["shows"] / words["lacks"] == pytest.approx(1, abs=0.03)
    longer = sum(len(p["shows"]) > len(p["lacks"]) for p in pairs)
    assert 0.3 <= longer / len(pairs) <= 0.7
    counts = {side: Counter("".join(p[side] for p in pairs)) for side in SIDES}
    for mark in "!?,:;":
        assert abs(counts["shows"][mark] - counts["lacks"][mark]) <= 10
    opening = {side: Counter(p[side].split()[0].lower() for p in pairs) for side in SIDES}
    for word in {*opening["shows"], *opening["lacks"]}:
        here, there = opening["shows"][word], opening["lacks"][word]
        assert abs(here - there) <= max(3, min(here, there))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_words_of_one_writer_do_not_tell_the_others_pairs(folder):
    pairs = pairs_of(folder)
    assert max(across(pairs, "a", "b"), across(pairs, "b", "a")) <= 0.65


def test_a_word_on_one_side_would_be_seen():
    pairs = pairs_of(FOLDERS[0])
    told = [{**p, "shows": f"Indeed {p['shows']}"} for p in pairs]
    assert across(told, "a", "b") > across(pairs, "a", "b") + 0.2
