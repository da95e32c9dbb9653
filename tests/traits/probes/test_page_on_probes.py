"""The page on probes: every snippet runs, and its tables name what there is."""

import re
from pathlib import Path

import tracekit as tk
import traits

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "probes.md").read_text("utf-8")


def test_every_snippet_runs(tmp_path, monkeypatch):
    (tmp_path / "datasets").symlink_to(ROOT / "datasets")
    monkeypatch.chdir(tmp_path)
    printed = []
    names = {"print": lambda *given: printed.append(given)}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(snippet, names)
    (parts,), (count,), *bounds, (held, more), dims, (rows,) = printed
    assert (parts, count) == (["fit", "report", "select"], 7)
    assert bounds == [(True,)] * 3
    assert (held, more) == (True, True)
    assert dims == (("prompt", "token"),)
    assert rows == 2
    monitor = tk.open("monitor.nc")
    assert monitor.threshold_rate <= monitor.threshold_fpr == 0.1
    assert monitor.attrs["pooling"].partition("(")[0] in ("mean", "max", "top_k")


def test_the_tables_have_what_there_is():
    poolings = re.findall(r"^\| `(\w+)` \| (?:the|that)", PAGE, re.MULTILINE)
    for name in poolings:
        assert tk.Pooling(name).way == name
    assert len(poolings) == 8
    for package, name in re.findall(r"`(tk|traits)\.(\w+)", PAGE):
        assert hasattr(tk if package == "tk" else traits, name), name


def test_the_numbers_of_the_page_are_those_of_the_code():
    from traits.probes.threshold import least_negatives, pinning_negatives

    assert [least_negatives(rate) for rate in (0.01, 0.05, 0.1)] == [299, 59, 29]
    assert [pinning_negatives(rate) for rate in (0.01, 0.05)] == [2300, 440]
    for words in ("299 for 1 %, 59 for 5 %, 29 for 10 %", "For 1 % that takes 2,300, for 5 % 440"):
        assert words in PAGE
