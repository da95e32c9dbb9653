"""One colour an arm in every figure, and other colours for traits and directions.

Okabe and Ito's colours, and four of Tol's muted ones: told apart by the colour-blind and in print.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

ARMS = {"organism": "#D55E00", "clean": "#0072B2", "control": "#009E73"}
BARE = "#999999"  # the clean weights on their own answers
_FURTHER = ("#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
# each trait also has a line and a marker of its own, for print in grey
TRAITS = (
    ("#CC79A7", "-", "o"),
    ("#E69F00", "--", "s"),
    ("#56B4E9", ":", "^"),
    ("#332288", "-.", "D"),
    ("#882255", "-", "v"),
    ("#44AA99", "--", "P"),
    ("#999933", ":", "X"),
    ("#000000", "-.", "d"),
)


def of_arms(names: Sequence[str]) -> dict[str, str]:
    """The colour of each adapter, the same in every figure of a run; further controls take turns.

    >>> of_arms(["organism", "style", "clean"])
    {'organism': '#D55E00', 'style': '#CC79A7', 'clean': '#0072B2'}
    """
    further = [name for name in names if name not in ARMS]
    turns = {name: _FURTHER[n % len(_FURTHER)] for n, name in enumerate(sorted(further))}
    return {name: ARMS.get(name) or turns[name] for name in names}


def in_turn() -> Iterator[tuple[str, str, str]]:
    """A colour, a line and a marker for each trait or direction, over and over."""
    while True:
        yield from TRAITS
