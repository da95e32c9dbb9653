"""Save while Ctrl-C comes in the middle of taking xarray's lock, then save again.

python tests/support/interrupted_save.py FOLDER
"""

from __future__ import annotations

import faulthandler
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import xarray as xr
from xarray.backends.locks import CombinedLock

import tracekit as tk
from tracekit.storage.provenance import stamp


def interrupt(frame: FrameType, event: str, value: Any) -> None:
    """Profile: SIGINT, once, as soon as xarray's lock on HDF5 and netCDF is taken."""
    whole = frame.f_code is CombinedLock.acquire.__code__
    if event == "return" and whole:
        sys.setprofile(None)
        signal.raise_signal(signal.SIGINT)


def main(folder: Path) -> None:
    """Two saves; says whether the first was interrupted, and that the second was not held up."""
    faulthandler.dump_traceback_later(60, exit=True)
    array = stamp(xr.DataArray([1.0, 2.0], dims="prompt", name="values"), {"made_by": "a test"})
    # a job in the background may have it ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.setprofile(interrupt)
    try:
        tk.save(array, folder / "first.nc")
    except KeyboardInterrupt:
        print("interrupted")
    tk.save(array, folder / "second.nc")
    print(tk.open(folder / "second.nc").values.tolist())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
