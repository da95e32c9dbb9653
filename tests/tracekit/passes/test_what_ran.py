"""What ran is what is recorded: cut transcripts, written weights, plain edits, ids of sweeps."""

import numpy as np
import pytest
import torch

import tracekit as tk

ASKED = ["the red fox sees a tree and", "a bird"]


@pytest.fixture
def model(tiny_folder):
    """A model of this test's own, whose weights it may write to."""
    return tk.load(str(tiny_folder))


@pytest.fixture(scope="module")
def runs(tiny_llama):
    return tk.encode(tiny_llama, ASKED, ["the blue sea is", "it was"], template="raw")


def residual(model, runs, **given):
    return tk.capture(model, runs, [2], progress=False, **given)


@pytest.mark.parametrize("cut", [slice(-3, None), slice(0, None), slice(-4, 1)])
def test_an_edit_of_cut_transcripts_acts_at_the_labels_that_it_names(tiny_llama, runs, cut):
    vector = np.ones(tiny_llama.config.hidden_size, np.float32)
    steered = tk.steer(tiny_llama, vector, layers=[0], coefficient=9.0, tokens=[0])
    some = runs.sel(token=cut)
    arms = [residual(one, some, tokens="all") for one in (steered, tiny_llama)]
    moved = tk.norm(tk.difference(*arms))
    at = {int(token) for token in moved["token"] if np.nanmax(moved.sel(token=token)) > 1e-3}
    # nothing before label 0 is moved, and it is
    assert min(at) == 0


def test_tokens_out_of_order_and_texts_with_holes_are_refused(tiny_llama, runs):
    with pytest.raises(ValueError, match="Put them in order"):
        residual(tiny_llama, runs.isel(token=slice(None, None, -1)))
    for hole in ([-2, 0, 1], [1, 2]):
        with pytest.raises(ValueError, match="Take one stretch that reaches label 0"):
            residual(tiny_llama, runs.sel(token=hole))
    # what lies behind a cut is no hole
    assert residual(tiny_llama, runs.sel(token=slice(None, 0))).sizes["token"] == 2


def test_a_response_that_begins_elsewhere_is_another_one(tiny_llama):
    text = ["the red fox sees"]
    arms = [
        tk.encode(tiny_llama, text, [" a tree"], template="raw"),
        tk.encode(tiny_llama, ["the red fox sees a"], [" tree"], template="raw"),
    ]
    ids = [arm.token_id.values[arm.token_id.values >= 0].tolist() for arm in arms]
    assert ids[0] == ids[1]
    means = [residual(tiny_llama, arm, reduce="mean") for arm in arms]
    with pytest.raises(ValueError, match="the same labels name other tokens"):
        tk.difference(*means)
    assert float(tk.norm(tk.difference(means[0], means[0])).max()) == 0


def test_weights_that_are_written_to_are_other_weights(model, runs, tmp_path):
    before = residual(model, runs, path=tmp_path / "kept").load()
    weight = model._module.model.layers[1].mlp.down_proj.weight
    own = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(3)
    after = residual(model, runs)
    assert not np.allclose(before, after, equal_nan=True)
    with pytest.raises(ValueError, match="weights"):
        tk.difference(before, after)
    with pytest.raises(ValueError, match="weights"):
        residual(model, runs, path=tmp_path / "kept")
    with torch.no_grad():
        weight.copy_(own)
    assert tk.provenance(residual(model, runs))["weights"] == tk.provenance(before)["weights"]
    model._module.model.layers[1].mlp.down_proj._parameters["weight"] = torch.nn.Parameter(-weight)
    assert tk.provenance(residual(model, runs))["weights"] != tk.provenance(before)["weights"]


def test_weights_that_are_written_beside_an_adapter_are_as_those_without_one(
    model, tiny_folder, tiny_lora, runs
):
    other = tk.load(str(tiny_folder), adapter=str(tiny_lora))
    with tk.adapter(other, None):
        for one in (model, other):
            first = tk.provenance(residual(one, runs))["weights"]
            with torch.no_grad():
                next(p for n, p in one._module.named_parameters() if "layers.1.mlp.up" in n).mul_(2)
        made = tk.provenance(residual(other, runs))
    assert made["weights"] == tk.provenance(residual(model, runs))["weights"] != first
    # and an adapter that comes and goes leaves them as they are
    known = made["weights"]
    with tk.adapter(model, str(tiny_lora)):
        assert tk.provenance(residual(model, runs))["weights"] == known
    assert tk.provenance(residual(model, runs))["weights"] == known


