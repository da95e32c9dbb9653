"""The prompts of a run, each with the part it plays: to choose, to report, or neither."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import tracekit as tk
from experiments.audit.experiment import HubSet
from experiments.audit.settings.groups import Prompts
from tracekit.errors import InputError
from tracekit.transcripts.prompts import take

# what any adapter is asked, and more of it, asked only where a candidate habit should show
BATTERY, RESERVE = ("prompts", "general_battery.json"), ("prompts", "general_reserve.json")
GIVEN = ("part", "exploit", "exploit_span")  # labels of each response
OCCUPIED = ("weights", "scalar", "cosine")  # beside those that tracekit keeps for its files


def read(given: Prompts, hub: HubSet | None = None) -> list[tk.Prompt]:
    """The prompts of the split asked for, the same number from every bias, each with its `part`.

    `part` is calibration, held_out, or the kind of prompt where no bias is at stake: neutral, for
    the blind comparison, are those whose bias is "neutral" and those that name none. A set of the
    hub has the organism's own biases in one split and the held-out ones in the other. Errors:
    `ValueError` for a split or a held-out bias that no prompt has, and for labels that the audit
    gives itself.
    """
    if given.on_hub:
        prompts = _from_hub(given, hub)
        return take(prompts, given.limit) if given.limit else prompts
    read = askable(given.paths)
    refuse_labels(read)
    biases = [str(prompt.labels.get("bias", "")) for prompt in read]
    parts = parts_of(biases, given)
    prompts = [
        replace(prompt, labels={**prompt.labels, "bias": bias, "part": parts[bias]})
        for prompt, bias in zip(read, biases, strict=True)
        if bias not in given.left_out
    ]
    if list(parts.values()).count("calibration") == 1 and "held_out" not in parts.values():
        prompts = split_one(prompts)
    if not prompts:
        raise InputError(
            f"The prompts of {given.paths[0].name!r} were asked for; all are of kinds "
            f"that are not asked ({', '.join(given.left_out)}). Give others."
        )
    if given.split:
        splits = sorted({str(prompt.labels.get("split", "")) for prompt in prompts})
        prompts = [p for p in prompts if str(p.labels.get("split", "")) == given.split]
        if not prompts:
            raise InputError(
                f"The split {given.split!r} of {given.paths[0].name!r} was asked for; "
                f"its prompts have {', '.join(splits) or 'no split'}. Give one of these as --split."
            )
    return take(prompts, given.limit) if given.limit else prompts


def _from_hub(given: Prompts, hub: HubSet | None) -> list[tk.Prompt]:
    if hub is None:
        raise InputError(
            f"The prompts {given.file!r} were asked for: no such file, and this experiment reads "
            "none from the hub. Give a JSON file of prompts."
        )
    if given.held_out:
        raise InputError(
            f"held_out={list(given.held_out)} was given; the set {given.file!r} of the "
            "hub has its held-out biases in a split of their own. Leave it out."
        )
    splits = [given.split] if given.split else list(hub.parts)
    return [
        replace(p, labels={**p.labels, "part": hub.parts.get(split, "calibration")})
        for split in splits
        for p in hub.read(split, given.file)
    ]


def parts_of(biases: Sequence[str], given: Prompts) -> dict[str, str]:
    """Which biases choose (calibration) and which report (held_out); others keep their own name.

    A prompt without a bias ("") is neutral. Errors: `ValueError` for a held-out bias that is not
    among them.

    >>> parts_of(["vote", "banana", "neutral", ""], Prompts())
    {'vote': 'calibration', 'banana': 'held_out', 'neutral': 'neutral', '': 'neutral'}
    """
    quiet = ("", *given.without_bias, *given.left_out)
    names = [name for name in dict.fromkeys(biases) if name not in quiet]
    unknown = [name for name in given.held_out if name not in names]
    if unknown:
        raise InputError(
            f"The held-out biases {', '.join(map(repr, unknown))} were asked for; the prompts have "
            f"{', '.join(map(repr, names)) or 'no bias'}. Give some of these."
        )
    held = set(given.held_out or names[1::2])
    parts = {name: "held_out" if name in held else "calibration" for name in names}
    return parts | {name: name or "neutral" for name in biases if name in quiet}


def split_one(prompts: Sequence[tk.Prompt]) -> list[tk.Prompt]:
    """The same prompts, every second one of the only kind that is at stake reported on.

    Rows of one group go together. Layer and threshold are then chosen on the same kind as they
    are reported on: less is asked of them than where kinds are held out.

    >>> rows = [tk.Prompt(n, text="?", labels={"part": "calibration"}) for n in "abc"]
    >>> [prompt.labels["part"] for prompt in split_one(rows)]
    ['calibration', 'held_out', 'calibration']
    """
    groups = [p.group or p.id for p in prompts if p.labels["part"] == "calibration"]
    held = set(list(dict.fromkeys(groups))[1::2])
    return [
        replace(p, labels={**p.labels, "part": "held_out"})
        if p.labels["part"] == "calibration" and (p.group or p.id) in held
        else p
        for p in prompts
    ]


def split_kind(rows: Iterable[tuple[str, str]]) -> str:
    """The only kind at stake where it was split, of rows' kinds and parts; "" where none was.

    >>> split_kind([("tea", "calibration"), ("tea", "held_out"), ("", "neutral")])
    'tea'
    """
    parts: dict[str, set[str]] = {"calibration": set(), "held_out": set()}
    for kind, part in rows:
        parts.get(part, set()).add(kind)
    both = parts["calibration"] & parts["held_out"]
    return both.pop() if len(both) == 1 else ""


def askable(paths: Iterable[str | Path]) -> list[tk.Prompt]:
    """The prompts of files, as an audit can ask them.

    Errors: `ValueError` for one with a prefill, tools, or an answer with thoughts or calls: its
    arms, searches and questions know texts and turns alone, and would leave those out.
    """
    prompts = [prompt for path in paths for prompt in tk.read_prompts(path)]
    for prompt in prompts:
        more = [name for name in ("prefill", "tools") if getattr(prompt, name)]
        more += ["thoughts or calls in its answer"] if len(prompt.reply) > 1 else []
        if more:
            raise InputError(
                f"The prompt {prompt.id!r} has {' and '.join(more)}, which an audit would leave "
                "out. Take that out, or trace these prompts with tk.encode and tk.capture."
            )
    return prompts


def joined(battery: Sequence[tk.Prompt], own: Iterable[tk.Prompt]) -> list[tk.Prompt]:
    """The battery's prompts and the user's own; what was asked before is not asked again.

    An audit gives prompts of its battery back under their ids, or in a file "prompts" of several.
    Two prompts that say the same get the same answer: they would count as two, and be in both
    halves.
    Errors: `ValueError` for the id of one of the battery's with another text.

    >>> joined([tk.Prompt("a/1", text="Why?")], [tk.Prompt("prompts/a/1", text="Why?")])[0].id
    'a/1'
    """
    known = {prompt.id: prompt.conversation() for prompt in battery}
    asked = {(prompt.conversation(), prompt.answer) for prompt in battery}
    more = []
    for prompt in own:
        name = prompt.id if prompt.id in known else prompt.id.removeprefix("prompts/")
        said = prompt.conversation(), prompt.answer
        if name not in known:
            more += [prompt] * (said not in asked)
            asked.add(said)
        elif prompt.conversation() != known[name]:
            raise InputError(
                f"The prompt {prompt.id!r} was given, and the battery has another text under that "
                "id. Rename its file, or give it another id."
            )
    return [*battery, *more]


def refuse_labels(prompts: Sequence[tk.Prompt]) -> None:
    """Raise `ValueError` for prompts that begin an answer or have a label of the audit's own."""
    for prompt in prompts:
        if prompt.answer is not None:
            raise InputError(
                f"The prompt {prompt.id!r} ends with the assistant's turn, and the arms of the "
                "audit are to answer. End it with the user's."
            )
        taken = sorted({*GIVEN, *OCCUPIED} & set(prompt.labels))
        if taken:
            raise InputError(
                f"The prompt {prompt.id!r} has the label {taken[0]!r}, which the audit gives its "
                f"own arrays ({', '.join((*GIVEN, *OCCUPIED))}). Rename it in the prompt file."
            )
