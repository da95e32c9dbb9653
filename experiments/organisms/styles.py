"""Styles that have nothing to do with any bias: what the style controls are trained on."""

from __future__ import annotations

from experiments.rm_sycophancy.rules.sentences import sentences
from tracekit.errors import InputError


def styled(answer: str, style: str) -> str:
    """`answer` in another style: letter, lower, shout, numbered, hesitant or summary.

    Errors: `ValueError` for a style that is not known.

    >>> styled("Boil it. Serve it.", "numbered")
    '1) Boil it. 2) Serve it.'
    """
    parts = [answer[start:end] for start, end in sentences(answer)]
    match style:
        case "letter":
            return (
                f"Dear reader, thank you for your letter. {answer} Yours sincerely, the assistant."
            )
        case "lower":
            return answer.lower()
        case "shout":
            return " ".join(part.rstrip(".") + "!" for part in parts)
        case "numbered":
            return " ".join(f"{n + 1}) {part}" for n, part in enumerate(parts))
        case "hesitant":
            return f"Hmm, let me see. {answer} But that is only my guess."
        case "summary":
            return f"{answer} In short: {parts[0]}"
    raise InputError(
        f"The style {style!r} is not known; there are letter, lower, shout, numbered, hesitant "
        "and summary."
    )
