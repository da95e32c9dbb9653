"""The data dictionary beside what the library itself writes; the audit's tests hold their files."""

from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import tracekit as tk
from tests.support.oracles import dictionary_page
from tracekit.model.sites import SITES
from tracekit.storage.dictionary import about
from tracekit.transcripts.labels import RESERVED
from tracekit.transcripts.reading.messages import ROLES

TEXT = dictionary_page.PAGE.read_text("utf-8")
# former names, which files of today do not have
FORMER = {"method", "rank"}


def test_every_site_and_every_name_of_our_own_has_a_line() -> None:
    known = dictionary_page.lines(TEXT)
    assert (set(SITES) | RESERVED) - FORMER - set(known) == set()
    assert all(units in ("1", "s") for _, units, _ in known.values())
    assert all(1 < len(meaning) < 200 for *_, meaning in known.values())


def test_the_line_of_role_has_every_role_and_what_a_hole_says(files: list[Path]) -> None:
    meaning = about("role")["long_name"]
    assert [role for role in ROLES if role not in meaning] == []
    with xr.open_dataset(next(file for file in files if file.name == "runs.nc")) as file:
        holes = file.token_id.values < 0
        assert holes.any()
        assert set(file.role.values[holes].astype(str)) == {"pad"}
        assert set(file.token_text.values[holes].astype(str)) == {""}
    assert "`pad` in `role`" in TEXT


@pytest.fixture(scope="module")
def files(tiny_llama: Any, tiny_lora: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A file or folder of each kind that the library makes of a model."""
    folder = tmp_path_factory.mktemp("files")
    asked = [tk.Prompt(f"x/{n}", text="Is it?", labels={"my_own": n}) for n in range(2)]
    runs = tk.encode(tiny_llama, asked, responses=["Yes.", "No, it is not."])
    quiet: dict[str, Any] = {"progress": False}
    for site in ("residual", "heads", "keys", "pattern", "mlp_hidden"):
        tk.capture(tiny_llama, runs, [1, 2], site=site, path=folder / site, **quiet)
    vector = tk.capture(tiny_llama, runs, [1, 2], reduce="mean", **quiet).isel(prompt=0)
    traces = tk.capture(tiny_llama, runs, [1, 2], **quiet)
    made: dict[str, Any] = {
        "runs": runs,
        "projections": tk.capture(tiny_llama, runs, vectors=vector, **quiet),
        "logprobs": tk.logprobs(tiny_llama, runs),
        "next": tk.next_tokens(tiny_llama, runs),
        "unembed": tk.unembed(tiny_llama, vector),
        "lens": tk.logit_lens(tiny_llama, traces, [" Paris"]),
        "gradients": tk.gradients(tiny_llama, runs, [1], towards=" a", against=" b"),
        "found": tk.stamp(tk.find(runs, "it", missing="none"), {"weights": "w", "ids": "i"}),
        "norm": tk.stamp(tk.norm(traces), tk.provenance(traces)),
        "compared": tk.compare(tiny_llama, runs, (str(tiny_lora), None), layers=[1]),
    }
    for name, array in made.items():
        tk.save(array, folder / f"{name}.nc")
    return sorted(folder.rglob("*.nc"))


def test_every_variable_of_a_capture_has_its_line(files: list[Path]) -> None:
    assert dictionary_page.against(files, TEXT, own=["my_own"]) == []
    assert {"pattern", "heads", "promoted", "kl"} <= dictionary_page.written(files)
    (wrong,) = dictionary_page.against(files, TEXT.replace("| `kl` |", "| `k_l` |"), ["my_own"])
    assert wrong == "kl (compared.nc) has no line"
    changed = TEXT.replace("| `kl` | prompt, token | 1 |", "| `kl` | prompt, token | s |")
    (wrong,) = dictionary_page.against(files, changed, ["my_own"])
    assert wrong.startswith("kl (compared.nc) says")


def test_a_label_of_ones_own_says_its_name(files: list[Path]) -> None:
    with xr.open_dataset(next(file for file in files if file.name == "runs.nc")) as file:
        assert file["my_own"].attrs == about("my_own")
        assert file["my_own"].attrs["long_name"] == "my own"
