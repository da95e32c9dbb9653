"""Phase 3: the same ids replayed with other weights: traces of a window, projections of all."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

import tracekit as tk
from experiments.audit.inputs import Inputs
from experiments.audit.run import Run
from experiments.audit.settings.groups import Settings
from tracekit.progress import Bar

# weights/text, by weights, so that no adapter is attached twice
ARMS = ("clean/organism", "clean/clean", "organism/organism", "organism/clean", "control/organism")
EDITED = ("clean/deleted", "organism/deleted", "clean/inserted", "organism/inserted")
OWN = ("control/control", "habits/habits", "clean/habits")
FULL = ("clean/organism", "organism/organism", "control/organism")  # the window's residuals too


def run(folder: Path, settings: Settings, inputs: Inputs) -> list[Path]:
    """Write `captured/<arm>/` (projections, all layers) and `traces/<arm>/` (the window in full).

    Traces are of the organism's answers alone: the same ids under each of the weights.
    """
    method = settings.vectors.method
    vectors = Run(folder).vectors_of(method)
    written = []
    for arm in Bar(there(folder, settings), unit="arm", desc="capture"):
        weights, text = arm.split("/")
        runs: xr.Dataset = tk.open(Run(folder).responses(text))
        with tk.adapter(inputs.model, settings.arms[weights].adapter) as model:
            written.append(Run(folder).captured(arm))
            transfer = bool(settings.model.base)
            tk.capture(model, runs, vectors=vectors, transfer=transfer, path=written[-1])
            if arm in FULL:
                written.append(Run(folder).traces(arm))
                tk.capture(model, runs, layers=settings.model.window, path=written[-1])
    return written


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
