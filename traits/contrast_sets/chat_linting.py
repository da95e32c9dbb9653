"""Lint chat pairs: does anything but what an answer does tell the sides apart?"""

from collections import Counter
from dataclasses import dataclass
from itertools import permutations

from traits.contrast_sets.chats import ChatSet
from traits.contrast_sets.contrast import ContrastSet
from traits.contrast_sets.lexical import words_across
from traits.contrast_sets.lines import alike, some, stray_marks


@dataclass(frozen=True)
class ChatLimits:
    """What the chat pairs of a trait may show before it is a finding.

    >>> ChatLimits(pairs=40).words
    0.65
    """

    pairs: int = 60
    """fewest pairs"""
    writer_pairs: int = 20
    """fewest pairs of each writer"""
    words: float = 0.65
    """largest AUROC on one writer's answers of the words that another's pairs teach"""
    length: float = 0.03
    """largest difference of the sides' total lengths in words, as a share of the shorter"""
    longer: tuple[float, float] = (0.3, 0.7)
    """the share of pairs in which the answer that shows the trait may be the longer one"""
    marks: int = 10
    """largest difference of the sides' counts of one mark"""
    first: int = 3
    """largest difference of the sides' counts of one first word, or as often as on the other"""
    likeness: float = 0.6
    """largest Jaccard index of two answers' character 5-grams"""


@dataclass(frozen=True)
class ChatLint:
    """What was measured on the chat pairs of one trait, and the findings in words.

    `words` is the AUROC of a bag of words by (writer who taught it, writer judged).
    """

    name: str
    pairs: int
    length: float
    words: dict[tuple[str, str], float]
    findings: tuple[str, ...]

    def __str__(self) -> str:
        across = ", ".join(f"{a} on {b} {area:.2f}" for (a, b), area in self.words.items())
        head = (
            f"{self.name}: {self.pairs} chat pairs, length difference of sides {self.length:.1%}; "
            f"words across writers: {across or 'one writer only'}"
        )
        return "\n".join([head, *(f"  finding: {text}" for text in self.findings)])


def lint_chats(chats: ChatSet, limits: ChatLimits = ChatLimits()) -> ChatLint:
    """Measure the chat pairs of a trait and list what a reviewer would object to.

    Checks the numbers of pairs and writers, the balance of length, marks and first words, what one
    writer's words tell of another's answers, answers that are alike, spaces and role words.

    >>> lint_chats(chats).findings[0]
    '4 chat pairs, fewer than 60'
    """
    shows, lacks = (tuple(getattr(p, side) for p in chats.pairs) for side in ("shows", "lacks"))
    contrast = ContrastSet(chats.name, shows, lacks)
    totals = [sum(len(answer.split()) for answer in side) for side in (shows, lacks)]
    share = abs(totals[0] - totals[1]) / min(totals)
    words = {
        (teacher, judged): words_across(chats, teacher, judged)
        for teacher, judged in permutations(chats.writers, 2)
    }
    found = [
        *_few(chats, limits),
        *_length(contrast, totals, share, limits),
        *_counts(contrast, limits),
        *_openings(contrast, limits),
        *_words(words, limits),
        *alike(contrast, limits.likeness),
        *stray_marks(contrast),
    ]
    return ChatLint(chats.name, len(chats), share, words, tuple(found))


def _few(chats: ChatSet, limits: ChatLimits) -> list[str]:
    found = []
    if len(chats) < limits.pairs:
        found.append(f"{len(chats)} chat pairs, fewer than {limits.pairs}")
    if len(chats.writers) < 2:
        found.append("one writer only: what is fitted on a writer is to be judged on another")
    counts = Counter(pair.writer for pair in chats.pairs)
    few = [f"{writer} {n}" for writer, n in counts.items() if n < limits.writer_pairs]
    if few:
        found.append(f"writers with fewer than {limits.writer_pairs} pairs: {some(few)}")
    return found


def _length(
    contrast: ContrastSet, totals: list[int], share: float, limits: ChatLimits
) -> list[str]:
    found = []
    if share > limits.length:
        found.append(
            f"the sides have {totals[0]} and {totals[1]} words, {share:.1%} apart, more than "
            f"{limits.length:.0%}"
        )
    pairs = zip(contrast.positive, contrast.negative, strict=True)
    longer = sum(len(shows) > len(lacks) for shows, lacks in pairs) / len(contrast)
    if not limits.longer[0] <= longer <= limits.longer[1]:
        found.append(f"the answer that shows the trait is the longer one in {longer:.0%} of pairs")
    return found


def _counts(contrast: ContrastSet, limits: ChatLimits) -> list[str]:
    shows, lacks = (Counter("".join(s)) for s in (contrast.positive, contrast.negative))
    return [
        f"the mark {mark!r} stands {shows[mark]} and {lacks[mark]} times on the sides"
        for mark in "!?,:;"
        if abs(shows[mark] - lacks[mark]) > limits.marks
    ]


def _openings(contrast: ContrastSet, limits: ChatLimits) -> list[str]:
    shows, lacks = (
        Counter(line.split()[0].lower() for line in side)
        for side in (contrast.positive, contrast.negative)
    )
    return [
        f"the first word {word!r} opens {shows[word]} and {lacks[word]} answers of the sides"
        for word in sorted({*shows, *lacks})
        if abs(shows[word] - lacks[word]) > max(limits.first, min(shows[word], lacks[word]))
    ]


def _words(words: dict[tuple[str, str], float], limits: ChatLimits) -> list[str]:
    return [
        f"words that writer {teacher} teaches tell the answers of {judged} apart: AUROC {area:.2f}"
        for (teacher, judged), area in words.items()
        if area > limits.words
    ]
