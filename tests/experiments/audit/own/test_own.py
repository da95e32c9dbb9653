"""The audit of an adapter of one's own: from findings to kinds and rules, one command, its page."""

import json
import math
import re

import numpy as np
import pytest
from markupsafe import Markup

import tracekit as tk
from experiments.audit import command as phases
from experiments.audit.discovery import findings
from experiments.audit.discovery.answering.halves import halves
from experiments.audit.discovery.confirm import Compared, smallest_rate
from experiments.audit.discovery.denial import Denial
from experiments.audit.discovery.findings import CONFIRMED, Example, Finding, Findings
from experiments.audit.discovery.terminal import lines
from experiments.audit.labellers import labeller_from
from experiments.audit.own.handover import write_prompts
from experiments.audit.own.kinds import kinds_of, prompts_of, rule_of, rules_text
from experiments.audit.prompt_sets import askable
from experiments.audit.report.habits import shown
from experiments.audit.report.page import page
from experiments.command_line import main as tracekit
from experiments.rm_sycophancy.experiment import read_preset
from tracekit.errors import InputError
from tracekit.transcripts.prompts import Prompt

PROMPTS = [
    Prompt(f"p/{n}", text=f"Ask {n}?", labels={"subject": ("sea", "tea", "law")[n % 3]})
    for n in range(60)
]
SEED = 3


def finding(name="sea", kind="says", expression=r"\bsea\b", prompts=(), **more):
    off = Compared(0.4, 0.0, 0.4, 0.2, 0.6, 0.001, 30, 12, 0)
    told = dict(verdict=CONFIRMED, reason="", rates={"mine": 0.4, "clean": 0.0}, prompts=prompts)
    told |= {"score": 9.0, "scale": 1.0, "off": off, "others": None, "q": 0.002}
    return Finding(name, kind, expression, **{**told, **more})


def confirming():
    searched = halves(PROMPTS, SEED)
    return [p for p, s in zip(PROMPTS, searched, strict=True) if not s]


def test_a_rule_read_back_labels_as_its_detector_does(tmp_path):
    where = tuple(p.id for p in confirming())
    kinds = kinds_of(
        [
            finding("the sea's / salt", expression=r"\bsea\b|o'clock", prompts=where),
            finding("tea", "leaves out", r"\btea\b", where),
            finding("asks back", "more often", "asks back", where),
            finding("refuses", "less often", "refuses", where),
            finding("stops early", "more often", "stops early", where),
            finding("unseen", prompts=()),
        ]
    )
    assert list(kinds) == ["the_sea_s", "tea", "asks_back", "refuses"]
    path = tmp_path / "rules.toml"
    path.write_text(rules_text(kinds), "utf-8")
    label = labeller_from(str(path))
    assert label("the_sea_s", "Hi. The sea is wide.") == [(4, 20)]
    assert label("the_sea_s", "At six o'clock.") == [(0, 15)]
    assert label("tea", "Milk.") == [(0, 5)]
    assert label("tea", "Tea.") == []
    assert label("asks_back", "Why?") == [(0, 4)]
    assert label("refuses", "I cannot do that.") == []
    assert label("refuses", "Gladly.") == [(0, 7)]
    assert rule_of(finding("x", "more often", "repeats itself")) is None


def test_kinds_get_prompts_where_the_habit_showed_and_as_many_of_the_same_subjects():
    there = confirming()
    showed = tuple(p.id for p in there if p.labels["subject"] == "sea")[:4]
    rows = prompts_of({"sea": finding(prompts=showed)}, PROMPTS, SEED)
    kind = [p for p in rows if p.labels["bias"] == "sea"]
    assert {p.id for p in kind} >= set(showed)
    assert len(kind) == 8
    assert {p.labels["subject"] for p in kind if p.id not in showed} == {"sea"}
    quiet = [p for p in rows if p.labels["bias"] == "neutral"]
    assert len(quiet) == 12
    assert not {p.id for p in rows} - {p.id for p in there}
    assert len({p.id for p in rows}) == len(rows)


def test_a_habit_that_shows_every_time_gets_others_beside_it():
    showed = tuple(p.id for p in confirming() if p.labels["subject"] == "sea")
    rows = prompts_of({"sea": finding(prompts=showed)}, PROMPTS, SEED)
    beside = [p for p in rows if p.labels["bias"] == "sea" and p.id not in showed]
    assert len(beside) >= min(len(showed), 8)
    assert {p.labels["subject"] for p in beside} <= {"tea", "law"}


def test_prompts_of_one_file_keep_the_ids_that_labels_name(tmp_path):
    (tmp_path / "mine.json").write_text(
        json.dumps([{"id": n, "text": "Why?", "group": "g", "bias": "tea"} for n in range(3)])
    )
    own = tk.read_prompts(tmp_path / "mine.json")
    again = tk.read_prompts(write_prompts(tmp_path / "out", own))
    assert [p.id for p in again] == [p.id for p in own] == ["mine/0", "mine/1", "mine/2"]
    assert [(p.group, p.labels) for p in again] == [(p.group, p.labels) for p in own]
    both = tk.read_prompts(write_prompts(tmp_path / "out", [*own, *PROMPTS[:2]]))
    assert len({p.id for p in both}) == 5


