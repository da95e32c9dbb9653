import json

import pytest

from tracekit.model.embedded import datasets
from traits.contrast_sets.contrast import ContrastSet, available, constructions, load_contrast


def write(folder, positive, negative, **more):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "positive.txt").write_text(positive, "utf-8")
    (folder / "negative.txt").write_text(negative, "utf-8")
    for name, text in more.items():
        (folder / name.replace("_", ".")).write_text(text, "utf-8")
    return folder


def test_a_folder_is_read_line_for_line(tmp_path):
    folder = write(
        tmp_path / "mine" / "tense",
        "I will\u2028go\nWe will stay \n",
        "I did\u2028go\nWe did stay \n",
        definition_txt="HIGH: future\n",
        steering_json=json.dumps({"direction": "positive"}),
    )
    contrast = load_contrast(folder)
    assert contrast.name == "mine/tense"
    assert contrast.positive == ("I will\u2028go", "We will stay ")
    assert contrast.definition == "HIGH: future"
    assert contrast.steering == {"direction": "positive"}


def test_stories_told_in_another_way_are_a_set_of_their_own(tmp_path):
    folder = write(
        tmp_path / "mine" / "tense", "I will\n", "I did\n", definition_txt="HIGH: future"
    )
    assert constructions(folder) == []
    write(folder / "dialogue", "A: will you?\nB: I will.\n", "A: did you?\nB: I did.\n")
    write(folder / "act", "So I shall.\n", "So I was.\n")
    assert constructions(folder) == ["act", "dialogue"]
    told = load_contrast(folder, "dialogue")
    assert (told.name, len(told), told.definition) == ("mine/tense/dialogue", 2, "HIGH: future")
    assert told.prompts()[0].group == "mine/tense/dialogue/0"
    assert load_contrast(folder).positive == ("I will",)
    with pytest.raises(
        ValueError, match="'song' of 'tense' was asked for; there are act, dialogue"
    ):
        load_contrast(folder, "song")


def test_prompts_carry_labels_and_share_a_group():
    contrast = ContrastSet("mine/tense", ("a b", "c d"), ("a x", "c y"))
    prompts = contrast.prompts()
    assert [p.id for p in prompts] == [
        "mine/tense/positive/0",
        "mine/tense/positive/1",
        "mine/tense/negative/0",
        "mine/tense/negative/1",
    ]
    assert [p.text for p in prompts] == ["a b", "c d", "a x", "c y"]
    assert [p.labels["label"] for p in prompts] == [1, 1, 0, 0]
    assert prompts[1].group == prompts[3].group == "mine/tense/1"
    assert prompts[0].group != prompts[1].group


@pytest.mark.parametrize(
    ("positive", "negative", "words"),
    [
        ("a\nb\n", "c\n", "2 positive and 1 negative"),
        ("", "", "0 positive and 0 negative"),
        ("a\n\nb\n", "c\nd\ne\n", "empty line: positive.txt line 2"),
        ("a\nb\n", "c\nd\n\n", "2 positive and 3 negative"),
        ("a\nb\n", "c\nb \n", "identical sides at line 2"),
    ],
)
def test_bad_sets_are_refused_with_their_numbers(tmp_path, positive, negative, words):
    with pytest.raises(ValueError, match=words):
        load_contrast(write(tmp_path / "mine" / "bad", positive, negative))


def test_missing_or_unreadable_files_are_named(tmp_path):
    folder = write(tmp_path / "mine" / "half", "a\n", "b\n")
    (folder / "negative.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"negative\.txt"):
        load_contrast(folder)
    (folder / "negative.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match="byte 3"):
        load_contrast(folder)


def test_an_unknown_trait_names_what_exists_and_the_nearest(tmp_path, monkeypatch):
    for name in ("alignment/honesty", "alignment/secrecy", "placebo/secrecy"):
        write(tmp_path / name, "a\n", "b\n")
    monkeypatch.setattr(
        "traits.contrast_sets.contrast.datasets", lambda *parts: tmp_path.joinpath(*parts[1:])
    )
    assert available() == ["alignment/honesty", "alignment/secrecy"]
    assert load_contrast("honesty").name == load_contrast("alignment/honesty").name
    with pytest.raises(
        ValueError, match=r"'honest'.*mean 'alignment/honesty'.*1 of other categories"
    ):
        load_contrast("honest")
    with pytest.raises(ValueError, match="Give the category too"):
        load_contrast("secrecy")


def test_shipped_sets_load_whole():
    for name in available(None):
        contrast = load_contrast(name)
        lines = (datasets("traits", name) / "negative.txt").read_text("utf-8").count("\n")
        assert len(contrast) == lines == len(contrast.prompts()) // 2


def test_a_folder_here_is_not_shadowed_by_a_shipped_set_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_contrast("sycophancy").name == "alignment/sycophancy"
    write(tmp_path / "sycophancy", "mine up\n", "mine down\n")
    write(tmp_path / "alignment" / "honesty", "mine up\n", "mine down\n")
    for name in ("sycophancy", "alignment/honesty"):
        with pytest.raises(ValueError, match=rf"a folder here.*'\./{name}'"):
            load_contrast(name)
    assert load_contrast("./sycophancy").positive == ("mine up",)
    assert load_contrast("alignment/sycophancy").positive != ("mine up",)
    # results would call both alignment/honesty
    with pytest.raises(ValueError, match="as a shipped set with other lines is"):
        load_contrast("./alignment/honesty")


def test_a_shipped_set_may_be_given_by_its_folder_or_a_copy_of_it(tmp_path, monkeypatch):
    shipped = datasets("traits", "alignment", "honesty")
    assert load_contrast(shipped).name == "alignment/honesty"
    monkeypatch.chdir(shipped.parent)
    assert load_contrast("honesty").positive == load_contrast(shipped).positive
    sides = [(shipped / f"{side}.txt").read_text("utf-8") for side in ("positive", "negative")]
    assert (
        load_contrast(write(tmp_path / "alignment" / "honesty", *sides)).name == "alignment/honesty"
    )
