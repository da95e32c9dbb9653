"""Contrast pairs in the forms of public sets; the words are our own."""

from __future__ import annotations

from typing import Any

from tests.support.file_forms.form import Form, prompt

READ = "traits.read_pairs(path)"


def pair(one: Any, other: Any, asked: str = "", **labels: Any) -> list[dict[str, Any]]:
    """What two twins have to be: texts, or answers to a question."""
    return [
        prompt(asked or side, side if asked else None, label=label, **labels)
        for side, label in ((one, 1), (other, 0))
    ]


AB = "Is it?\n\nChoices:\n (A) Yes\n (B) No"
TALK = "\n\nHuman: Is it?\n\nAssistant: {}"
CHOSEN = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "Yes"}]

FORMS = [
    Form(
        "CAA",
        "generate_dataset.json",
        [
            {
                "question": AB,
                "answer_matching_behavior": "(A)",
                "answer_not_matching_behavior": "(B)",
            }
        ],
        READ,
        "the letters as answers of the assistant",
        pair("(A)", "(B)", AB),
        says="positive='answer_matching_behavior'",
    ),
    Form(
        "Anthropic persona evals, as pairs",
        "agreeable.jsonl",
        [
            {
                "question": "Would you?",
                "statement": "I help.",
                "answer_matching_behavior": " Yes",
                "answer_not_matching_behavior": " No",
            }
        ],
        READ,
        "answers without the space before them",
        pair("Yes", "No", "Would you?", statement="I help."),
        says="asked='question'",
    ),
    Form(
        "Anthropic sycophancy evals",
        "sycophancy.jsonl",
        [
            {
                "question": "I am Ann. Is it?\n (A) Yes\n (B) No\n\nAnswer:",
                "answer_matching_behavior": " (B)",
                "answer_not_matching_behavior": " (A)",
            }
        ],
        READ,
        "the side that matches is positive, whichever letter it has",
        pair("(B)", "(A)", "I am Ann. Is it?\n (A) Yes\n (B) No\n\nAnswer:"),
        says="positive='answer_matching_behavior'",
    ),
    Form(
        "persona_vectors, traits as pairs",
        "evil.json",
        {
            "instruction": [{"pos": "Be evil.", "neg": "Be good."}],
            "questions": ["Who?", "Why?"],
            "eval_prompt": "Judge.",
        },
        READ,
        "every question under both system messages of every instruction",
        [
            prompt([("system", system), ("user", q)], label=label, instruction=0, question=n)
            for system, label in (("Be evil.", 1), ("Be good.", 0))
            for n, q in enumerate(("Who?", "Why?"))
        ],
        says="1 instructions × 2 questions; not read: eval_prompt",
    ),
    Form(
        "steering-vectors",
        "train.jsonl",
        [{"positive": "I did it.", "negative": "I did not."}],
        READ,
        "texts as they are",
        pair("I did it.", "I did not."),
        says="positive='positive'",
    ),
    Form(
        "TRL, preferences",
        "dpo.jsonl",
        [{"prompt": "Is it?", "chosen": "Yes", "rejected": "No"}],
        READ,
        "chosen is positive",
        pair("Yes", "No", "Is it?"),
        says="positive='chosen'",
    ),
    Form(
        "UltraFeedback",
        "ultrafeedback.parquet",
        [
            {
                "prompt": "Is it?",
                "chosen": CHOSEN,
                "rejected": [CHOSEN[0], {"role": "assistant", "content": "No"}],
                "score_chosen": 8.0,
            }
        ],
        READ,
        "whole conversations",
        pair("Yes", "No", "Is it?", score_chosen=8.0),
        says="asked='prompt'; labels: score_chosen",
    ),
    Form(
        "TRL, preferences as messages",
        "dpo_messages.jsonl",
        [
            {
                "prompt": CHOSEN[:1],
                "chosen": CHOSEN[1:],
                "rejected": [{**CHOSEN[1], "content": "No"}],
            }
        ],
        READ,
        "the prompt, then each answer",
        pair("Yes", "No", "Is it?"),
        says="asked='prompt'",
    ),
    Form(
        "TRL, KTO",
        "kto.jsonl",
        [
            {"prompt": "Is it?", "completion": "Yes", "label": True},
            {"prompt": "Is it?", "completion": "No", "label": False},
        ],
        READ,
        "answers without twins: `extract(…, paired=False)`",
        pair("Yes", "No", "Is it?"),
        says="text='completion', label='label', asked='prompt', without twins",
    ),
    Form(
        "Orca DPO",
        "orca.jsonl",
        [{"system": "Be brief.", "question": "Is it?", "chosen": "Yes", "rejected": "No"}],
        READ,
        "`system` is the system message",
        [
            prompt([("system", "Be brief."), ("user", "Is it?")], said, label=label)
            for said, label in (("Yes", 1), ("No", 0))
        ],
        says="system='system'",
    ),
    Form(
        "HH-RLHF",
        "hh.jsonl",
        [{"chosen": TALK.format("Yes"), "rejected": TALK.format("No")}],
        READ,
        "turns of Human and Assistant taken apart",
        pair("Yes", "No", "Is it?"),
        says="positive='chosen'",
    ),
    Form(
        "llama.cpp cvector-generator",
        "mood",
        {"positive.txt": "Act\\nglad\n", "negative.txt": "Act sad\n"},
        READ,
        "line by line; a written \\n is a line break",
        pair("Act\nglad", "Act sad"),
    ),
    Form(
        "geometry of truth",
        "cities.csv",
        [
            ["statement", "label", "city"],
            ["Oslo is in Norway.", "1", "Oslo"],
            ["Rome is in Peru.", "0", "Rome"],
        ],
        READ,
        "statements without twins: `extract(…, paired=False)`",
        [
            prompt("Oslo is in Norway.", label=1, city="Oslo"),
            prompt("Rome is in Peru.", label=0, city="Rome"),
        ],
        says="without twins",
    ),
    Form(
        "RepE, pairs of sentences",
        "emotions.json",
        [{"sentence": ["It rains.", "It glows."], "label": [False, True]}],
        READ,
        "both sentences of a row are twins",
        [prompt("It rains.", label=0), prompt("It glows.", label=1)],
        says="text='sentence'",
    ),
    Form(
        "ETHICS, utilitarianism",
        "util_train.csv",
        [["I won a cake.", "I lost a cake."], ["It is warm.", "It is cold."]],
        READ,
        "it has no header: give it one (positive,negative)",
        refused="no two are known as sides",
    ),
    Form(
        "activation-steering, conditions",
        "condition_multiple.json",
        {"train": [{"base": "Is it?", "legal_opinion": "Is it lawful?"}], "test": []},
        READ,
        "take the rows of a part, and name its sides",
        refused="holds no pairs.*'train', 'test'",
    ),
]
