"""What a run will need: shapes against real weights, verdicts that hold, refusals, no network."""

import dataclasses
import re
import socket
from pathlib import Path

import pytest
from safetensors import safe_open

from experiments.audit.plan import planning as plans
from experiments.audit.plan import room
from experiments.audit.plan.shapes import at_hand, rank, shape
from experiments.audit.settings.contents import described
from experiments.audit.settings.groups import Settings
from experiments.command_line import main as tracekit
from experiments.rm_sycophancy.__main__ import main
from experiments.rm_sycophancy.experiment import EXPERIMENT, read_preset
from tracekit.model.embedded import datasets, embedded_model


def planned(settings: Settings, card: float, cards: int = 1) -> plans.Plan:
    """A plan that knows how large the hub's set is."""
    return plans.plan(settings, card, cards, hub=EXPERIMENT.hub)


BIG = ("llama-70b", "llama-70b-bf16", "ndif")


def parameters(folder: Path) -> int:
    """Numbers in a folder's safetensors, from their headers."""
    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (no dict)
                size = 1
                for part in file.get_slice(key).get_shape():
                    size *= part
                count += size
    return count


def test_the_shape_counts_the_parameters_that_are_there(tiny_folder: Path, tiny_lora: Path) -> None:
    for model, folder in (("smollm2-135m-instruct", embedded_model()), (tiny_folder, tiny_folder)):
        assert shape(str(model)).parameters == parameters(Path(folder))
    assert shape(str(tiny_folder)).adapter(rank(str(tiny_lora))) == parameters(tiny_lora)
    for name, parts in (("ten_biases", ()), ("river", ("zoo", "adapters"))):
        shipped = datasets("organisms", *parts, name)
        assert shape("smollm2-135m-instruct").adapter(rank(name)) == parameters(shipped)
        assert at_hand("smollm2-135m-instruct", name)
    # the twin: another rank counts another number
    assert shape(str(tiny_folder)).adapter(rank(str(tiny_lora)) + 1) != parameters(tiny_lora)


def test_seventy_billion() -> None:
    assert shape("meta-llama/Llama-3.3-70B-Instruct").parameters == 70_553_706_496
    # the organism's rank 256 on seven projections: 6.6 GB in 16 bits
    organism = read_preset("llama-70b").adapters.organism
    assert shape("meta-llama/Llama-3.1-70B").adapter(rank(organism)) == 3_313_500_160


@pytest.mark.parametrize("name", BIG)
def test_presets_of_the_real_run(name: str) -> None:
    preset = read_preset(name)
    assert preset.prompts.on_hub
    assert preset.model.window == list(range(40, 61))
    assert len(preset.model.revision) == len(preset.model.base_revision) == 40
    assert preset.model.base == "meta-llama/Llama-3.1-70B"
    assert (preset.adapters.organism == "") == (preset.model.remote == "ndif")
    assert described(preset)["settings"]["model"]["revision"] == preset.model.revision


@pytest.mark.parametrize(
    ("name", "card", "cards", "fitting"),
    [
        ("llama-70b", 80e9, 1, True),
        ("llama-70b", 48e9, 1, False),
        ("llama-70b", 48e9, 2, True),
        ("llama-70b-bf16", 80e9, 1, False),
        ("llama-70b-bf16", 80e9, 4, True),
    ],
)
def test_the_verdict(name: str, card: float, cards: int, fitting: bool) -> None:
    made = planned(read_preset(name), card, cards)
    assert plans.fits(made) == fitting
    assert plans.verdict(made).startswith(f"verdict: {'fits.' if fitting else 'does not fit.'}")


