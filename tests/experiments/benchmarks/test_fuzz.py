"""500 damaged inputs: each is read right or refused in one line; and what counts as neither."""

import time
from collections import Counter
from pathlib import Path

import pytest

import tracekit as tk
from experiments.benchmarks.fuzz import __main__ as fuzz
from experiments.benchmarks.fuzz.outcome import WRONG, Case, outcome
from experiments.benchmarks.fuzz.surfaces import SURFACES

SEED = 17  # not that of the table
SLOW = {"page": 2, "adapters": 6, "shards": 16, "manifests": 16}
FAST = (500 - sum(SLOW.values())) // (len(SURFACES) - len(SLOW))


@pytest.mark.filterwarnings("ignore")  # each case is told by its outcome alone
def test_500_damaged_inputs_end_right_or_refused(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    words = []
    for name in SURFACES:
        place = tmp_path / name
        place.mkdir()
        found, bad = fuzz.fuzz(name, SLOW.get(name, FAST + 1), SEED, place)
        counts += found
        words += bad
    assert counts.total() >= 500
    assert not [line for line in words if any(f": {kind}: " in line for kind in WRONG)]
    assert counts["library message"] < 0.02 * counts.total(), words


def _case(run, right=lambda value: value == 1, **more) -> Case:
    return Case("twin", run, right, **more)


def _index_error() -> int:
    return [][1]


def _sleep() -> int:
    time.sleep(5)
    return 1


def _library() -> int:
    return int("one")


def test_each_kind_of_outcome_is_told_from_the_others() -> None:
    assert outcome(_case(lambda: 1))[0] == "right"
    # the oracle perturbed, and what no checksum covers
    assert outcome(_case(lambda: 1, lambda value: value == 2))[0] == "silently wrong"
    unchecked = outcome(_case(lambda: 1, lambda value: value == 2, checked=False))
    assert unchecked[0] == "flip without checksum"
    assert outcome(_case(_index_error))[0] == "traceback"
    assert outcome(_case(_sleep, seconds=1)) == ("hang", "longer than 1 s")
    assert outcome(_case(lambda: 1, intact=lambda: False))[0] == "state lost"
    assert outcome(_case(_library))[0] == "library message"


def test_a_refusal_of_the_projects_own_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[")
    assert outcome(_case(lambda: tk.read_prompts(path)))[0] == "refused in one line"


def _raised(error: Exception):
    def run() -> None:
        raise error

    return outcome(_case(run))[0]


def test_a_refusal_is_told_by_its_class_and_not_by_who_raised_it() -> None:
    words = "This was asked for; that was found. Do something else."
    assert _raised(tk.InputError(words)) == "refused in one line"
    assert _raised(FileNotFoundError(words)) == "refused in one line"
    assert _raised(FileNotFoundError(2, words)) == "library message"
    assert _raised(ValueError(words)) == "library message"
    assert _raised(tk.InputError("no")) == "library message"


def test_an_error_of_ours_that_is_no_refusal_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.benchmarks.fuzz.outcome.PACKAGES", (str(Path(__file__)),))
    words = "This was asked for; that was found. Do something else."
    assert _raised(ValueError(words)) == "traceback"
    assert _raised(tk.InputError(words)) == "refused in one line"


def test_the_table_fails_where_anything_wrong_is_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def cases(rng, place):
        while True:
            yield _case(lambda: 1)

    def one_wrong(rng, place):
        yield _case(lambda: 2)
        yield from cases(rng, place)

    kept = {"surface": fuzz.SURFACES["prompts"].__class__(cases, 1.0)}
    monkeypatch.setattr(fuzz, "SURFACES", kept)
    committed = (fuzz.RESULTS / "fuzz.txt").read_bytes()
    assert fuzz.main(["--surface", "surface", "--cases", "5"]) == 0
    kept["surface"] = kept["surface"].__class__(one_wrong, 1.0)
    assert fuzz.main(["--surface", "surface", "--cases", "5"]) == 1
    assert "| all | 5 | 4 | 0 | 0 | 0 | 0 | 1 | 0 | 0 |" in capsys.readouterr().out
    # nnsight gives every object a `save`, which argparse takes for an option's value
    assert (fuzz.RESULTS / "fuzz.txt").read_bytes() == committed
