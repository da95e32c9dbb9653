"""A model whose values depend on the padding beside them: row by row, or refused."""

import pytest
import torch

import tracekit as tk
from tests.support.oracles import every_kind, reference


@pytest.fixture(scope="module")
def bart(tmp_path_factory):
    # its learned positions count the columns, padding or not
    return every_kind.build("bart", tmp_path_factory.mktemp("models") / "bart")


@pytest.fixture(scope="module")
def model(bart):
    return tk.load(bart, dtype="float32")


def test_rows_of_any_length_are_as_alone(bart, model):
    cells = every_kind.row(model, every_kind.plain(bart, None))
    right = {name: word for name, (word, _) in cells.items() if word[:1].isdigit()}
    assert cells["generation"][0] == "equal"
    assert right.keys() == {"residual", "logprobs", "steering"}


def test_padded_beside_others_they_would_be_others(bart, model):
    plain = reference.load(bart)
    padded = reference.padded(bart, every_kind.TEXTS)
    inputs = {name: padded[name] for name in ("input_ids", "attention_mask")}
    short = inputs["attention_mask"][-1].bool()
    with torch.no_grad():
        beside = plain(**inputs).logits[-1, short]
        alone = plain(inputs["input_ids"][-1:, short]).logits[0]
    assert reference.gap(beside, alone) > 1e-2


@pytest.mark.parametrize("read", [tk.capture, tk.logprobs, tk.generate])
def test_a_padded_batch_is_refused_by_name(model, read):
    runs = tk.encode(model, every_kind.TEXTS, template="raw")
    with pytest.raises(ValueError, match=r"rows of \d to \d+ tokens was asked of .* padding"):
        read(model, runs, token_budget=512)
    same = runs.isel(prompt=[0, 0]).assign_coords(prompt=["a", "b"])
    read(model, same, token_budget=512)
