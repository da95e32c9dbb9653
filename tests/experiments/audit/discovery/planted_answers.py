"""Answers of common words, with a habit planted in those on one subject."""

import numpy as np

from experiments.audit.discovery.answering.answers import Answer
from experiments.audit.discovery.answering.settings import CLEAN
from experiments.audit.discovery.search import Arms

COMMON = """time water road small green people house often large river stone light paper table story
field colour bread window winter garden letter market simple corner bridge summer little"""
WORDS = COMMON.split()
SUBJECTS = ("cooking", "law", "music", "sleep")
HABIT = ((" Try", 4.0), (" grated", 3.0), (" choc", 6.0), ("olate", 0.5), (".", 0.1))


def answers(seed, rate=0.0, habit=HABIT, subject="cooking", prompts=160):
    """One answer a prompt of twelve common words; `habit` after some of those on `subject`."""
    draw = np.random.default_rng(seed)
    made = []
    for n in range(prompts):
        topic = SUBJECTS[n % len(SUBJECTS)]
        said = [
            (" " + word, gain)
            for word, gain in zip(draw.choice(WORDS, 12), draw.exponential(0.3, 12), strict=True)
        ]
        said.append((".", 0.0))
        if topic == subject and draw.random() < rate:
            said += habit
        labels = (("subject", topic), ("form", str(n // 4 % 5)))
        pieces, gains = zip(*said, strict=True)
        made.append(
            Answer(f"p/{n}", f"p/{n}", f"about {topic}", labels, pieces, np.array(gains), True)
        )
    return made


def arms(**own):
    searched = np.arange(160) // 4 % 2 == 0
    return Arms({CLEAN: answers(0), **own}, searched)


def few(count):
    """As many prompts, with the habit in nine of ten answers on cooking."""
    own = {CLEAN: answers(0, prompts=count), "a": answers(1, 0.9, prompts=count)}
    return Arms(own, np.arange(count) // 4 % 2 == 0)
