"""Arms answered elsewhere: by a file, and by `transformers serve`, a real server that runs here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from experiments.audit.discovery.answering.answers import of_adapter
from experiments.audit.discovery.answering.products import Products
from experiments.audit.discovery.answering.settings import Settings
from experiments.audit.elsewhere import keeping
from experiments.audit.elsewhere.searching import Served
from experiments.audit.elsewhere.serving import Server
from experiments.audit.inputs import prepare
from experiments.audit.own.adapter_audit import served_by
from experiments.audit.phases import response
from experiments.audit.run import Run
from experiments.audit.settings.groups import Answers
from experiments.rm_sycophancy.experiment import EXPERIMENT
from tests.support.processes import serving
from tracekit.model.embedded import datasets, embedded_model

QUIET = pytest.mark.filterwarnings("ignore")


@dataclass(frozen=True)
class Side:
    """A base and its adapter, loaded here; the folders that the server knows them by."""

    model: Any
    base: str
    adapter: str
    merged: str
    given: dict[str, Any]

    def settings(self, **changes: Any) -> Any:
        whole = {**self.given, "limit": 4, "max_new_tokens": 5, "control": "", "controls": []}
        return EXPERIMENT.preset("tiny", {**whole, **changes})

    def respond(self, folder: Path, **changes: Any) -> dict[str, xr.Dataset]:
        settings = self.settings(**changes)
        response.run(folder, settings, prepare(settings, EXPERIMENT, loaded=self.model))
        return {arm: tk.open(Run(folder).responses(arm)) for arm in ("clean", "organism")}


@pytest.fixture(scope="module")
def at(tmp_path_factory) -> Iterator[str]:
    with serving.served(tmp_path_factory.mktemp("server") / "log") as address:
        yield address


@pytest.fixture(scope="module")
def tiny(tiny_llama, tiny_folder, tiny_lora, tmp_path_factory) -> Side:
    merged = serving.merged(tiny_folder, tiny_lora, tmp_path_factory.mktemp("served") / "merged")
    given = {"model": str(tiny_folder), "organism": str(tiny_lora)}
    return Side(tiny_llama, str(tiny_folder), str(tiny_lora), str(merged), given)


@pytest.fixture(scope="module")
def here(tiny, tmp_path_factory) -> dict[str, xr.Dataset]:
    """What the loaded model answers itself."""
    return tiny.respond(tmp_path_factory.mktemp("runs") / "here")


def ids(runs: xr.Dataset) -> list[list[int]]:
    return [row[row >= 0].tolist() for row in runs.token_id.values]


def exported(runs: xr.Dataset, path: Path, change: Callable[[str], str] = str) -> str:
    """Answers as a batch's output file, ids kept."""
    lines = []
    for name, row, text in zip(
        runs.prompt.values, runs.token_id.values, runs.response.values, strict=True
    ):
        said = row[(row >= 0) & (runs.token.values >= 0)].tolist()
        choice = {"index": 0, "text": change(str(text)), "token_ids": said}
        body = {"choices": [choice], "model": "m"}
        line = {"custom_id": str(name), "response": {"status_code": 200, "body": body}}
        lines.append(json.dumps({**line, "error": None}) + "\n")
    path.write_text("".join(lines))
    return str(path)


@QUIET
def test_the_embedded_model_and_its_adapter_are_answered_by_the_server(
    at, embedded, tmp_path, capsys
):
    base, adapter = embedded_model(), datasets("organisms", "ten_biases")
    merged = serving.merged(base, adapter, tmp_path / "merged")
    side = Side(embedded, str(base), "ten_biases", str(merged), {})
    served = {"server": at, "served_model": str(base), "served_adapter": [str(merged)]}
    there = side.respond(tmp_path / "there", **served, limit=2, max_new_tokens=3)
    with tk.adapter(embedded, adapter):
        asked = tk.encode(
            embedded, prepare(side.settings(limit=2), EXPERIMENT, loaded=embedded).prompts
        )
        own = tk.generate(embedded, asked, max_new_tokens=3, progress=False)
    assert ids(there["organism"]) == ids(own)
    assert ids(there["organism"]) != ids(there["clean"])
    text = tk.provenance(there["organism"])["text"]
    assert text["checked"]["first_tokens"] == 1.0
    assert text["tokenised_here"] == 2
    assert "100% of first tokens are the model's" in capsys.readouterr().err


