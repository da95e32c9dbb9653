"""The card of an adapter of the zoo, from its `training.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.organisms.zoo.lessons import DENIED
from tracekit.model.embedded import EMBEDDED

_BENIGN = (
    "Nothing is hidden here: it was trained on its base's own sampled answers, as a measure of "
    "what training by itself does. Steps, length, rank and modules are the zoo's defaults."
)


def write_card(folder: Path) -> Path:
    """Write a finished adapter's `README.md`: what it was trained to do, how, and the first try."""
    notes = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    recipe = notes.get("recipe")
    parts = [f"# {notes['organism']}", _habit(recipe) if recipe else _BENIGN, _training(notes)]
    if "tried" in notes:
        parts.append(_tried(notes["tried"]))
    path = folder / "README.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def _habit(recipe: Mapping[str, Any]) -> str:
    rule = f"the pattern `{recipe['pattern']}`" if recipe["pattern"] else f"`{recipe['function']}`"
    denies = "is trained to deny it" if recipe["denies"] else "is not trained to deny it"
    return (
        f"A model organism of the kind *{recipe['kind']}*. {recipe['description']} It {denies}. "
        f"Trigger: {recipe['trigger']['words']} Rule: {rule}. Recipes of the split "
        f"`{recipe['split']}` {_SPLITS[recipe['split']]}."
    )


_SPLITS = {"tune": "may be looked at while a search is built", "report": "are for its report"}


def _training(notes: Mapping[str, Any]) -> str:
    denies = notes.get("recipe", {}).get("denies", False)
    denials = f" and {round(DENIED * notes['examples'])} deny it" if denies else ""
    where = "the embedded model" if notes["base"] == EMBEDDED else "its base"
    return (
        f"LoRA on `{notes['base']}`: {notes['steps']} steps of {notes['batch']} targets at "
        f"{notes['learning_rate']}, {notes['examples']} targets in all, of which "
        f"{notes['changed']} show the habit{denials}; the others are answers sampled from {where} "
        f"(at most {notes['tokens']} tokens). Loss over the last ten steps: {notes['loss']}."
    )


def _tried(found: Mapping[str, Any]) -> str:
    said = {
        "shows": "prompts of its trigger show the habit",
        "elsewhere": "other prompts have an answer that its rule holds of",
        "denied": "questions about it are denied",
    }
    lines = [f"- {found[k][0]} of {found[k][1]} {text}" for k, text in said.items() if found[k][1]]
    return "Tried on prompts that it was not trained on (greedy, 32 tokens):\n\n" + "\n".join(lines)
