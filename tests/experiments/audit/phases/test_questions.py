"""How much likelier yes is than no: one number, wherever it is asked, against a plain forward."""

import numpy as np
import torch
from transformers import LlamaForCausalLM

import tracekit as tk
from experiments.audit.phases.questions import yes_over_no
from experiments.audit.steering import validation
from experiments.audit.steering.dose_settings import Steering
from traits import load_contrast

TEXTS = ["Is snow white?", "Is the answer to this somewhat longer question no?"]
SIDES = {"yes": ("Yes", " yes", " Yes", "yes"), "no": ("No", " no", " No", "no")}


def plainly(folder, words, texts):
    """ln P(yes) − ln P(no) of the next token, by transformers alone, a text at a time."""
    module = LlamaForCausalLM.from_pretrained(folder).eval()
    ids = {}
    for side, spellings in SIDES.items():
        coded = [words(text, add_special_tokens=False)["input_ids"] for text in spellings]
        ids[side] = sorted({one[0] for one in coded if len(one) == 1})
    rows = []
    for text in texts:
        chat = [{"role": "user", "content": text}]
        given = words.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            last = module(**given).logits[0, -1].double().log_softmax(-1)
        rows.append(float(last[ids["yes"]].logsumexp(0) - last[ids["no"]].logsumexp(0)))
    return np.array(rows)


def test_yes_over_no_adds_up_the_spellings_of_each(tiny_llama, tiny_folder, words):
    ratios = yes_over_no(tiny_llama, tk.encode(tiny_llama, TEXTS))
    expected = plainly(tiny_folder, words, TEXTS)
    assert ratios.shape == (1, len(TEXTS))
    assert np.allclose(ratios[0], expected, atol=1e-4)
    assert not np.allclose(ratios[0], expected[::-1], atol=1e-4)


def test_the_validation_of_vectors_asks_with_the_same_number(tiny_llama, tiny_folder, words):
    contrast = load_contrast("alignment/sycophancy")
    traces = tk.capture(tiny_llama, tk.encode(tiny_llama, ["Hi"]), [1], progress=False)
    vector = traces.isel(prompt=0, token=0, drop=True)
    steering = Steering(multiples=(), questions=2, answer_tokens=4)
    judged = validation.validated(tiny_llama, contrast.name, vector, 1.0, steering, True)
    unsteered = tk.generate(
        tiny_llama,
        tk.encode(tiny_llama, contrast.steering["questions"][:2]),
        max_new_tokens=4,
        token_budget=steering.token_budget,
        progress=False,
    )
    asked = validation._asked(unsteered, contrast.definition)
    score = judged["score"].sel(multiple=0).values
    assert np.allclose(score, plainly(tiny_folder, words, asked), atol=1e-4)