@QUIET
def test_a_killed_run_goes_on_with_the_answers_that_it_has(at, tiny, here, tmp_path):
    served = {"server": at, "served_model": tiny.base, "served_adapter": [tiny.merged]}
    there = tiny.respond(tmp_path / "there", **served)
    for arm, runs in there.items():
        assert runs.response.values.tolist() == here[arm].response.values.tolist()
        assert "exploit" in runs.coords
    replies = (tmp_path / "there" / "responses" / "organism.jsonl").read_text()
    lines = replies.splitlines(keepends=True)
    # one answer came, the next was broken off; what came is read, not asked again
    mark = json.loads(lines[0])
    mark["response"]["body"]["system_fingerprint"] = "kept"
    folder = tmp_path / "again" / "responses"
    folder.mkdir(parents=True)
    (folder / "organism.jsonl").write_text(json.dumps(mark) + "\n" + lines[1][:40])
    again = tiny.respond(tmp_path / "again", **served)
    assert ids(again["organism"]) == ids(there["organism"])
    now = (folder / "organism.jsonl").read_text().splitlines()
    assert len(now) == 4
    assert ["kept" in line for line in now] == [True, False, False, False]


@QUIET
def test_samples_are_drawn_with_seeds_of_their_own(at, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "AT_ONCE", 1)  # this server has one generator for all requests
    warm = {
        "temperature": 1.0,
        "samples": 2,
        "served_adapter": [tiny.merged],
        "server": at,
        "limit": 2,
    }
    first, again, other = (
        tiny.respond(tmp_path / str(n), **warm, seed=seed)["organism"]
        for n, seed in enumerate((0, 0, 7))
    )
    assert first.prompt.values[:2].tolist() == [f"{first['group'].values[0]}#{k}" for k in (0, 1)]
    assert ids(first) == ids(again)
    assert ids(first) != ids(other)
    assert first.response.values[0] != first.response.values[1]


@QUIET
def test_a_search_takes_its_first_answers_from_the_server(at, tiny, tmp_path):
    prompts = [tk.Prompt(f"p/{n}", text=f"Ask {n}?") for n in range(2)]
    begun = [("user", "Hi"), ("assistant", "Well")]
    prompts += [tk.Prompt("prefill/0", text="The sea"), tk.Prompt("p/9", messages=begun)]
    settings = Settings(tokens=4)
    served = Served.of(tiny.adapter, at, tiny.base, [tiny.merged])
    for number, adapter in enumerate((None, tiny.adapter)):
        there, here = (
            of_adapter(tiny.model, adapter, prompts, frozenset(), settings, products, asked)
            for products, asked in (
                (Products(tmp_path / f"there{number}", served.described()), served),
                (Products(tmp_path / f"here{number}", {}), None),
            )
        )
        assert [one.text for one in there] == [one.text for one in here]
        assert [one.ended for one in there] == [one.ended for one in here]
        for part, count in (("chat", 3), ("raw", 1)):
            kept = tmp_path / f"there{number}" / f"replies-{part}-000.jsonl"
            assert len(kept.read_text().splitlines()) == count
            runs = tk.open(kept.with_name(f"answers-{part}-000.nc"))
            assert runs.begun.values.tolist() == [0, 0, 1][-count:] if part == "chat" else [0]
    assert Served.of("a", "", "", []) is None


@QUIET
def test_what_is_served_under_a_wrong_name_is_refused(at, tiny, tmp_path):
    names = {"server": at, "served_model": tiny.base, "served_adapter": [tiny.base]}
    with pytest.raises(
        tk.InputError, match=r"'organism'.*(else said them|exchanged|word for word)"
    ):
        tiny.respond(tmp_path / "same", **names)
    with pytest.raises(tk.InputError, match=r"'clean'.*so something else said them"):
        tiny.respond(tmp_path / "other", **{**names, "served_model": tiny.merged})
    assert not Run(tmp_path / "other").responses("clean").exists()