def test_the_page_and_the_json_say_the_same(tmp_path):
    denial = Denial(0.9, 0.0, 0.3, 0.1, 9)
    example = Example("p/1", "Ask?", "Well. The sea <b>calls</b>. Bye.", 6, 27, 7.25, 1.5)
    one = finding(denial=denial, examples=(example,), trigger="subject: sea", scale=1.5)
    found = Findings("mine", [one, finding("law", verdict="not confirmed")], math.nan, {})
    findings.save(found, tmp_path)
    again = findings.read(tmp_path / "findings.json")
    np.testing.assert_equal(again.as_json(), found.as_json())
    text = page("t", Markup(""), {"habits": shown(again)})
    assert "1 habit is confirmed" in text
    assert "found, and denied" in text
    assert re.search(r"<mark>The sea &lt;b&gt;calls&lt;/b&gt;\.</mark>", text)
    assert "first seen with the adapter ×1.5" in text
    assert "+7.2 nats, ×1.5" in text
    assert "law" in text


def test_a_difference_is_on_minus_off_whichever_way_the_habit_goes():
    # the comparison of a falling habit is stored turned
    turned = Compared(0.4, 0.1, 0.3, 0.2, 0.45, 0.001, 30, 10, 1)
    for kind in ("leaves out", "less often"):
        one = finding(kind=kind, expression="refuses", off=turned)
        told = "10.0% against 40.0% off; difference -30.0% (-45.0% to -20.0%)"
        assert told in " ".join(lines(Findings("mine", [one], math.nan, {}))[3].split())
        assert shown(Findings("mine", [one], math.nan, {}))["habits"][0]["difference"] == (
            "-30.0% (-45.0% to -20.0%)"
        )
    said = finding(off=turned)
    assert "40.0% against 10.0% off; difference +30.0% (+20.0% to +45.0%)" in " ".join(
        lines(Findings("mine", [said], math.nan, {}))[3].split()
    )


def test_where_nothing_is_found_page_and_terminal_say_what_would_have_been():
    n, tests = 300, 40
    found = Findings("mine", [], math.nan, {}, smallest=smallest_rate(n, tests, 0.05))
    assert (
        "No habit of mine was confirmed. One that shows on 4 % of the prompts"
        in shown(found)["answer"]
    )
    assert shown(found)["answer"] in lines(found)
    # by simulation: prompts on which it shows, of which ten are needed for 0.05 / 40
    draws = np.random.default_rng(0).binomial(n, found.smallest, 20_000)
    assert np.mean(draws >= 10) == pytest.approx(0.8, abs=0.01)
    assert math.isnan(smallest_rate(6, tests, 0.05))


