"""What a file says of each variable: `long_name` and `units`, from the lines of the dictionary.

The dictionary is the page `docs/data_dictionary.md`, for readers and for this module: a line of
its tables is | `name` | dims | units | meaning |.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

# what the page calls dimensionless: numbers as such, and texts
NO_UNITS = "1"
_LINE = re.compile(r"^\| ((?:`\w+`(?:, )?)+) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """A line of the dictionary: the dims it has, its units and its meaning."""

    dims: str
    units: str
    meaning: str


@functools.cache
def entries() -> dict[str, Entry]:
    """What the dictionary knows, by name.

    >>> entries()["logprob"].units
    '1'
    """
    found: dict[str, Entry] = {}
    for names, *cells in _LINE.findall(_page().read_text("utf-8")):
        entry = Entry(*[cell.strip() for cell in cells])
        found |= {name: entry for name in re.findall(r"\w+", names)}
    return found


def described(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with `long_name` and `units` on every variable that does not say them itself.

    >>> described(xr.Dataset({"logprob": 0.0})).logprob.units
    '1'
    """
    dataset = dataset.copy()
    for name, variable in dataset.variables.items():
        variable.attrs = {**about(str(name)), **variable.attrs}
    return dataset


def undescribed(dataset: xr.Dataset) -> xr.Dataset:
    """In memory an array says nothing that its name does not, nor how a file was packed.

    What arithmetic makes of an array would otherwise go on under a meaning that it had.
    """
    dataset = dataset.copy()
    dataset.attrs.pop("codec", None)
    for name, variable in dataset.variables.items():
        ours = about(str(name))
        variable.attrs = {k: v for k, v in variable.attrs.items() if ours.get(k) != v}
    return dataset


def about(name: str) -> dict[str, str]:
    """`long_name` and `units` of a variable; of a name that is the user's own, the name itself.

    >>> about("my_label")
    {'long_name': 'my label', 'units': '1'}
    """
    entry = entries().get(name)
    if entry is None:
        return {"long_name": name.replace("_", " "), "units": NO_UNITS}
    return {"long_name": entry.meaning.replace("`", ""), "units": entry.units}


def _page() -> Path:
    here = Path(__file__).parents[1]
    installed = here / "data_dictionary.md"
    return installed if installed.is_file() else here.parent / "docs" / "data_dictionary.md"
