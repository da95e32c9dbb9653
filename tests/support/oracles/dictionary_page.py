"""What docs/data_dictionary.md says, read by other code than the library's; files beside it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import netCDF4

PAGE = Path(__file__).parents[3] / "docs" / "data_dictionary.md"


def lines(text: str, section: str = "") -> dict[str, tuple[set[str], str, str]]:
    """Dims, units and meaning of each name, of one section or of all."""
    found: dict[str, tuple[set[str], str, str]] = {}
    heading = ""
    for line in text.splitlines():
        heading = line[3:] if line.startswith("## ") else heading
        if line.startswith("| `") and section in ("", heading):
            names, dims, units, meaning = (cell.strip() for cell in line.strip("| ").split(" | "))
            for name in names.replace("`", "").split(", "):
                assert name not in found, f"{name} has two lines"
                found[name] = (set(dims.split(", ")), units, meaning.replace("`", ""))
    return found


def against(paths: Iterable[Path], text: str, own: Iterable[str] = ()) -> list[str]:
    """What files say that the page does not, as netCDF itself reads them; `own` are the user's."""
    known, wrong = lines(text), set()
    for path in paths:
        with netCDF4.Dataset(path) as file:
            for name, variable in file.variables.items():
                said = {key: variable.getncattr(key) for key in variable.ncattrs()}
                dims = {dim for dim in variable.dimensions if not dim.startswith("string")}
                if name in own:
                    continue
                if name not in known:
                    wrong.add(f"{name} ({path.name}) has no line")
                elif dims - known[name][0]:
                    wrong.add(f"{name} ({path.name}) has the dims {sorted(dims - known[name][0])}")
                elif (said.get("units"), said.get("long_name")) != known[name][1:]:
                    wrong.add(f"{name} ({path.name}) says {said}")
    return sorted(wrong)


def written(paths: Iterable[Path]) -> set[str]:
    """The names of all variables of the files."""
    names: set[str] = set()
    for path in paths:
        with netCDF4.Dataset(path) as file:
            names |= set(file.variables)
    return names
