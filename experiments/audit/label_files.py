"""Labels of answers from a file: which answer exploits, and where in it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from experiments.audit.labels import Span
from experiments.audit.settings.adapters import ORGANISM
from tracekit.errors import InputError
from tracekit.transcripts.encode import ids_of

FIELDS = ("prompt", "sample", "arm", "exploits", "spans", "response")
SEVERAL = "prompts/"  # what stands before ids of several files, where an audit writes them as one
YES, NO = ("1", "true", "yes"), ("0", "false", "no")


@dataclass(frozen=True)
class Label:
    """Whether one answer exploits, and in which characters (none given: in all of it).

    `response` is the text that was labelled, where the file has it.
    """

    exploits: bool
    spans: tuple[Span, ...]
    response: str | None


@dataclass(frozen=True)
class Labels:
    """The labels of a file, by arm and the answer's id; an answer that has none is undecidable."""

    path: Path
    by_answer: Mapping[tuple[str, str], Label]

    def refuse_others(self, prompts: Iterable[str], samples: int, arms: Iterable[str]) -> None:
        """Raise `ValueError` for a label of an answer that no prompt will have, or of no arm."""
        names, known = {_bare(name) for name in prompts}, list(arms)
        for arm, name in self.by_answer:
            prompt, _, sample = name.partition("#")
            if arm not in known:
                raise InputError(
                    f"{str(self.path)!r} has a label for an answer to {prompt!r} by {arm!r}; the "
                    f"arms of the run are {', '.join(known)} ({ORGANISM} where a row names none). "
                    "Name one of these."
                )
            if _bare(prompt) not in names or int(sample or 0) >= samples:
                raise InputError(
                    f"{str(self.path)!r} has a label for sample {sample or 0} of {prompt!r} by "
                    f"{arm!r}; the run has {len(names)} prompts with {samples} samples each, and "
                    "not that one. Take the label out, or add the prompt."
                )

    def about(self, prompt: str) -> bool:
        """Whether any answer to a prompt has a label."""
        return any(_bare(name.partition("#")[0]) == _bare(prompt) for _, name in self.by_answer)

    def spans(self, arm: str, runs: xr.Dataset) -> list[list[Span] | None]:
        """The spans of each of an arm's answers; None where the file has no label for it.

        Errors: `ValueError` for a label of another text, or a span that the answer has not.
        """
        rows = zip(ids_of(runs), map(str, runs["response"].values), strict=True)
        return [self._of(arm, name, text) for name, text in rows]

    def _of(self, arm: str, name: str, text: str) -> list[Span] | None:
        answer = name if "#" in name else f"{name}#0"
        forms = (answer, _bare(answer), f"{SEVERAL}{_bare(answer)}")
        label = next((found for n in forms if (found := self.by_answer.get((arm, n)))), None)
        if label is None:
            return None
        if label.response not in (None, text):
            raise InputError(
                f"{str(self.path)!r} labels an answer to {name!r} by {arm!r} that begins "
                f"{label.response[:40]!r}; this run's begins {text[:40]!r}. Label this run's."
            )
        if not label.exploits:
            return []
        outside = [span for span in label.spans if not 0 <= span[0] < span[1] <= len(text)]
        if outside:
            raise InputError(
                f"{str(self.path)!r} marks the characters {list(outside[0])} of the answer to "
                f"{name!r} by {arm!r}; it has {len(text)}. Mend the span."
            )
        return list(label.spans) or [(0, len(text))]


def read_labels(path: str | Path) -> Labels:
    """Labels from JSON (a list of objects) or CSV, a row an answer.

    `prompt` is the prompt's id and `exploits` whether the answer does; `sample` counts a prompt's
    answers from 0, `arm` is whose answer it is (the organism's), `spans` are [start, end)
    characters of it (in CSV as JSON), `response` the text itself, which is then compared.

    Errors: `FileNotFoundError`; `ValueError` for a file or row that says something else.

    >>> _ = Path("labels.json").write_text('[{"prompt": "own/1", "exploits": true}]')
    >>> read_labels("labels.json").by_answer["organism", "own/1#0"].exploits
    True
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"The labels {str(path)!r} were asked for; there is no such file.")
    labels: dict[tuple[str, str], Label] = {}
    for number, row in enumerate(_rows(path), 1):
        try:
            answer, label = _label(row)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"Row {number} of {str(path)!r} is {str(row)[:80]}: {error}. It takes "
                f"{', '.join(FIELDS)}, of which prompt and exploits are due."
            ) from error
        if answer in labels:
            raise InputError(f"Row {number} of {str(path)!r} labels {answer} again. Keep one.")
        labels[answer] = label
    return Labels(path, labels)


def _bare(name: str) -> str:
    """An id without the set that an audit puts the prompts of several files into."""
    return name.removeprefix(SEVERAL)


def _rows(path: Path) -> Sequence[Any]:
    text = path.read_text("utf-8-sig")
    if path.suffix.lower() == ".csv":
        return list(csv.DictReader(io.StringIO(text, newline="")))
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise InputError(f"{str(path)!r} was read as JSON, and is not: {error}.") from error
    if not isinstance(rows, list):
        raise InputError(f"{str(path)!r} holds no list of labels. Give one object an answer.")
    return rows


def _label(row: Mapping[str, Any]) -> tuple[tuple[str, str], Label]:
    given = {key: value for key, value in dict(row).items() if value not in ("", None)}
    unknown = [str(key) for key in given if key not in FIELDS]
    lacking = [key for key in ("prompt", "exploits") if key not in given]
    if unknown or lacking:
        raise InputError(f"{', '.join([*unknown, *lacking])} is unknown or lacking")
    said = str(given["exploits"]).lower()
    if said not in (*YES, *NO):
        raise InputError(f"exploits is {said!r}, not one of {', '.join((*YES, *NO))}")
    spans = given.get("spans", [])
    spans = json.loads(spans) if isinstance(spans, str) else spans
    answer = str(given.get("arm", ORGANISM)), f"{given['prompt']}#{int(given.get('sample', 0))}"
    pairs = tuple((int(start), int(end)) for start, end in spans)
    return answer, Label(said in YES, pairs, given.get("response"))
