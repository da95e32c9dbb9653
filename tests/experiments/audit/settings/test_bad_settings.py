"""Every setting and every option with values that mean nothing: one line, before anything runs."""

import dataclasses
import json
import math
import typing
from pathlib import Path

import pytest

from experiments.audit.command import command_line
from experiments.audit.options import one_line
from experiments.audit.plan import planning
from experiments.audit.prompt_sets import read
from experiments.audit.run import SETTINGS
from experiments.audit.settings.groups import Settings, groups, places
from experiments.audit.settings.validity import BOUNDS, check_benign
from experiments.audit.steering import study
from experiments.audit.steering.dose_settings import Steering
from experiments.audit.steering.dose_settings import chosen as steering
from experiments.rm_sycophancy.__main__ import main
from experiments.rm_sycophancy.experiment import EXPERIMENT, read_preset

KINDS = {
    option: typing.get_type_hints(groups()[group])[name]
    for option, (group, name) in places().items()
}
NUMBERS = (math.nan, math.inf, -math.inf, -1.0, 1e30)
NAMES = ("\0", "a\x1b[2J", " ", "\ud800")


def bad_values() -> list[tuple[str, object]]:
    """(field, value) for every field: another kind, and each value that means nothing."""
    cases: list[tuple[str, object]] = []
    for name, kind in KINDS.items():
        inner = typing.get_args(kind)[0] if typing.get_args(kind) else kind
        wrap = (lambda value: [value]) if typing.get_args(kind) else (lambda value: value)
        cases += [(name, None), (name, {}), (name, wrap(b"x"))]
        cases += [(name, "yes" if kind is bool else True)]
        if inner is str:
            cases += [(name, wrap(text)) for text in NAMES]
        if inner is float:
            cases += [(name, wrap(number)) for number in NUMBERS]
        if inner is int:
            cases += [(name, wrap(number)) for number in (-1, 2**64)]
        if typing.get_args(kind) and inner is str:
            cases += [(name, ["twice", "twice"]), (name, [""])]
    return cases


SINGLE = [
    *(("evaluation", "fast"), ("remote", "ndiff"), ("methods", ["mean_dif"]), ("methods", [])),
    *(("method", ""), ("preset", ""), ("model", ""), ("sets", [])),
    *(("samples", 0), ("directions", 0), ("draws", 0), ("repetitions", 0), ("max_new_tokens", 0)),
    *(("layers", []), ("layers", [2, 1]), ("layers", [1, 2, 3]), ("depth", [0.7, 0.2])),
    *(("alpha", 0.0), ("alpha", 1.0), ("smallest", 0.5), ("smallest", 1.0), ("depth", [0.5])),
    *(("judge", "a model"), ("judge_at", "http://x/v1"), ("vet", "ftp://x"), ("vet", "yes")),
    *(("pooling", "median"), ("pooling", "attention"), ("pooling", ""), ("pooling", "top_k(k=0)")),
    ("pooling", "top_k"),
    *(("base_revision", "abc"), ("windows", ["1:0"]), ("windows", ["a:b"])),
    *(("ladder", ["a"]), ("other_objectives", ["a"]), ("temprature", 0.5)),
]


@pytest.mark.parametrize(("name", "value"), [*bad_values(), *SINGLE], ids=repr)
def test_a_setting_that_means_nothing_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name) as found:
        read_preset("tiny", {name: value})
    assert "\n" not in one_line(found.value)


def value(settings: Settings, option: str) -> object:
    group, name = places()[option]
    return getattr(getattr(settings, group), name)


def test_every_number_among_the_settings_has_bounds() -> None:
    numeric = {n for n, k in KINDS.items() if {int, float} & {k, *typing.get_args(k)}}
    assert set(BOUNDS) == numeric


def test_good_values_pass_beside_them() -> None:
    good = {"temperature": 0.7, "samples": 2, "seed": 2**63 - 1, "alpha": 0.01, "smallest": 0.7}
    made = read_preset("tiny", {**good, "judge": "m", "judge_at": "https://x:8/v1"})
    assert {name: value(made, name) for name in good} == good


def test_a_misspelt_setting_is_named_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"temprature unknown.*Did you mean 'temperature'"):
        read_preset("tiny", {"temprature": 0.5})


