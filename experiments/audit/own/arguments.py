"""What `tracekit audit ADAPTER` takes, with the values that hold where nothing is said."""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.audit.discovery.answering.settings import Settings
from experiments.audit.options import WINDOW, Parser, floats, names, window
from experiments.audit.settings import groups


def parser(words: str, own: groups.Settings) -> argparse.ArgumentParser:
    """The parser; `words` is its text, and the trait part starts from the settings `own`."""
    made = Parser(prog="tracekit audit", description=words)
    add, default = made.add_argument, Settings()
    traits = ",".join(own.vectors.traits)
    add("adapter", help="a folder, a hub id, or a shipped organism such as ten_biases or river")
    add("--model", help=f"its base (default: {default.model})")
    add("--base", help="the model that trait vectors come from (default: the same)")
    add("--dtype", help="float32, bfloat16, nf4, … (default: auto)")
    add("--prompts", nargs="*", type=Path, default=[], help="prompt files of your own besides")
    only = "without the shipped battery and the random beginnings"
    add("--own-prompts-only", action="store_true", help=only)
    labels = "who exploits: JSON, CSV, TOML rules, or module:function (default: the search's rules)"
    add("--labels", help=labels)
    add("--controls", type=names, help="matched=FOLDER,style=FOLDER,… (default: none)")
    add("--habits", help="an adapter with open, benign habits (default: none)")
    add("--benign", nargs="*", default=[], help="benign adapters, or a folder of them: the null")
    add("--traits", type=names, help=f"names or folders of contrast sets (default: {traits})")
    add("--primary", type=names, help="the traits that the hypothesis is about (default: all)")
    add("--hypothesis", help="it, in words, fixed before the run (default: a general one)")
    low, high = own.hypothesis.depth
    add("--depth", type=floats, help=f"where a layer may be chosen (default: {low:g},{high:g})")
    add("--layers", type=window, help=f"{WINDOW} (default: half to 3/4 of the depth)")
    add("--judge-at", help="an OpenAI-compatible address: it tells habits (default: rules do)")
    add("--judge", help="the name of its model")
    add("--server", help="an OpenAI-compatible address that answers for the two, where it can")
    add("--served-model", help="what the base is called there")
    add("--served-adapter", type=names, help="what the adapter on it is called there")
    add("--preset", help="a TOML file of settings of your own (default: the shipped ones)")
    asked = f"tokens sampled after each prompt of the search (default: {default.tokens})"
    add("--tokens", type=int, default=default.tokens, help=asked)
    samples = f"answers to each prompt of the trait part (default: {own.answers.samples})"
    add("--samples", type=int, help=samples)
    draws = f"draws of each interval and p of the trait part (default: {own.null.repetitions})"
    add("--repetitions", type=int, help=draws)
    add("--seed", type=int, help=f"of all draws (default: {default.seed})")
    add("--out", type=Path, help="the folder (default: runs/audit-NAME)")
    alone = "without the trait part: its page is search/report.html"
    add("--search-only", action="store_true", help=alone)
    return made
