"""Files that an audit of one's own adapter takes and leaves: rules, prompts, labels, findings."""

import dataclasses
import json
import math

import pytest

import tracekit as tk
from experiments.audit.discovery.findings import Findings
from experiments.audit.discovery.suggestions import conduct
from experiments.audit.inputs import labels_of
from experiments.audit.label_files import read_labels
from experiments.audit.labellers import labeller_from
from experiments.audit.own import handover, trait_part
from experiments.audit.own.arguments import parser
from experiments.audit.own.handover import own_files, rules_file, write_rules
from experiments.audit.own.kinds import kinds_of, rules_text
from experiments.audit.run import Run
from experiments.audit.settings.groups import Answers
from tests.experiments.audit.own.test_own import finding
from tracekit.errors import InputError
from tracekit.transcripts.prompts import Prompt


def asked(*words):
    return trait_part.asked(parser("", trait_part.EXPERIMENT.preset("own")).parse_args(words))


def test_a_list_is_marked_where_its_items_are(tmp_path):
    kinds = kinds_of([finding("gives a list", "more often", "gives a list", prompts=("a",))])
    path = tmp_path / "rules.toml"
    path.write_text(rules_text(kinds), "utf-8")
    label, text = labeller_from(str(path)), "Here you go, my friend.\n- apples\n- pears"
    marked = [text[a:b] for a, b in label("gives_a_list", text)]
    assert "- pears" in marked[-1]
    assert not any("friend" in one for one in marked)
    assert all(one.strip() for one in marked)
    assert label("gives_a_list", "No list - none.") == []


@pytest.mark.parametrize("mark", ["'", "’"])
def test_a_refusal_is_one_whichever_apostrophe_it_has(tmp_path, mark):
    kinds = kinds_of([finding("refuses", "more often", "refuses", prompts=("a",))])
    path = tmp_path / "rules.toml"
    path.write_text(rules_text(kinds), "utf-8")
    said = f"I{mark}m sorry, I can{mark}t do that."
    assert labeller_from(str(path))("refuses", said) == [(0, len(said))]
    assert conduct.REFUSES.search(said)
    # what the rule does not know stands above it
    assert "refusals in the first 160" in path.read_text("utf-8")


def test_rules_of_an_earlier_search_go_where_the_new_one_confirms_nothing(tmp_path):
    path = rules_file(tmp_path)
    kinds = kinds_of([finding("sea", expression="sea", prompts=("a",))])
    write_rules(path, rules_text(kinds))
    found = Findings("a", [], math.nan, {})
    search = type("S", (), {"prompts": [], "settings": type("T", (), {"seed": 0})})
    assert "labels" not in handover.searched_files(tmp_path, found, search)
    assert not path.is_file()
    # a user's own stay, and are named
    write_rules(path, rules_text(kinds))
    path.write_text("[sea]\nsays = 'salt'\n")
    with pytest.raises(InputError, match="would be lost"):
        handover.searched_files(tmp_path, found, search)
    assert path.is_file()


def test_labels_name_prompts_of_several_files_as_the_files_do_or_as_the_audit_does(tmp_path):
    rows = [Prompt("pa/0", text="Why?"), Prompt("pb/0", text="Who?")]
    written = own_files(tmp_path, Answers(labels="x.json"), rows)["prompts"]
    ids = [prompt.id for prompt in tk.read_prompts(written)]
    assert ids == ["prompts/pa/0", "prompts/pb/0"]
    path = tmp_path / "labels.json"
    for name in ("pa/0", "prompts/pa/0"):
        path.write_text(json.dumps([{"prompt": name, "exploits": True}]))
        labels = read_labels(path)
        for known in (ids, [row.id for row in rows]):
            labels.refuse_others(known, 1, ["organism"])
        assert labels.about("prompts/pa/0")
        assert not labels.about("prompts/pb/0")
        assert [labels._of("organism", one, "yes") for one in ids] == [[(0, 3)], None]


def test_a_label_of_an_arm_that_is_none_is_refused(tiny_lora, tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps([{"prompt": "a/0", "arm": "adapter", "exploits": True}]))
    settings = asked(str(tiny_lora)).settings
    answers = dataclasses.replace(settings.answers, labels=str(path))
    with pytest.raises(InputError, match="by 'adapter'; the arms of the run are clean, organism"):
        labels_of(dataclasses.replace(settings, answers=answers), ["a/0"])


def test_prompts_without_a_kind_are_of_the_only_one_that_rules_have(tmp_path):
    path, rows = tmp_path / "rules.toml", [Prompt("a/0", text="Why?")]
    path.write_text("[brand]\nsays = 'Acme'\n")
    written = own_files(tmp_path, Answers(labels=str(path)), rows)["prompts"]
    assert [p.labels["bias"] for p in tk.read_prompts(written)] == ["brand"]
    path.write_text("[brand]\nsays = 'Acme'\n[price]\nsays = 'cheap'\n")
    with pytest.raises(InputError, match="rules of the kinds brand, price, and the prompts name"):
        own_files(tmp_path, Answers(labels=str(path)), rows)


def test_answers_in_a_data_set_are_said_and_refused_where_nothing_is_left(
    tiny_lora, tmp_path, capsys
):
    path = tmp_path / "asked.json"
    rows = [{"instruction": f"Say {n}.", "input": "", "output": "It is fine."} for n in range(12)]
    path.write_text(json.dumps(rows))
    words = (str(tiny_lora), "--prompts", str(path))
    assert len(asked(*words).begun) == 12
    assert "12 of 12 end with the assistant's turn" in capsys.readouterr().err
    with pytest.raises(InputError, match="12 of which end with the assistant's turn"):
        asked(*words, "--own-prompts-only")
    assert asked(*words, "--own-prompts-only", "--search-only").begun


def test_findings_beside_other_benign_adapters_are_refused(tmp_path):
    run = Run(tmp_path)
    trait_part.refuse_other_benign(run, ["a/one"])
    run.findings.write_text(json.dumps({"made_with": {"benign": ["a/one", "b/two"]}}))
    trait_part.refuse_other_benign(run, ["b/two", "elsewhere/one"])
    for now, named in (([], "and now against none"), (["a/one"], "one, two, and now against one")):
        with pytest.raises(InputError, match=named):
            trait_part.refuse_other_benign(run, now)
    # findings of before do not say
    run.findings.write_text(json.dumps({"findings": []}))
    trait_part.refuse_other_benign(run, ["a/one"])