OPTIONS = [
    *(["--temperature", value] for value in ("nan", "-1", "inf", "warm", "1e9")),
    *(["--seed", value] for value in ("-1", str(2**64), "1.5")),
    *(["--samples", value] for value in ("0", "-2", "many")),
    *(["--layers", value] for value in ("a,b", "3", "2,1", "-1,2", "")),
    *(["--traits", value] for value in ("sycophancy,sycophancy", "sycophancy,,harm_intent")),
    *(["--traits", value] for value in ("sycophancy,alignment/sycophancy", "nothing")),
    *(["--controls", value] for value in ("clean", "organism", "x/control", "a/b,c/b", "deleted")),
    *(["--controls", value] for value in ("a/B,c/b", "habits", "inserted", ",")),
    *(["--benign", value] for value in ("nowhere", "/")),
    *(["--held-out", value] for value in ("chocolat", "chocolate,chocolate", "chocolate,")),
    *([f"--{name}", "-1"] for name in ("limit", "pairs", "max-new-tokens", "repetitions")),
    *(["--evaluation", "slow"], ["--remote", "cloud"], ["--judge", "m"], ["--judge-at", "x"]),
    *(["--labels", "nowhere.json"], ["--labels", "/"], ["--labels", "no.such:rules"]),
    *(["--labels", "nowhere.toml"], ["--preset", "nowhere.toml"], ["--hypothesis", ""]),
    *(["--primary", value] for value in ("sycophancy", "alignment/nothing", ",")),
    *(["--depth", value] for value in ("0.2", "0.7,0.2", "-1,0.5", "a,b", "0.2,nan", "")),
    *(["--pooling", value] for value in ("median", "attention", "top_k(k=x)")),
    *(["--judge-at", "http://x"], ["--split", "tets"], ["--colour", "red"], ["--limit"]),
    *(["--from", value] for value in ("nobody=a.jsonl", "nowhere.jsonl", "a.jsonl,b.jsonl")),
    *(["--server", "http://x/v1"], ["--served-model", "m"], ["--served-adapter", "m"]),
    *(["--preset", ""], ["--model", ""], ["--dtype", "\0"], ["--organism", " "]),
]