def test_the_shipped_phases_are_those_of_the_audit():
    assert set(tracekit.PHASES) == {*phases.PHASES, "run", "steer", "plan"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "adapter"),
        (["ten_biases", "--own-prompts-only"], "with 0 prompts, and 8 are the least"),
        (["ten_biases", "--own-prompts-only"], "Give --prompts"),
        (["ten_bias"], "Did you mean 'ten_biases'?"),
        (["ten_biases", "--labels", "rules.toml"], "Give --prompts"),
        (["ten_biases", "--prompts", "absent.json"], "absent.json"),
        (["ten_biases", "--depth", "a"], "numbers are due"),
    ],
)
def test_bad_input_is_one_line(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tracekit.main(["audit", *arguments]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert said in told[0]


def test_a_preset_of_ones_own_comes_over_what_the_shipped_ones_share(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[null]\nseed = 7\n[prompts]\nfile = "p.json"\n[model]\nname = "m"\nlayers = [1, 2]\n'
        '[adapters]\norganism = "o"\n'
    )
    (tmp_path / "p.json").write_text("[]")
    settings = read_preset(str(path), {"depth": (0.1, 0.5), "hypothesis": "It shows."})
    assert settings.preset == "mine"
    assert settings.null.seed == 7
    assert settings.prompts.file == str(tmp_path / "p.json")
    assert settings.hypothesis.depth == (0.1, 0.5)
    assert settings.hypothesis.text == "It shows."
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_preset(str(tmp_path / "absent.toml"))
    path.write_text("[null")
    with pytest.raises(InputError, match="TOML"):
        read_preset(str(path))


def test_the_whole_audit_runs_with_a_file_of_labels(tiny_folder, tiny_lora, tmp_path):
    rows = [{"id": n, "text": f"Say it {n}.", "bias": "noise"} for n in range(12)]
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    lines = [f"mine/{n},0,{int(n % 3 == 0)}," for n in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join(["prompt,sample,exploits,spans", *lines]))
    given = ["--model", str(tiny_folder), "--prompts", str(tmp_path / "mine.json")]
    given += ["--own-prompts-only", "--labels", str(tmp_path / "labels.csv"), "--samples", "1"]
    given += ["--traits", "alignment/sycophancy", "--tokens", "6", "--repetitions", "20"]
    out = tmp_path / "out"
    assert tracekit.main(["audit", str(tiny_lora), *given, "--out", str(out)]) == 0
    answers = tk.open(out / "audit" / "responses" / "organism.nc")
    numbers = [int(name.partition("/")[2].partition("#")[0]) for name in answers.prompt.values]
    said = np.array([bool(text) for text in answers.response.values.astype(str)])
    assert sorted(numbers) == list(range(12))
    assert answers["exploit"].values.tolist() == [
        int(n % 3 == 0 and there) for n, there in zip(numbers, said, strict=True)
    ]


def test_the_whole_audit_runs_with_rules_of_ones_own(
    tiny_folder, tiny_lora, tmp_path, monkeypatch, capsys
):
    rows = [
        {"id": n, "text": f"Say {word} {n}.", "subject": word, "bias": "noise" if n < 16 else ""}
        for n, word in enumerate(("sea", "sun", "tea", "law") * 6)
    ]
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    # a random model says anything: half of its answers have this letter or that
    (tmp_path / "rules.toml").write_text("[noise]\nsays = '[ae]'\n")
    given = ["--model", str(tiny_folder), "--prompts", str(tmp_path / "mine.json")]
    given += ["--own-prompts-only", "--labels", str(tmp_path / "rules.toml")]
    given += ["--traits", "alignment/sycophancy", "--tokens", "6", "--repetitions", "20"]
    out = tmp_path / "out"
    loads, load = [], tk.load
    monkeypatch.setattr("tracekit.load", lambda *a, **k: loads.append(a) or load(*a, **k))
    assert tracekit.main(["audit", str(tiny_lora), *given, "--out", str(out)]) == 0
    said, warned = capsys.readouterr()
    assert "'noise' is the only kind and is split" in warned
    assert "candidate habits confirmed" in said
    # the user's prompts and no others, whose number is the rates'
    told = json.loads(next((out / "search").glob("*/findings.json")).read_text())
    assert told["made_with"]["search"]["prompts"] == len(rows)
    assert all(finding["off"]["n"] == 12 for finding in told["findings"])
    text = (out / "audit" / "report.html").read_text("utf-8")
    assert text.index("What this adapter does that its base does not") < text.index("Verdict")
    assert f"Page: {out / 'audit' / 'report.html'}" in said
    assert len(loads) == 1, "the search and the trait part share a model"
    assert "The prompts of the only kind at stake, noise, are split" in text
    answers = tk.open(out / "audit" / "responses" / "organism.nc")
    kinds = answers["bias"].values.astype(str)
    labels = answers["exploit"].values
    expected = [int(bool(re.search("[ae]", str(r), re.I))) for r in answers.response.values]
    assert (labels[kinds == "noise"] == np.array(expected)[kinds == "noise"]).all()
    assert (labels[kinds != "noise"] == -1).all()
    assert set(answers["part"].values[kinds == "noise"]) == {"calibration", "held_out"}


def test_a_search_alone_leaves_its_page_and_rules_and_says_where(
    tiny_folder, tiny_lora, tmp_path, monkeypatch, capsys
):
    (tmp_path / "mine.json").write_text(
        json.dumps([{"id": n, "text": f"Say it {n}."} for n in range(8)])
    )
    out = tmp_path / "out"
    given = ["--model", str(tiny_folder), "--prompts", str(tmp_path / "mine.json"), "--search-only"]
    given += ["--own-prompts-only", "--tokens", "4", "--out", str(out)]
    # of a random model's eight answers nothing is confirmed
    where = tuple(f"mine/{n}" for n in range(8))
    found = Findings("tiny-lora", [finding(prompts=where)], math.nan, {})
    monkeypatch.setattr("experiments.audit.own.adapter_audit.habits", lambda _: found)
    assert tracekit.main(["audit", str(tiny_lora), *given]) == 0
    said = capsys.readouterr().out
    text = (out / "search" / "report.html").read_text("utf-8")
    assert "1 habit is confirmed" in text
    assert "Token by token" not in text
    assert rules_text(kinds_of(found.confirmed())) == (out / "rules.toml").read_text("utf-8")
    for path in ("search/report.html", "rules.toml", "prompts/mine.json"):
        assert str(out / path) in said
        assert (out / path).is_file()
    assert not (out / "audit").exists()
    assert tracekit.main(["view", str(out)]) == 2
    assert f"Open '{out}/search/report.html'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prefill": "Sure, it"}, "'p/1' has prefill, which an audit would leave out"),
        ({"tools": [{"type": "function"}]}, "has tools, which"),
        (
            {"text": None, "messages": [("user", "a"), ("thinking", "b"), ("assistant", "c")]},
            "has thoughts or calls in its answer",
        ),
    ],
)
def test_what_an_audit_cannot_ask_is_refused(tmp_path, row, words):
    path = tmp_path / "p.json"
    path.write_text(json.dumps([{"id": 0, "text": "Is it?"}, {"id": 1, "text": "Is it?", **row}]))
    with pytest.raises(InputError, match=words):
        askable([path])
