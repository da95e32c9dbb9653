"""What `tracekit audit ADAPTER` refuses, it refuses before the model answers anything."""

import json

import pytest

from experiments.audit.own import adapter_audit
from experiments.command_line import main as tracekit


@pytest.fixture
def audit(tiny_folder, tiny_lora, tmp_path, monkeypatch):
    """The command's words on the tiny model, with prompts of one's own, in a folder of its own."""

    def answered(search):
        raise AssertionError("the model was asked")

    monkeypatch.setattr(adapter_audit, "habits", answered)
    monkeypatch.chdir(tmp_path)
    rows = [{"id": n, "text": f"Say it {n}.", "bias": "noise"} for n in range(8)]
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    files = {
        "bad.toml": "[noise",
        "rules.toml": "[noise]\nsays = '[ae]'\n",
        "other.csv": "prompt,sample,exploits\nnobody/3,0,1\n",
        "judged.toml": "[noise]\nquestion = 'Is it?'\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    given = ["audit", str(tiny_lora), "--model", str(tiny_folder), "--own-prompts-only"]
    return [*given, "--prompts", "mine.json", "--out", "out"]


BAD = [
    (["--preset", "absent.toml"], "'absent.toml' was asked for; there is no such file"),
    (["--preset", "nosuch"], "'nosuch' was asked for"),
    (["--labels", "absent.csv"], "there is no such file"),
    (["--labels", "foo:bar"], "cannot be imported"),
    (["--labels", "bad.toml"], "was read as TOML"),
    (["--labels", "other.csv"], "nobody/3"),
    (["--labels", "judged.toml"], "no judge is given"),
    (["--controls", "foo=x"], "'foo' is no role"),
    (["--controls", "matched=./nope"], "'./nope'"),
    (["--habits", "./nope"], "'./nope'"),
    (["--benign", "./nope"], "'./nope'"),
    (["--traits", "nothing/there"], "nothing/there"),
    (["--primary", "nothing"], "nothing is no trait"),
    (["--depth", "0.9,0.1"], "depth=[0.9, 0.1]"),
    (["--base", "nowhere"], "The base 'nowhere' is neither"),
    (["--samples", "0"], "samples=0 was given"),
    (["--repetitions", "0"], "repetitions=0 was given"),
    (["--hypothesis", ""], "it must not be empty"),
    (["--judge", "m"], "nothing asks it"),
]


@pytest.mark.parametrize(("more", "said"), BAD, ids=lambda value: " ".join(value))
@pytest.mark.parametrize("alone", [[], ["--search-only"]], ids=["whole", "search"])
def test_a_bad_option_is_refused_before_any_answer(audit, more, said, alone, capsys, tmp_path):
    assert tracekit.main([*audit, *more, *alone]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert said in told[0]
    assert not (tmp_path / "out").exists()


def test_good_options_reach_the_model(audit):
    with pytest.raises(AssertionError, match="the model was asked"):
        tracekit.main([*audit, "--labels", "rules.toml", "--samples", "1"])
