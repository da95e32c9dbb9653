"""Contrast sets: matched stories with their definition, shipped by name or from a folder."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracekit.errors import InputError
from tracekit.model.embedded import datasets
from tracekit.transcripts.prompts import Prompt


@dataclass(frozen=True)
class ContrastSet:
    """Matched story prefixes: line n of one side is the twin of line n of the other.

    `name` is `category/trait`. The stories stop before the trait shows, and a base model goes on.

    >>> contrast = ContrastSet("mine/tense", ("We will go",), ("We did go",))
    >>> len(contrast.prompts())
    2
    """

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    definition: str = ""
    steering: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_counts(self.name, self.positive, self.negative)
        _check_lines(self.name, self.positive, self.negative)

    def __len__(self) -> int:
        return len(self.positive)

    def prompts(self) -> list[Prompt]:
        """Both sides as raw-completion prompts, all positives first.

        Ids are `<category>/<trait>/<side>/<n>`, twins share the group `<category>/<trait>/<n>`,
        and the label is 1 for positive and 0 for negative.

        >>> ContrastSet("mine/tense", ("We will go",), ("We did go",)).prompts()[0].group
        'mine/tense/0'
        """
        return [
            Prompt(
                id=f"{self.name}/{side}/{n}",
                text=line,
                group=f"{self.name}/{n}",
                labels={"label": int(side == "positive")},
            )
            for side, lines in (("positive", self.positive), ("negative", self.negative))
            for n, line in enumerate(lines)
        ]


def load_contrast(name: str | Path, construction: str = "") -> ContrastSet:
    """A shipped contrast set by name, or the user's own from a folder.

    `name` is `category/trait`, a trait name that only one category has, or a folder that holds
    `positive.txt` and `negative.txt` (one prefix a line, UTF-8; `definition.txt` and
    `steering.json` where they exist). A `construction` is one of `constructions(name)`, pairs that
    are told in another way; it is called `category/trait/construction`. Raises ValueError for an
    unknown trait or construction, unmatched line counts, an empty line or a pair with identical
    sides, for a name that a shipped set and a folder here share (`./name` is the folder), and for
    a folder that would be called as a shipped set with other lines is; FileNotFoundError for a
    missing file.

    >>> load_contrast("sycophancy").name
    'alignment/sycophancy'
    """
    folder = folder_of(name)
    if construction:
        return _construction(folder, construction)
    steering = folder / "steering.json"
    definition = folder / "definition.txt"
    found = ContrastSet(
        name=f"{folder.resolve().parent.name}/{folder.resolve().name}",
        positive=_lines(folder / "positive.txt"),
        negative=_lines(folder / "negative.txt"),
        definition=_text(definition).strip() if definition.is_file() else "",
        steering=_json(steering) if steering.is_file() else {},
    )
    _refuse_shipped_name(found, folder)
    return found


def constructions(name: str | Path) -> list[str]:
    """The other ways in which a set's stories are told, sorted: folders in its own.

    Shipped alignment traits have `act` (the story ends in the act or the words that show the
    trait), `dialogue` and `third_person`; the set itself stops before the trait shows.
    """
    return sorted(path.parent.name for path in folder_of(name).glob("*/positive.txt"))


def _construction(folder: Path, construction: str) -> ContrastSet:
    there = constructions(folder)
    if construction not in there:
        raise InputError(
            f"The construction {construction!r} of {folder.name!r} was asked for; there are "
            f"{', '.join(there) or 'none'}. Give one of these, or write its positive.txt and "
            "negative.txt."
        )
    whole = load_contrast(folder)
    return ContrastSet(
        name=f"{whole.name}/{construction}",
        positive=_lines(folder / construction / "positive.txt"),
        negative=_lines(folder / construction / "negative.txt"),
        definition=whole.definition,
    )


def available(category: str | None = "alignment") -> list[str]:
    """Names of the shipped contrast sets of one category, or with None of all, sorted.

    >>> "alignment/sycophancy" in available()
    True
    """
    root = datasets("traits")
    found = root.glob(f"{category or '*'}/*/positive.txt")
    return sorted(path.parent.relative_to(root).as_posix() for path in found)


def folder_of(name: str | Path) -> Path:
    """The folder of a shipped contrast set by its name, or the folder that is given.

    Errors: `ValueError`, as `load_contrast`.

    >>> folder_of("sycophancy").name
    'sycophancy'
    """
    known = available(None)
    matches = [full for full in known if str(name) in (full, full.partition("/")[2])]
    if len(matches) == 1 and isinstance(name, str):
        shipped = datasets("traits", matches[0])
        if (Path(name) / "positive.txt").is_file() and not Path(name).samefile(shipped):
            raise InputError(
                f"The trait {name!r} was asked for; a shipped set ({matches[0]}) and a folder here "
                f"have that name. Give './{name}' for the folder, or rename it."
            )
        return shipped
    if len(matches) > 1:
        raise InputError(
            f"The trait {str(name)!r} was asked for, and {len(matches)} sets have that name: "
            f"{', '.join(matches)}. Give the category too."
        )
    if Path(name).is_dir():
        return Path(name)
    raise InputError(_unknown(str(name), known))


def _refuse_shipped_name(contrast: ContrastSet, folder: Path) -> None:
    # results name a set by its last two parts alone
    shipped = datasets("traits", *contrast.name.split("/"))
    if contrast.name not in available(None) or folder.samefile(shipped):
        return
    lines = tuple(_lines(shipped / f"{side}.txt") for side in ("positive", "negative"))
    if lines != (contrast.positive, contrast.negative):
        raise InputError(
            f"The folder {str(folder)!r} would be called {contrast.name!r}, as a shipped set with "
            "other lines is. Rename it, or the folder above it."
        )


def _unknown(name: str, known: Sequence[str]) -> str:
    short = {full.partition("/")[2]: full for full in known}
    close = difflib.get_close_matches(name, [*known, *short], n=1)
    hint = f"Did you mean {short.get(close[0], close[0])!r}? " if close else ""
    others = [full for full in known if not full.startswith("alignment/")]
    shown = [full for full in known if full not in others]
    shown += [f"{len(others)} of other categories"] if others else []
    return (
        f"No trait or folder {name!r}. {hint}There are: {', '.join(shown) or 'no shipped sets'} "
        "(traits.available(None) lists all). Give one of these names, or a folder with "
        "positive.txt and negative.txt."
    )


def _lines(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise FileNotFoundError(
            f"A contrast set needs {path.name}, and {path.parent} has none. "
            "Write one prefix a line, line n being the twin of the other side's line n."
        )
    text = _text(path)
    # str.splitlines would also split at form feeds and Unicode separators inside a line
    return tuple(text.removesuffix("\n").split("\n")) if text else ()


def _text(path: Path) -> str:
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} was read as UTF-8, and byte {error.start} is not ({error.reason}). "
            "Save the file as UTF-8."
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{path} holds a NUL character in line {line}. Write the line again.")
    return text


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} was read as JSON, and is not: {error}. Mend the file.") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} should hold one JSON object, and holds a {type(found).__name__}.")
    return found


def _check_counts(name: str, positive: Sequence[str], negative: Sequence[str]) -> None:
    if len(positive) != len(negative) or not positive:
        raise InputError(
            f"The contrast set {name!r} needs one negative line for each positive one, and has "
            f"{len(positive)} positive and {len(negative)} negative lines. "
            "Write the missing twins, or delete the lines that have none."
        )


def _check_lines(name: str, positive: Sequence[str], negative: Sequence[str]) -> None:
    for number, pair in enumerate(zip(positive, negative, strict=True), start=1):
        empty = [
            side
            for side, line in zip(("positive", "negative"), pair, strict=True)
            if not line.strip()
        ]
        if empty:
            raise InputError(
                f"The contrast set {name!r} has an empty line: {empty[0]}.txt line {number}. "
                "Write it, or delete line "
                f"{number} on both sides."
            )
        if pair[0].strip() == pair[1].strip():
            raise InputError(
                f"The contrast set {name!r} has identical sides at line {number}: "
                f"{pair[0][:60]!r}. A pair must differ; rewrite or delete it on both sides."
            )