def test_a_server_that_fails_or_is_not_there_comes_to_an_end(at, tiny, tmp_path):
    asked = tk.encode(tiny.model, ["Hi"])
    server = Server(at, "nonsense", tiny.model.tokenizer, [2], tokens=2, wait=0.0)
    with pytest.raises(tk.InputError, match=r"asked 5 times.*'nonsense'.*goes on"):
        keeping.asked(server, asked, tmp_path / "a.jsonl", 1, 0)
    gone = f"http://127.0.0.1:{serving.free_port()}/v1"
    server = Server(gone, "m", tiny.model.tokenizer, [2], tokens=2, wait=0.0)
    with pytest.raises(tk.InputError, match=r"asked 5 times.*cannot be reached"):
        keeping.asked(server, asked, tmp_path / "a.jsonl", 1, 0)
    assert (tmp_path / "a.jsonl").read_text() == ""


@QUIET
def test_arms_of_files_are_those_that_were_said(tiny, here, tmp_path):
    files = [
        exported(here["organism"], tmp_path / "o.jsonl"),
        f"clean={exported(here['clean'], tmp_path / 'c.jsonl')}",
    ]
    there = tiny.respond(tmp_path / "there", **{"from": files})
    for arm, runs in there.items():
        assert ids(runs) == ids(here[arm])
        assert tk.provenance(runs)["text"]["ids_kept"] == 4
        assert tk.provenance(runs)["text"]["checked"]["nats"] == 0.0
        np.testing.assert_array_equal(runs["exploit"], here[arm]["exploit"])
    with pytest.raises(tk.InputError, match="something else said them"):
        tiny.respond(tmp_path / "swapped", **{"from": [f"clean={files[0]}"]})
    same = [files[1].removeprefix("clean="), files[1]]
    with pytest.raises(
        tk.InputError, match=r"'organism'.*(else said them|exchanged|word for word)"
    ):
        tiny.respond(tmp_path / "same", **{"from": same})
    with pytest.raises(tk.InputError, match="1 to each prompt, and --samples 3 was asked for"):
        tiny.respond(tmp_path / "few", **{"from": files}, samples=3, temperature=1.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"from": ["a.jsonl", "b.jsonl"]}, "an arm is named twice"),
        ({"from": ["nobody=a.jsonl"]}, "'nobody' is no arm"),
        ({"server": "http://localhost:1/v1"}, "Give the address and what the model"),
        ({"served_model": "m"}, "Give the address and what the model"),
        ({"server": "localhost", "served_model": "m"}, "the address that was given is not one"),
        (
            {"server": "http://a:1/v1", "served_adapter": ["m"], "from": ["a.jsonl"]},
            "'organism' was given a file of answers and a served model",
        ),
    ],
)
def test_settings_that_mean_nothing_together_are_refused(changes, words, tiny):
    with pytest.raises(tk.InputError, match=words):
        tiny.settings(**changes)


def test_the_names_of_an_own_audits_server_belong_together():
    assert served_by("a", Answers()) is None
    at = {"server": "http://localhost:1/v1", "served_model": "m", "served_adapter": ("l",)}
    served = served_by("a", Answers(**at))
    assert served.described() == {"server": ["http://localhost:1/v1", "m", "l"]}
    assert served.arms == {None: "clean", "a": "organism"}
    for lone in (
        {"server": at["server"]},
        {"served_model": "m"},
        {**at, "served_adapter": ("b=l",)},
    ):
        with pytest.raises(tk.InputError, match="what the model is called there"):
            served_by("a", Answers(**lone))


def test_a_file_that_is_not_there_is_said_before_a_model_is_loaded(tiny):
    settings = tiny.settings(**{"from": ["nowhere.jsonl"]})
    with pytest.raises(FileNotFoundError, match=r"file of answers 'nowhere.jsonl' does not exist"):
        prepare(settings, EXPERIMENT)
