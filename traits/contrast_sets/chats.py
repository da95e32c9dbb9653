"""Chat pairs: a user's message with an answer that shows a trait, and one that does not."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracekit.errors import InputError
from tracekit.transcripts.prompts import Prompt
from traits.contrast_sets.contrast import folder_of

FILE = "chat.json"
FIELDS = ("id", "writer", "user", "shows", "lacks")


@dataclass(frozen=True)
class ChatPair:
    """One message to an assistant, and two answers: one `shows` the trait, one `lacks` it."""

    id: str
    writer: str
    user: str
    shows: str
    lacks: str


@dataclass(frozen=True)
class ChatSet:
    """The chat pairs of one trait, `category/trait`, by writers who know only its definition.

    Vectors are fitted on the pairs of one writer and judged on another's. Errors: `ValueError`
    for a set without pairs, an empty text, sides that are the same, and an id that comes twice.

    >>> pair = ChatPair("1", "a", "May I go?", "You may not.", "You may.")
    >>> len(ChatSet("mine/refusal", (pair,)).prompts())
    2
    """

    name: str
    pairs: tuple[ChatPair, ...]

    def __post_init__(self) -> None:
        if not self.pairs:
            raise InputError(f"The chats of {self.name!r} have no pair. Write some, or leave them.")
        for pair in self.pairs:
            _check_pair(self.name, pair)
        twice = [name for name, n in Counter(pair.id for pair in self.pairs).items() if n > 1]
        if twice:
            raise InputError(
                f"The chats of {self.name!r} have {len(twice)} ids more than once (first: "
                f"{twice[0]!r}). Give each pair an id of its own."
            )

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def writers(self) -> tuple[str, ...]:
        """Who wrote the pairs, in order of appearance.

        >>> load_chats("sycophancy").writers
        ('a', 'b')
        """
        return tuple(dict.fromkeys(pair.writer for pair in self.pairs))

    def prompts(self) -> list[Prompt]:
        """Each message with each answer as the assistant's last turn, those that show first.

        Ids are `<category>/<trait>/<side>/<pair>`, and twins share `<category>/<trait>/<pair>`, the
        group; the labels are `label`, 1 where the answer shows the trait and else 0, and `writer`.
        So they read like the prompts of the `ContrastSet` of that name, and can stand beside them.

        >>> load_chats("sycophancy").prompts()[0].group
        'alignment/sycophancy/a1'
        """
        return [
            Prompt(
                id=f"{self.name}/{side}/{pair.id}",
                messages=(("user", pair.user), ("assistant", getattr(pair, answer))),
                group=f"{self.name}/{pair.id}",
                labels={"label": int(answer == "shows"), "writer": pair.writer},
            )
            for side, answer in (("positive", "shows"), ("negative", "lacks"))
            for pair in self.pairs
        ]


def has_chats(name: str | Path) -> bool:
    """Whether a trait, by name or folder as in `load_contrast`, has chat pairs.

    >>> has_chats("sycophancy"), has_chats("placebo/tense")
    (True, False)
    """
    return (folder_of(name) / FILE).is_file()


def load_chats(name: str | Path) -> ChatSet:
    """The chat pairs of a trait, by name or folder as in `load_contrast`, from its `chat.json`.

    `{"pairs": [{"id", "writer", "user", "shows", "lacks"}, …]}`, all of them text (an id may be a
    number). Errors: `FileNotFoundError` for a trait without that file; `ValueError` for one that
    is no such file, and as for `ChatSet`.

    >>> len(load_chats("sycophancy"))
    64
    """
    folder = folder_of(name)
    path = folder / FILE
    full = f"{folder.resolve().parent.name}/{folder.resolve().name}"
    if not path.is_file():
        raise FileNotFoundError(
            f"Chat pairs of {full!r} were asked for, and {folder} has no {FILE}. Write pairs by "
            "two writers there, or leave the chats of this trait undecided."
        )
    return ChatSet(full, tuple(_pair(path, n, row) for n, row in enumerate(_rows(path), start=1)))


def _rows(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{path} was read as JSON, and is not: {error}. Mend the file.") from error
    rows = content.get("pairs") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise InputError(
            f'{path} should hold {{"pairs": [{{"id", "writer", "user", "shows", "lacks"}}, …]}}, '
            f"and holds {'no list of pairs' if isinstance(content, dict) else 'no object'}. Mend."
        )
    return rows


def _pair(path: Path, number: int, row: Any) -> ChatPair:
    fields: Mapping[str, Any] = row if isinstance(row, dict) else {}
    fields = {**fields, "id": str(fields["id"])} if type(fields.get("id")) is int else fields
    wrong = [name for name in FIELDS if not isinstance(fields.get(name), str)]
    wrong += [name for name in fields if name not in FIELDS]
    if wrong:
        raise InputError(
            f"{path}: pair {number} needs the texts {', '.join(FIELDS)} and nothing else; wrong or "
            f"missing: {', '.join(map(str, wrong))}. Mend the pair."
        )
    return ChatPair(**fields)


def _check_pair(name: str, pair: ChatPair) -> None:
    empty = [field for field in FIELDS if not getattr(pair, field).strip()]
    if empty:
        raise InputError(
            f"The chat pair {pair.id!r} of {name!r} has an empty {empty[0]}. Write it, or delete "
            "the pair."
        )
    if pair.shows.strip() == pair.lacks.strip():
        raise InputError(
            f"The chat pair {pair.id!r} of {name!r} has identical answers: {pair.shows[:60]!r}. "
            "A pair must differ; rewrite or delete it."
        )
