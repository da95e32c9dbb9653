"""What a search hands to the trait part as files: prompts with kinds, and rules that label."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from experiments.audit.discovery.answering.halves import is_prefill
from experiments.audit.discovery.answering.products import write_json
from experiments.audit.discovery.findings import Findings
from experiments.audit.discovery.subject import Search
from experiments.audit.labellers import Rules, is_file_of_labels, labeller_from
from experiments.audit.own.kinds import kinds_of, prompts_of, rules_text
from experiments.audit.settings.groups import Answers
from tracekit.errors import InputError
from tracekit.storage.files import whole
from tracekit.storage.identity import digest
from tracekit.transcripts.prompts import Prompt


def own_files(folder: Path, answers: Answers, own: Sequence[Prompt]) -> dict[str, str]:
    """The trait part's prompts and labels where both are the user's: prompts as a file.

    Prompts that name no kind are of the only one that rules are of. Errors: `ValueError` where
    there are several.
    """
    rows = own
    if not any(prompt.labels.get("bias") for prompt in own):
        rows = [_with_kind(prompt, _only_kind(answers)) for prompt in own]
    return {"prompts": write_prompts(folder, rows), "labels": answers.labels}


def _only_kind(answers: Answers) -> str:
    if is_file_of_labels(answers.labels):
        return "own"
    labeller = labeller_from(answers.labels, answers)
    kinds = list(labeller.by_kind) if isinstance(labeller, Rules) else ["own"]
    if len(kinds) == 1:
        return kinds[0]
    raise InputError(
        f"--labels {answers.labels} has rules of the kinds {', '.join(kinds)}, and the prompts "
        "name none. Give each prompt a `bias`, the kind that its answers are labelled by."
    )


def searched_files(folder: Path, found: Findings, search: Search) -> dict[str, str]:
    """The same from a search: its prompts by kind, and rules where a confirmed habit has one."""
    kinds = kinds_of([one for one, _ in found.habits()])
    rows = prompts_of(kinds, search.prompts, search.settings.seed)
    chosen = {"prompts": write_prompts(folder, [p for p in rows if not is_prefill(p)])}
    if not kinds:
        _remove_rules(rules_file(folder))
        return chosen
    return {**chosen, "labels": str(write_rules(rules_file(folder), rules_text(kinds)))}


def rules_file(folder: Path) -> Path:
    """The file of the search's rules in an audit's folder."""
    return folder / "rules.toml"


def write_rules(path: Path, text: str) -> Path:
    """Write the rules of confirmed habits, and beside them a digest that tells a user's changes.

    Errors: `ValueError` for a file that a user has changed since.
    """
    there = path.read_text("utf-8") if path.is_file() else text
    if there != text and not _mark(path).is_file():
        raise _mended(path)
    refuse_mended(path)
    # of both, so that a kill in between is no change of the user's
    _write(_mark(path), f"{digest(text)} {digest(there)}")
    return _write(path, text)


def refuse_mended(path: Path) -> None:
    """Raise `ValueError` for rules that are not as a search wrote them.

    Without a digest beside them (a former version wrote none) nothing tells.
    """
    mark = _mark(path)
    if path.is_file() and mark.is_file():
        written = mark.read_text("utf-8").split()
        if digest(path.read_text("utf-8")) not in written:
            raise _mended(path)


def _remove_rules(path: Path) -> None:
    """Take away the rules of an earlier search, which confirmed what this one does not."""
    refuse_mended(path)
    if _mark(path).is_file():
        path.unlink(missing_ok=True)
        _mark(path).unlink()


def _mended(path: Path) -> InputError:
    return InputError(
        f"{path} was changed since the search wrote it, and would be lost. Give it with "
        "--labels (and its --prompts), or move it away to have the rules of the search again."
    )


def _write(path: Path, text: str) -> Path:
    with whole(path, len(text.encode())) as part:
        part.write_text(text, "utf-8")
    return path


def _mark(path: Path) -> Path:
    return path.with_suffix(".digest")


def write_prompts(folder: Path, prompts: Sequence[Prompt]) -> str:
    """The prompts of the trait part as a file; those of one file keep their ids, which labels name.

    A prompt's id is its file's name and its number there: prompts of several files are `prompts/…`.
    """
    stems = {prompt.id.partition("/")[0] for prompt in prompts}
    stem = stems.pop() if len(stems) == 1 else "prompts"
    rows = [
        {
            "id": prompt.id.removeprefix(f"{stem}/"),
            "group": (prompt.group or prompt.id).removeprefix(f"{stem}/"),
            "messages": [{"role": r, "content": t} for r, t in prompt.conversation()],
            **prompt.labels,
        }
        for prompt in prompts
    ]
    path = folder / "prompts" / f"{stem}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    return str(write_json(path, {"name": "own", "prompts": rows}))


def _with_kind(prompt: Prompt, kind: str) -> Prompt:
    return dataclasses.replace(prompt, labels={**prompt.labels, "bias": kind})
