"""Lint contrast sets: `tracekit lint <folder>`, one set or a category of sets.

Prints, for each set, its other constructions and its chat pairs where it has some, the size, the
balance of length and words, and what it found; exit code 0 without findings, 1 with some, 2 for a
folder that cannot be read.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tracekit.errors import InputError
from traits.contrast_sets.chat_linting import ChatLint, lint_chats
from traits.contrast_sets.chats import has_chats, load_chats
from traits.contrast_sets.contrast import ContrastSet, constructions, load_contrast
from traits.contrast_sets.lexical import lexical_auroc, lexical_scores, ordered_share
from traits.contrast_sets.lines import alike, sides, some, stray_marks


@dataclass(frozen=True)
class Limits:
    """What a contrast set may show before it is a finding; the defaults are the shipped sets'.

    >>> Limits(pairs=40, templates=True).lexical
    0.75
    """

    pairs: int = 120
    """fewest pairs"""
    median_difference: float = 1.0
    """largest median difference of the twins' lengths, in tokens"""
    total_difference: float = 0.10
    """largest difference of the sides' total lengths, as a share of the shorter"""
    lexical: float = 0.75
    """largest AUROC of a bag-of-words classifier on held-out pairs"""
    likeness: float = 0.6
    """largest Jaccard index of two lines' character 5-grams"""
    template: float = 0.10
    """largest share of lines with the same first four or last three words"""
    shared_end: int = 2
    """fewest last words that twins must share; 0: they may end apart"""
    templates: bool = False
    """templates are meant: no finding for like lines, openings and endings"""


# complete stories end apart, in the act itself
OF_CONSTRUCTIONS = Limits(pairs=40, median_difference=2.0, lexical=0.70, shared_end=0)


@dataclass(frozen=True)
class Lint:
    """What was measured on one contrast set, and the findings in words.

    `lexical` is the AUROC of words alone on held-out pairs, (estimate, low, high), `ordered` the
    share of those pairs in which words alone put the positive twin above (ties a half).
    """

    name: str
    pairs: int
    median_difference: float
    total_difference: float
    lexical: tuple[float, float, float]
    ordered: float
    findings: tuple[str, ...]

    def __str__(self) -> str:
        area, low, high = self.lexical
        head = (
            f"{self.name}: {self.pairs} pairs, length difference of twins "
            f"{self.median_difference:g} (median), of sides {self.total_difference:.1%}; lexical "
            f"AUROC {area:.2f} [{low:.2f}, {high:.2f}], held-out pairs in order by words alone "
            f"{self.ordered:.0%}"
        )
        return "\n".join([head, *(f"  finding: {text}" for text in self.findings)])


def lint(
    contrast: ContrastSet,
    limits: Limits = Limits(),
    count: Callable[[str], int] | None = None,
) -> Lint:
    """Measure a contrast set and list what a reviewer would object to.

    Checks the number of pairs, duplicates and near-duplicates, the balance of length and words,
    the twins' last words, templates, spaces and role words. `count` gives a line's length (words
    and punctuation marks by default; pass a tokenizer's).

    >>> lint(ContrastSet("mine/tense", ("a b c", "d b c"), ("x b c", "y b c "))).findings[-1]
    'spaces at an end or doubled, or a tab: negative line 2'
    """
    count = count or (lambda line: len(re.findall(r"\w+|[^\w\s]", line)))
    lengths = np.array([[count(line) for line in side] for side in sides(contrast)])
    middle = float(np.median(np.abs(lengths[0] - lengths[1])))
    totals = lengths.sum(axis=1)
    share = float(np.ptp(totals) / max(totals.min(), 1))
    scores = lexical_scores(contrast) if len(contrast) >= 10 else None
    words = (float("nan"),) * 3 if scores is None else lexical_auroc(scores)
    ordered = float("nan") if scores is None else ordered_share(scores)
    found = [
        *_few(contrast, limits),
        *alike(contrast, 1 - 1e-9 if limits.templates else limits.likeness),
        *_unbalanced(middle, share, totals, limits),
        *_told_by_words(words, limits),
        *_ends(contrast, limits),
        *_shares(contrast, limits),
        *stray_marks(contrast),
    ]
    return Lint(contrast.name, len(contrast), middle, share, words, ordered, tuple(found))


