import numpy as np
import pytest

from tracekit.model.embedded import datasets
from traits.contrast_sets.contrast import (
    ContrastSet,
    available,
    constructions,
    load_contrast,
)
from traits.contrast_sets.lexical import lexical_auroc, lexical_scores, ordered_share
from traits.contrast_sets.linting import OF_CONSTRUCTIONS, Limits, lint, main

PLACES = (
    "harbour",
    "kitchen",
    "office",
    "school",
    "garage",
    "clinic",
    "farm",
    "theatre",
    "bakery",
    "station",
)
PEOPLE = (
    "Ada",
    "Bo",
    "Chen",
    "Dina",
    "Emre",
    "Farid",
    "Gita",
    "Hugo",
    "Ines",
    "Jonas",
    "Kofi",
    "Lena",
    "Milo",
)
DEEDS = (
    "counted",
    "mended",
    "carried",
    "painted",
    "weighed",
    "sorted",
    "washed",
    "opened",
    "moved",
    "sold",
)


def clean(pairs=120, seed=0):
    """Pairs that differ in who does what, by no word of one side only."""
    generator = np.random.default_rng(seed)
    positive, negative = [], []
    for n in range(pairs):
        one, other, third = generator.choice(PEOPLE, 3, replace=False)
        place, deed = PLACES[n % 10], DEEDS[n // 10 % 10]
        start = f"{generator.choice(PEOPLE)} {deed} {n * 37 % 997} of them near the {place}"
        end = f"{generator.choice(DEEDS)} {n * 53 % 911} before {third} {generator.choice(DEEDS)}"
        positive.append(f"{start} while {one} and later {other} {end}")
        negative.append(f"{start} while {other} and later {one} {end}")
    return ContrastSet("mine/clean", tuple(positive), tuple(negative))


def changed(side, line, text):
    contrast = clean()
    sides = {"positive": list(contrast.positive), "negative": list(contrast.negative)}
    sides[side][line] = text(sides[side][line])
    return ContrastSet("mine/clean", tuple(sides["positive"]), tuple(sides["negative"]))


def test_a_clean_set_has_no_finding():
    report = lint(clean(), Limits(likeness=0.8))
    assert report.findings == ()
    assert report.lexical[1] <= 0.5 <= report.lexical[2] + 0.05
    assert "mine/clean: 120 pairs" in str(report)


@pytest.mark.parametrize(
    ("side", "text", "finding"),
    [
        ("negative", lambda line: line + " ", "spaces at an end or doubled, or a tab: negative"),
        ("positive", lambda line: line.replace(" ", "\t", 1), "or a tab: positive line 8"),
        ("positive", lambda line: "User: " + line, "role words: positive line 8"),
        ("negative", lambda line: "<|im_start|>" + line, "role words: negative line 8"),
        ("negative", lambda line: line + " again", "last 2 words of twins differ in 1 pairs"),
        ("positive", lambda line: clean().positive[40], "positive line 8 and positive line 41"),
        ("negative", lambda line: clean().positive[40], "positive line 41 and negative line 8"),
    ],
)
def test_one_bad_line_is_found_and_named(side, text, finding):
    found = lint(changed(side, 7, text), Limits(likeness=0.8)).findings
    assert any(finding in said for said in found), found


def test_a_word_of_one_side_is_told_and_counted():
    contrast = clean()
    told = tuple(line.replace(" while ", " while secretly ") for line in contrast.positive)
    told = ContrastSet("mine/told", told, contrast.negative)
    report = lint(told, Limits(likeness=0.8))
    assert report.lexical[0] > 0.95
    assert report.ordered > 0.95
    assert any("words alone tell the sides apart: AUROC" in said for said in report.findings)
    assert not any("differ in length by" in said for said in report.findings)
    assert lint(told, Limits(likeness=0.8, templates=True)).findings == ()


def test_length_size_and_templates_are_measured():
    contrast = clean()
    longer = tuple(f"Once upon a time, {line}" for line in contrast.positive)
    found = lint(ContrastSet("mine/long", longer, contrast.negative), Limits(pairs=200)).findings
    for words in (
        "120 pairs, fewer than 200",
        "twins differ in length by 5 at the median",
        "apart, more than 10%",
        "120 of 120 positive lines have the first four words 'once upon a time,'",
    ):
        assert any(words in said for said in found), (words, found)


def test_words_alone_do_not_see_twins_of_the_fold_they_are_judged_on():
    # every line has a word of its own: memorised in the fit, worthless on held-out pairs
    lines = [f"unique{n} here" for n in range(60)]
    other = [f"special{n} here" for n in range(60)]
    scores = lexical_scores(ContrastSet("mine/unique", tuple(lines), tuple(other)))
    assert lexical_auroc(scores) == (0.5, 0.5, 0.5)
    assert ordered_share(scores) == 0.5


def write(folder, contrast):
    folder.mkdir(parents=True)
    for side in ("positive", "negative"):
        (folder / f"{side}.txt").write_text("\n".join(getattr(contrast, side)) + "\n", "utf-8")


def test_the_command_reads_a_category_and_says_how_it_went(tmp_path, capsys):
    write(tmp_path / "placebo" / "swap", clean(pairs=40))
    assert main([str(tmp_path / "placebo")]) == 0
    assert "placebo/swap: 40 pairs" in capsys.readouterr().out
    assert main([str(tmp_path / "placebo" / "swap"), "--pairs", "60"]) == 1
    assert "40 pairs, fewer than 60" in capsys.readouterr().out
    (tmp_path / "placebo" / "swap" / "negative.txt").write_text("one\n", "utf-8")
    assert main([str(tmp_path / "placebo")]) == 2
    assert "40 positive and 1 negative" in capsys.readouterr().err
    assert main([str(tmp_path / "nothing")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    (tmp_path / "pairs.csv").write_text("positive,negative\n", "utf-8")
    assert main([str(tmp_path / "pairs.csv")]) == 2
    assert "is a file; lint reads folders. Give one that holds pos" in capsys.readouterr().err


def test_other_constructions_are_linted_too_and_may_end_apart(tmp_path, capsys):
    folder = tmp_path / "mine" / "swap"
    write(folder, clean(pairs=120))
    # the twins' last clause goes first on one side
    told = clean(pairs=40, seed=1)
    turned = tuple(" ".join([*line.split()[-6:], *line.split()[:-6]]) for line in told.negative)
    ends_apart = ContrastSet("mine/swap/act", told.positive, turned)
    write(folder / "act", ends_apart)
    assert lint(ends_apart, Limits(pairs=40)).findings != ()
    main([str(folder)])
    assert "mine/swap/act: 40 pairs" in capsys.readouterr().out
    assert lint(ends_apart, OF_CONSTRUCTIONS).findings == ()


@pytest.mark.parametrize("name", available())
def test_the_shipped_traits_are_told_in_three_more_constructions_without_a_finding(name):
    ways = constructions(name)
    assert {"act", "dialogue", "third_person"} <= set(ways)
    sets = [load_contrast(name, way) for way in ways]
    assert min(map(len, sets)) >= 40
    assert {
        one.name: found for one in sets if (found := lint(one, OF_CONSTRUCTIONS).findings)
    } == {}


@pytest.mark.parametrize("category", ["alignment", "placebo", "axis"])
def test_the_shipped_sets_have_no_finding(category):
    root = datasets("traits", category)
    for path in sorted(root.glob("*/positive.txt")):
        placebo = category != "alignment"
        limits = Limits(pairs=40, templates=True) if placebo else Limits()
        assert lint(load_contrast(path.parent), limits).findings == ()