@pytest.mark.parametrize("card", [24e9, 48e9, 80e9])
def test_the_setting_that_it_says_would_fit_does(card: float) -> None:
    settings = read_preset("llama-70b-bf16")
    made = planned(settings, card)
    said = plans.verdict(made)
    cards, dtype = re.findall(r"--cards (\d+) of [\d.]+ GB in (\w+)", said)[0]
    assert dtype == "bfloat16"
    assert plans.fits(planned(settings, card, int(cards)))
    assert not plans.fits(planned(settings, card, int(cards) - 1))
    for smaller in re.findall(r"--dtype (\w+) would fit", said):
        model = dataclasses.replace(settings.model, dtype=smaller)
        assert plans.fits(planned(dataclasses.replace(settings, model=model), card))
    assert ("--dtype nf4 would fit" in said) == (card == 80e9)


def test_the_command_prints_tables_and_verdict_without_a_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert main(["plan", "--preset", "llama-70b"]) == 0
    said = capsys.readouterr().out
    for words in ("70,553,706,496 parameters", "weights", "traces, the window", "PFLOP", "hours"):
        assert words in said
    assert said.splitlines()[-1].startswith("verdict: fits. nf4 needs ")
    assert main(["plan", "--preset", "llama-70b", "--gpu-memory", "40"]) == 0
    assert "verdict: does not fit" in capsys.readouterr().out
    assert main(["plan", "--preset", "ndif"]) == 0
    assert "NDIF's machines" in capsys.readouterr().out


def test_less_is_written_with_fewer_layers_or_prompts() -> None:
    whole = plans.on_disk(planned(read_preset("llama-70b"), 80e9))
    for changes in ({"layers": [40, 50]}, {"limit": 100}):
        assert plans.on_disk(planned(read_preset("llama-70b", changes), 80e9)) < 0.7 * whole


def test_too_little_memory_or_disk_is_refused(tmp_path: Path) -> None:
    made = planned(read_preset("llama-70b"), 80e9)
    room.refuse(made, tmp_path, free=1e12)
    with pytest.raises(ValueError, match=r"will write about 6\d\.\d GB .* 10\.0 GB are free"):
        room.refuse(made, tmp_path, free=10e9)
    room.refuse(made, tmp_path, done=60e9, free=10e9)  # what is there is not written again
    with pytest.raises(ValueError, match=r"does not fit\. nf4 needs .* --cards 2"):
        room.refuse(planned(read_preset("llama-70b"), 48e9), tmp_path, free=1e12)


def test_a_run_is_refused_before_anything_is_fetched_or_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room.psutil, "virtual_memory", lambda: _Memory(16e9))
    assert main(["run", "--preset", "llama-70b", "--out", str(tmp_path / "run")]) == 2
    assert "does not fit. nf4 needs" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@dataclasses.dataclass
class _Memory:
    available: float


def test_what_cannot_be_planned_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert not at_hand("nobody/nothing")
    assert main(["plan", "--preset", "llama-70b", "--model", "nobody/nothing"]) == 2
    assert "a gated model needs HF_TOKEN" in capsys.readouterr().err
    assert main(["plan", "--preset", "llama-70b", "--dtype", "float12"]) == 2
    assert "cannot be planned" in capsys.readouterr().err


def test_layers_that_the_model_does_not_have_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for given in ("90,95", "90-95", "79-80"):
        assert main(["plan", "--preset", "llama-70b", "--layers", given]) == 2
        assert "has blocks 0 to 79. Give --layers" in capsys.readouterr().err
    for given in ("78,79", "78-79"):
        assert main(["plan", "--preset", "llama-70b", "--layers", given]) == 0
        assert "verdict: fits" in capsys.readouterr().out


def test_a_plan_names_its_presets_says_who_was_called_and_explains_each_option(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tracekit.main(["plan", "--model", "X"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("tracekit plan: ")
    assert f"there are {', '.join(EXPERIMENT.shipped)}. Give one of these" in said
    assert {"llama-70b", "tiny"} <= {*EXPERIMENT.shipped}
    options = plans.command_line("plan", EXPERIMENT.shipped)._actions
    assert [option.option_strings for option in options if not option.help] == []