def _few(contrast: ContrastSet, limits: Limits) -> list[str]:
    few = len(contrast) < limits.pairs
    return [f"{len(contrast)} pairs, fewer than {limits.pairs}"] if few else []


def _unbalanced(middle: float, share: float, totals: np.ndarray, limits: Limits) -> list[str]:
    found = []
    if middle > limits.median_difference:
        found.append(
            f"twins differ in length by {middle:g} at the median, more than "
            f"{limits.median_difference:g}"
        )
    if share > limits.total_difference:
        found.append(
            f"the sides have {totals[0]} and {totals[1]} tokens, {share:.1%} apart, more than "
            f"{limits.total_difference:.0%}"
        )
    return found


def _told_by_words(words: tuple[float, float, float], limits: Limits) -> list[str]:
    area = max(words[0], 1 - words[0])
    told = not limits.templates and area > limits.lexical
    return [f"words alone tell the sides apart: AUROC {words[0]:.2f}"] if told else []


def _ends(contrast: ContrastSet, limits: Limits) -> list[str]:
    if not limits.shared_end:
        return []
    last = [[line.split()[-limits.shared_end :] for line in side] for side in sides(contrast)]
    pairs = zip(*last, strict=True)
    wrong = [n for n, (one, other) in enumerate(pairs, start=1) if one != other]
    return (
        [
            f"the last {limits.shared_end} words of twins differ in {len(wrong)} pairs: lines "
            f"{some(wrong)}"
        ]
        if wrong
        else []
    )


def _shares(contrast: ContrastSet, limits: Limits) -> list[str]:
    if limits.templates:
        return []
    words = [line.lower().split() for line in contrast.positive]
    found = []
    for what, cut in (("first four", slice(0, 4)), ("last three", slice(-3, None))):
        phrase, times = Counter(" ".join(line[cut]) for line in words).most_common(1)[0]
        if times > 1 and times > limits.template * len(words):
            found.append(
                f"{times} of {len(words)} positive lines have the {what} words {phrase!r}, more "
                f"than {limits.template:.0%}"
            )
    return found


def _folders(folder: Path) -> list[Path]:
    if folder.is_file():
        raise InputError(
            f"{str(folder)!r} is a file; lint reads folders. Give one that holds positive.txt and "
            "negative.txt, a line a prefix, line n of one being the twin of the other's line n."
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {str(folder)!r}. Give one with contrast sets.")
    found = sorted(path.parent for path in folder.glob("*/positive.txt"))
    return [folder] if (folder / "positive.txt").is_file() or not found else found


def _limits(folder: Path, asked: argparse.Namespace) -> Limits:
    templates = asked.templates or folder.resolve().parent.name in ("placebo", "axis")
    return Limits(pairs=asked.pairs or (40 if templates else 120), templates=templates)


def _reports(folder: Path, asked: argparse.Namespace) -> Iterator[Lint | ChatLint]:
    yield lint(load_contrast(folder), _limits(folder, asked))
    for construction in constructions(folder):
        yield lint(load_contrast(folder, construction), OF_CONSTRUCTIONS)
    if has_chats(folder):
        yield lint_chats(load_chats(folder))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: prints a report of every set under a folder, returns the exit code."""
    parser = argparse.ArgumentParser(prog="tracekit lint", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--pairs", type=int, help="fewest pairs (120; 40 where templates are meant)"
    )
    parser.add_argument(
        "--templates", action="store_true", help="templates are meant (placebo/*, axis/*)"
    )
    parser.add_argument("--debug", action="store_true", help="show an error's traceback")
    asked = parser.parse_args(arguments)
    code = 0
    try:
        for folder in _folders(asked.folder):
            for report in _reports(folder, asked):
                print(report, flush=True)
                code = max(code, int(bool(report.findings)))
    except (InputError, OSError) as error:
        if asked.debug:
            raise
        print(error, file=sys.stderr)
        return 2
    print("no finding" if code == 0 else "findings above: mend the sets", flush=True)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
