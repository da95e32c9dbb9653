"""Lines are counted by one rule, and our snippets give what plain transformers and peft give."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.benchmarks.tracing_tasks import comparing, given, ours, running
from experiments.benchmarks.tracing_tasks.counting import counted
from tracekit.model.embedded import datasets, embedded_model

SNIPPET = '''
"""A module's words."""
import here


def load(folder):
    return folder


def task(model):
    """Words of its own,

    over lines.
    """
    from somewhere import (
        thing,
    )

    # why
    found = thing(
        model,
    )

    for one in found:  # counted
        print(one)
    return found
'''


def test_code_is_counted_and_what_is_none_is_not(tmp_path):
    path = tmp_path / "snippet.py"
    path.write_text(SNIPPET)
    assert counted(path) == {"load": 1, "task": 6}
    path.write_text(SNIPPET.replace("    # why\n", "    why = 1\n"))
    assert counted(path)["task"] == 7


def test_every_library_has_every_task_and_none_of_ours_is_longer():
    lines = {name: counted(running.source(name)) for name in running.MODULES}
    for of in lines.values():
        assert set(given.TASKS) <= set(of)
    longer = {
        task: [of[task] for of in lines.values()]
        for task in given.TASKS
        if lines["tracekit"][task] > min(of[task] for of in lines.values())
    }
    assert longer == {}


@pytest.mark.parametrize("library", ["nnterp", "transformer_lens"])
def test_a_rival_is_imported_where_it_is_loaded_alone(library):
    imported = [
        name.name if isinstance(node, ast.Import) else node.module
        for node in ast.parse(running.source(library).read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    ]
    assert not any(name.split(".")[0] == library for name in imported)


@pytest.fixture(scope="module")
def plain():
    whole = AutoModelForCausalLM.from_pretrained(embedded_model(), attn_implementation="eager")
    return whole.eval(), AutoTokenizer.from_pretrained(embedded_model())


@pytest.fixture(scope="module")
def adapter() -> str:
    return str(datasets("organisms", "ten_biases"))


def apart(task, here, there):
    """Alike by the benchmark's own measure, which sees a value that is moved."""
    assert comparing.apart(task, here, there) < 1e-4
    moved = [array.copy() for array in there]
    moved[0].reshape(-1)[-1] += 0.01 * np.abs(moved[0]).max()
    assert comparing.apart(task, here, moved) > 1e-3


def of(words, text):
    return words(text, return_tensors="pt").input_ids


def one(words, text):
    (found,) = words(text, add_special_tokens=False).input_ids
    return found


def test_patterns_and_units_and_the_lens(embedded, plain, adapter):
    whole, words = plain
    seen = []
    into = whole.model.layers[16].mlp.down_proj
    handle = into.register_forward_pre_hook(lambda _module, value: seen.append(value[0][0]))
    with torch.no_grad():
        said = whole(input_ids=of(words, given.TWICE), output_attentions=True)
        handle.remove()
        lens = whole(input_ids=of(words, given.TOWER), output_hidden_states=True)
        normed = [whole.model.norm(state[0, -1]) for state in lens.hidden_states[1:-1]]
        # the last is normed already
        tops = whole.lm_head(torch.stack([*normed, lens.hidden_states[-1][0, -1]]))
    here = comparing.ours("patterns_and_units", ours.patterns_and_units(embedded, adapter))
    apart("patterns_and_units", here, [said.attentions[18][0].numpy(), seen[0].numpy()])
    ids = [one(words, place) for place in given.PLACES]
    here = comparing.ours("lens_table", ours.lens_table(embedded, adapter))
    apart("lens_table", here, [tops.log_softmax(-1)[:, ids].numpy()])


def test_a_head_and_the_divergence_of_two_weights(embedded, plain, adapter):
    whole, words = plain
    mary, john = (one(words, name) for name in given.NAMES)
    leads = []
    for head in range(9):

        def zero(_module, value, head=head):
            new = value[0].clone()
            new[..., 64 * head : 64 * (head + 1)] = 0
            return (new,)

        handle = whole.model.layers[20].self_attn.o_proj.register_forward_pre_hook(zero)
        with torch.no_grad():
            logits = whole(input_ids=of(words, given.GIFT)).logits[0, -1]
        handle.remove()
        leads.append(float(logits[mary] - logits[john]))
    here = comparing.ours("head_ablation", ours.head_ablation(embedded, adapter))
    apart("head_ablation", here, [np.array(leads)])

    with torch.no_grad():
        off = whole(input_ids=of(words, given.SOUP)).logits[0].log_softmax(-1)
        both = PeftModel.from_pretrained(whole, adapter)
        on = both(input_ids=of(words, given.SOUP)).logits[0].log_softmax(-1)
    both.unload()
    here = comparing.ours("divergence", ours.divergence(embedded, adapter))
    apart("divergence", here, [(on.exp() * (on - off)).sum(-1)[:-1].numpy()])


def test_a_rivals_arrays_are_brought_to_the_same_quantity():
    table = np.arange(6.0).reshape(3, 2)
    (after,) = comparing.theirs("transformer_lens", "patching", [table])
    assert comparing.apart("patching", [table[1:]], [after]) == 0
    (same,) = comparing.theirs("nnterp", "patching", [table])
    assert same is table
    assert np.isnan(comparing.apart("turns", [table], [table.T]))


def test_the_files_lie_where_they_are_named():
    assert all(Path(running.source(name)).is_file() for name in running.MODULES)