def line_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def never_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that gets as far as a model fails."""

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("tracekit.load", loaded)


@pytest.mark.parametrize("flags", OPTIONS, ids=" ".join)
def test_an_option_that_means_nothing_is_one_line_before_anything_runs(
    flags: list[str],
    never_loaded: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    line_of(["run", "--preset", "tiny", "--out", str(tmp_path / "run"), *flags], capsys)
    assert not list(tmp_path.iterdir())


def test_every_option_of_the_command_line_was_tried() -> None:
    tried = {flags[0] for flags in OPTIONS}
    free = {"--out", "--base", "--control", "--habits", "--prompts"}  # any name: their files decide
    switches = {"--debug", "--help", "-h", "--tensor-parallel", "--data-parallel"}
    every = {flag for action in command_line(EXPERIMENT)._actions for flag in action.option_strings}
    assert every - free - switches <= tried


@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf", "much"])
@pytest.mark.parametrize(
    "flag", ["--gpu-memory", "--cards", "--peak", "--bandwidth", "--utilisation", "--download"]
)
def test_a_plan_on_a_machine_that_cannot_be_is_refused(
    flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flag in line_of(["plan", "--preset", "tiny", f"{flag}={value}"], capsys)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Steering)])
def test_steering_settings_that_mean_nothing_are_refused(name: str) -> None:
    default = getattr(Steering(), name)
    values = {int: (-2, 2**64), tuple: ((), (math.nan,), (math.inf,), (0.5,), (-0.1, -0.1))}
    bad = values.get(type(default), ("x",) if name.startswith("judge") else ())
    for value in bad:
        with pytest.raises(ValueError, match=name):
            steering({name: value})


def test_arms_that_would_be_one_are_refused_and_others_are_not() -> None:
    for controls in (["x/clean"], ["x/Organism"], ["x/mine", "y/mine"], ["control/"]):
        with pytest.raises(ValueError, match="arm"):
            read_preset("tiny", {"controls": controls})
    settings = read_preset("tiny", {"controls": ["x/mine", "y/yours"]})
    assert list(settings.arms) == ["clean", "organism", "control", "mine", "yours"]


def test_a_benign_adapter_called_as_an_arm_is_refused(tmp_path: Path) -> None:
    for name in ("organism", "quiet"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text("{}")
    settings = read_preset("tiny", {"benign": str(tmp_path)})
    with pytest.raises(ValueError, match="another arm of this run is called 'organism'"):
        check_benign(settings)
    (tmp_path / "organism").rename(tmp_path / "calm")
    check_benign(settings)
    # an arm that lies in the folder itself is one adapter, not two
    check_benign(read_preset("tiny", {"benign": str(tmp_path), "controls": [f"{tmp_path}/quiet"]}))


def test_traits_of_one_name_are_refused(tmp_path: Path) -> None:
    for place, word in (("a", "will"), ("b", "shall"), ("c", "may")):
        folder = tmp_path / place / "mine" / ("Tense" if place == "c" else "tense")
        folder.mkdir(parents=True)
        (folder / "positive.txt").write_text(f"We {word} go\n")
        (folder / "negative.txt").write_text("We did go\n")
    folders = [str(tmp_path / "a" / "mine" / "tense"), str(tmp_path / "b" / "mine" / "tense")]
    assert read_preset("tiny", {"traits": folders[:1]}).vectors.names == ["mine/tense"]
    for other in (folders[1], str(tmp_path / "c" / "mine" / "Tense")):
        with pytest.raises(ValueError, match="both are called"):
            _ = read_preset("tiny", {"traits": [folders[0], other]}).vectors.contrasts


def test_labels_that_the_audit_gives_itself_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    own = {"prompts": str(path), "split": "", "held_out": []}
    for label in ("part", "exploit", "scalar"):
        path.write_text(json.dumps([{"id": 1, "text": "Why?", label: "x"}]))
        with pytest.raises(ValueError, match=f"the label '{label}'"):
            read(read_preset("tiny", own).prompts)


def test_prompts_without_a_bias_are_neutral_and_numbers_are_names(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    rows = [{"id": n, "text": "Why?", **({"bias": n % 2} if n else {})} for n in range(5)]
    path.write_text(json.dumps(rows))
    own = {"prompts": str(path), "split": "", "limit": 0, "held_out": []}
    settings = read_preset("tiny", own)
    found = [(p.labels["bias"], p.labels["part"]) for p in read(settings.prompts)]
    assert found == [("", "neutral"), *[("1", "calibration"), ("0", "held_out")] * 2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not"),
        ("[]", "no JSON object"),
        ("{}", "no settings"),
        ('{"settings": {"colour": "red"}}', "colour unknown"),
        ('{"settings": 3}', "no settings"),
    ],
)
def test_settings_of_a_run_that_are_damaged_are_one_line(
    content: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / SETTINGS).write_text(content)
    assert words in line_of(["analyse", "--out", str(tmp_path)], capsys)


def test_a_path_that_fails_is_one_line_and_debug_shows_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out = str(tmp_path / "file" / "run")
    arguments = ["analyse", "--preset", "tiny", "--out", str(tmp_path / ("x" * 300))]
    line = line_of(arguments, capsys)
    assert "x" * 300 in line
    assert "shorter path" in line
    assert "file" in line_of(["project", "--out", out], capsys)
    with pytest.raises(OSError, match="too long"):
        main([*arguments, "--debug"])
    assert one_line(OSError(28, "No space left on device", "a.nc")).startswith("'a.nc' cannot be")


SECRET = "s3cr3t-w0rd"


@pytest.mark.parametrize(
    "address",
    [
        f"http://user:{SECRET}@localhost:1/v1",
        f"http://{SECRET}@localhost:1/v1",
        f"http://localhost:1/v1?api_key={SECRET}",
        f"http://localhost:1/v1#{SECRET}",
        f"http://me:a/{SECRET}@localhost:1/v1",
        f"http://me:b@{SECRET}@localhost:1/v1",
    ],
)
def test_credentials_in_an_address_are_in_no_setting_and_on_no_line(
    address: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, beside in (("judge_at", "judge"), ("vet", "judge"), ("server", "served_model")):
        made = read_preset("tiny", {name: address, beside: "m"})
        assert value(made, name) == "http://localhost:1/v1"
    assert steering({"judge_url": address, "judge": "m"}).judge_url == "http://localhost:1/v1"
    for flags in (["--judge-at", address], ["--judg_at", address], ["--evaluation", address]):
        capsys.readouterr()
        assert main(["run", "--preset", "tiny", "--out", str(tmp_path / "run"), *flags]) == 2
        assert SECRET not in "".join(capsys.readouterr())


def test_the_three_commands_share_one_kind_of_parser() -> None:
    module = EXPERIMENT.module
    parsers = (
        command_line(EXPERIMENT),
        planning.command_line(module, EXPERIMENT.shipped),
        study.command_line(module),
    )
    for parser in parsers:
        with pytest.raises(ValueError, match="--help says what there is"):
            parser.parse_args(["--nothing"])
