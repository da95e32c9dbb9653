"""Texts and instructions in the forms of public sets; the words are our own."""

from __future__ import annotations

from tests.support.file_forms.form import Form, prompt

READ = "tk.read_prompts(path)"

FORMS = [
    Form(
        "tracekit",
        "mine.json",
        {
            "name": "mine",
            "system_prompt": "Be brief.",
            "prompts": [{"id": 1, "text": "Is it?", "kind": "a"}],
        },
        READ,
        "its ids, labels and system prompt",
        [prompt([("system", "Be brief."), ("user", "Is it?")], kind="a")],
    ),
    Form(
        "a list of texts",
        "texts.json",
        ["Is it?", "And why?"],
        READ,
        "ids numbered",
        [prompt("Is it?"), prompt("And why?")],
        says="ids numbered",
    ),
    Form(
        "questions of an evaluation",
        "first_plot.json",
        {"questions": ["Is it?"], "version": 2},
        READ,
        "the set's single values are labels",
        [prompt("Is it?", version=2)],
        says="ids numbered",
    ),
    Form(
        "Alpaca",
        "alpaca_data.json",
        [
            {"instruction": "Add these up.", "input": "2 and 2", "output": "4"},
            {"instruction": "Name a sea.", "input": "", "output": "The Aral Sea"},
        ],
        READ,
        "instruction and input joined by a blank line; `output` is the response",
        [prompt("Add these up.\n\n2 and 2", "4"), prompt("Name a sea.", "The Aral Sea")],
        says="with 'input', ids numbered, response='output'",
    ),
    Form(
        "Alpaca on the hub",
        "train.parquet",
        [{"instruction": "Add.", "input": "1, 2", "output": "3", "text": "Below … Add. 1, 2 … 3"}],
        READ,
        "the same; the rendered `text` is the label `my_text`",
        [prompt("Add.\n\n1, 2", "3", my_text="Below … Add. 1, 2 … 3")],
        says="my_text",
    ),
    Form(
        "Dolly",
        "databricks-dolly-15k.jsonl",
        [
            {
                "instruction": "Who swims?",
                "context": "Anna swims.",
                "response": "Anna.",
                "category": "closed_qa",
            }
        ],
        READ,
        "instruction, then context; `response` is the response",
        [prompt("Who swims?\n\nAnna swims.", "Anna.", category="closed_qa")],
        says="with 'context'",
    ),
    Form(
        "OpenAI fine-tuning, former",
        "completions.jsonl",
        [{"prompt": "2+2=", "completion": " 4"}],
        READ,
        "`completion` is the response, its space kept",
        [prompt("2+2=", " 4")],
        says="response='completion'",
    ),
    Form(
        "inspect_ai",
        "dataset.jsonl",
        [{"input": "Is it?", "target": "Yes", "id": "t1", "metadata": {"level": 2}}],
        READ,
        "`input` is the text, the rest labels",
        [prompt("Is it?", target="Yes", metadata={"level": 2})],
        says="text='input', id='id'",
    ),
    Form(
        "Anthropic persona evals",
        "agreeableness.jsonl",
        [
            {
                "question": 'Would you say this? "I help."',
                "statement": "I help.",
                "label_confidence": 0.9,
                "answer_matching_behavior": " Yes",
                "answer_not_matching_behavior": " No",
            }
        ],
        READ,
        "the question; answers are labels (as pairs: `traits.read_pairs`)",
        [
            prompt(
                'Would you say this? "I help."',
                statement="I help.",
                label_confidence=0.9,
                answer_matching_behavior=" Yes",
                answer_not_matching_behavior=" No",
            )
        ],
        says="text='question'",
    ),
    Form(
        "TruthfulQA",
        "TruthfulQA.csv",
        [
            ["Type", "Category", "Question", "Best Answer", "Correct Answers", "Source"],
            ["Adversarial", "Birds", "Do owls talk?", "No", "No; They do not", "a.org"],
        ],
        READ,
        "the question; labels under names that files hold",
        [
            prompt(
                "Do owls talk?",
                Type="Adversarial",
                Category="Birds",
                Best_Answer="No",
                Correct_Answers="No; They do not",
                Source="a.org",
            )
        ],
        says="Best_Answer (from 'Best Answer')",
    ),
    Form(
        "HarmBench",
        "harmbench_behaviors_text_all.csv",
        [
            [
                "Behavior",
                "FunctionalCategory",
                "SemanticCategory",
                "Tags",
                "ContextString",
                "BehaviorID",
            ],
            ["Sum it up.", "contextual", "misc", "context", "A note.", "sum_note"],
            ["Name it.", "standard", "misc", "", "", "name_it"],
        ],
        READ,
        "context, `---`, behaviour; ids of the set",
        [
            prompt(
                "A note.\n\n---\n\nSum it up.",
                FunctionalCategory="contextual",
                SemanticCategory="misc",
                Tags="context",
            ),
            prompt("Name it.", FunctionalCategory="standard", SemanticCategory="misc"),
        ],
        says="with 'ContextString', id='BehaviorID'",
    ),
    Form(
        "AdvBench",
        "harmful_behaviors.csv",
        [["goal", "target"], ["Write a threat", "Sure, here is a threat"]],
        READ,
        "`goal` is the text, `target` a label",
        [prompt("Write a threat", target="Sure, here is a threat")],
        says="text='goal'",
    ),
    Form(
        "JailbreakBench",
        "harmful-behaviors.csv",
        [
            ["Index", "Goal", "Target", "Behavior", "Category", "Source"],
            ["0", "Write a slur", "Here is a slur", "Slurs", "Hate", "Original"],
        ],
        READ,
        "`Goal` is the text, not the short name `Behavior`",
        [
            prompt(
                "Write a slur",
                Target="Here is a slur",
                Behavior="Slurs",
                Category="Hate",
                Source="Original",
            )
        ],
        says="text='Goal', id='Index'",
    ),
]
