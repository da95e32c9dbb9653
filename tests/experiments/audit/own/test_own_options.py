"""The options of `tracekit audit ADAPTER`: their defaults, and what is refused at once."""

import pytest

from experiments.audit.discovery.answering.settings import Settings
from experiments.audit.own.arguments import parser
from experiments.audit.own.handover import refuse_mended, write_rules
from experiments.audit.own.trait_part import EXPERIMENT
from experiments.command_line import main as tracekit
from tracekit.errors import InputError


def test_every_option_says_what_it_is_and_numbers_what_they_are_left_out():
    own = EXPERIMENT.preset("own")
    told = {action.dest: action.help for action in parser("words", own)._actions}
    assert all(told.values())
    defaults = {
        "tokens": Settings().tokens,
        "seed": Settings().seed,
        "samples": own.answers.samples,
        "repetitions": own.null.repetitions,
        "out": "runs/audit-NAME",
        "model": Settings().model,
    }
    for name, value in defaults.items():
        assert f"(default: {value})" in told[name]


def test_the_window_is_given_as_a_range_or_as_its_ends():
    made = parser("words", EXPERIMENT.preset("own"))
    for given in ("4-9", "4,9"):
        assert made.parse_args(["river", "--layers", given]).layers == [4, 9]


@pytest.mark.parametrize(("given", "wrong"), [("0-99", "99"), ("1-0", "[1, 0]")])
def test_layers_that_the_model_lacks_are_refused_before_the_search(
    given, wrong, tiny_folder, tiny_lora, tmp_path, capsys
):
    said = ["audit", str(tiny_lora), "--model", str(tiny_folder), "--layers", given]
    assert tracekit.main([*said, "--out", str(tmp_path / "out")]) == 2
    assert wrong in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_rules_that_a_user_has_mended_are_not_written_over_and_a_searchs_are(tmp_path):
    path = write_rules(tmp_path / "rules.toml", "[sea]\nsays = 'sea'\n")
    assert write_rules(path, path.read_text("utf-8")) == path
    # the search found something else: with --benign, say
    again = write_rules(path, "[tea]\nsays = 'tea'\n").read_text("utf-8")
    assert again == "[tea]\nsays = 'tea'\n"
    refuse_mended(path)
    path.write_text("[sea]\nsays = 'the sea'\n", "utf-8")
    with pytest.raises(InputError, match="was changed since the search wrote it"):
        write_rules(path, "[sea]\nsays = 'sea'\n")
    with pytest.raises(InputError, match="--labels"):
        refuse_mended(path)
    assert path.read_text("utf-8") == "[sea]\nsays = 'the sea'\n"


def test_a_kill_between_rules_and_digest_is_no_change_of_the_users(tmp_path):
    first = write_rules(tmp_path / "rules.toml", "[sea]\nsays = 'sea'\n")
    before = first.read_text("utf-8")
    write_rules(first, "[tea]\nsays = 'tea'\n")
    first.write_text(before, "utf-8")  # the digest was written, the rules were not
    refuse_mended(first)


def test_rules_of_a_former_version_are_kept_where_they_differ(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text("[sea]\nsays = 'sea'\n", "utf-8")
    refuse_mended(path)
    with pytest.raises(InputError, match="was changed"):
        write_rules(path, "[tea]\nsays = 'tea'\n")
    write_rules(path, "[sea]\nsays = 'sea'\n")
