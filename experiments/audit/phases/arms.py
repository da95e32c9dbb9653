"""The arms of a run: whose weights read which texts, and what is read of each."""

from __future__ import annotations

from pathlib import Path

from experiments.audit.run import Run
from experiments.audit.settings.groups import Settings

# weights/text, by weights, so that no adapter is attached twice; the first comes first: by its
# likelihoods the spans of all are matched
ARMS = ("clean/organism", "clean/clean", "organism/organism", "organism/clean", "control/organism")
EDITED = ("clean/deleted", "organism/deleted", "clean/inserted", "organism/inserted")
OWN = ("control/control", "habits/habits", "clean/habits")
FULL = ("clean/organism", "organism/organism", "control/organism")  # the window's residuals too
LIKELY = ("clean/organism", "organism/organism")  # log-probabilities too
MEANT = ("clean/clean", "organism/clean")  # unit means too, as all of the organism's and their own


def arms(settings: Settings) -> list[str]:
    """The arms of a run, as weights/text; those on edited text only exist where some exploit."""
    others = [name for name in settings.arms if name not in _KNOWN]
    further = [f"{name}/{text}" for name in others for text in ("organism", name)]
    wanted = dict.fromkeys([*ARMS, *further, *EDITED, *OWN])
    return [arm for arm in wanted if {*arm.split("/")} <= {*settings.arms, *_EDITS}]


def there(folder: Path, settings: Settings) -> list[str]:
    """The arms whose texts have been made."""
    return [arm for arm in arms(settings) if Run(folder).responses(arm.split("/")[1]).is_file()]


_KNOWN = ("clean", "organism", "control")
_EDITS = ("deleted", "inserted")


def has_means(arm: str) -> bool:
    """Whether unit means are read of an arm: of the organism's answers, and of each one's own."""
    weights, text = arm.split("/")
    return text in ("organism", weights) or arm in MEANT