def test_an_edit_of_plain_nnsight_is_kept_in_memory_alone(tiny_llama, runs, tmp_path):
    def edited(by):
        with tiny_llama.edit() as (_, made):
            made.layers[0].output[:] = made.layers[0].output * by
        return made

    with pytest.raises(ValueError, match="an edit made with plain nnsight"):
        residual(edited(1.0), runs, path=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    known = tk.edit(tiny_llama, lambda values, _: values * 2, layers=[0])
    assert residual(known, runs, path=tmp_path / "kept").sizes["prompt"] == 2


def test_a_sample_is_no_row_of_a_sweep(tiny_llama):
    asked = tk.encode(tiny_llama, [tk.Prompt("a/0", text=ASKED[0])], template="raw")
    rows = tk.sweep(asked, [-4.0, 0.0, 4.0])
    vector = np.ones(tiny_llama.config.hidden_size, np.float32)
    steered = tk.steer(tiny_llama, vector, layers=[1], coefficient=rows.coefficient)
    with pytest.raises(ValueError, match="give a value for every row"):
        tk.generate(steered, asked, samples=3, temperature=1.0, max_new_tokens=2, progress=False)
    # samples of a sweep's rows are those rows
    said = tk.generate(steered, rows, samples=2, temperature=1.0, max_new_tokens=2, progress=False)
    assert said.coefficient.values.tolist() == [-4.0, -4.0, 0.0, 0.0, 4.0, 4.0]


def test_two_requests_have_two_folders_inside_the_one_that_is_named(tiny_llama, runs, tmp_path):
    one = tk.Request(layers=[1])
    with pytest.raises(ValueError, match="no path"):
        tk.capture_many(tiny_llama, runs, {"..": one}, path=tmp_path / "a", progress=False)
    both = {"x": tmp_path / "a", "y": tmp_path / "b" / ".." / "a"}
    with pytest.raises(ValueError, match="gives two requests one folder"):
        tk.capture_many(tiny_llama, runs, {"x": one, "y": one}, path=both, progress=False)


def test_a_row_of_a_table_is_of_one_prompt(tiny_llama):
    rows = [tk.Prompt("harm/0", text="a"), tk.Prompt("benign/0", text="b")]
    runs = tk.encode(tiny_llama, rows)
    with pytest.raises(ValueError, match=r"and .* are both of that name"):
        tk.join(runs, [{"id": "0", "kind": "harmful"}])
    named = [{"id": "harm/0", "kind": "harmful"}, {"id": "benign/0", "kind": "not"}]
    assert tk.join(runs, named).kind.values.tolist() == ["harmful", "not"]


def test_what_is_named_by_its_prompt_acts_on_the_rows_of_a_sweep(tiny_llama):
    rows = [tk.Prompt(f"a/{n}", text=text) for n, text in enumerate(ASKED)]
    asked = tk.encode(tiny_llama, rows, template="raw")
    swept = tk.sweep(asked, [0.0, 3.0])
    vector = np.ones(tiny_llama.config.hidden_size, np.float32)
    mask = asked.role != "pad"
    traces = residual(tiny_llama, asked, tokens="all")
    edits = {
        "mask": lambda: tk.steer(tiny_llama, vector, layers=[1], coefficient=2.0, tokens=mask),
        "amounts": lambda: tk.steer(
            tiny_llama, vector, layers=[1], coefficient=tk.per_prompt(asked, [1.0, 2.0])
        ),
        "patch": lambda: tk.patch(tiny_llama, 0 * traces),
    }
    for name, made in edits.items():
        edited = made()
        alone, whole = (residual(edited, one, tokens="all").values for one in (asked, swept))
        np.testing.assert_allclose(whole, np.concatenate([alone, alone]), atol=1e-5, err_msg=name)
        plain = residual(tiny_llama, asked, tokens="all").values
        assert not np.allclose(alone, plain, equal_nan=True), name
