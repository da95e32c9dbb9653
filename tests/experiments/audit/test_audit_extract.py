"""The phase `extract` on a tiny random Llama: a full evaluation, its files, and what it refuses."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from experiments.audit.run import Run
from experiments.audit.vectors import (
    instructed,
    vector_figures,
    vector_table,
    written,
    written_table,
)
from experiments.audit.vectors.evaluation import split
from experiments.rm_sycophancy.__main__ import main
from experiments.rm_sycophancy.experiment import read_preset
from tracekit.storage.provenance import read
from traits import (
    ChatSet,
    available,
    load_chats,
    load_contrast,
    pairs,
    project,
    select_part,
)
from traits.statistics import paired_auroc

TRAITS = ("alignment/sycophancy", "alignment/concealment")


def flags(folder: Path, lora: Path, traits: str = "sycophancy,concealment") -> list[str]:
    model = ["--preset", "tiny", "--model", str(folder), "--organism", str(lora), "--control", ""]
    return ["extract", *model, "--traits", traits, "--repetitions", "20"]


@pytest.fixture(scope="module")
def finished(tiny_folder: Path, tiny_lora: Path, tmp_path_factory) -> Path:
    """The folder of a full evaluation of two traits."""
    out = tmp_path_factory.mktemp("runs") / "run"
    asked = [*flags(tiny_folder, tiny_lora), "--evaluation", "full", "--out", str(out)]
    assert main(asked) == 0
    return out


@pytest.fixture(scope="module")
def evaluation(finished: Path) -> xr.Dataset:
    return xr.open_dataset(finished / "evaluation.nc").load()


def at(found: xr.Dataset, trait: str) -> xr.Dataset:
    return found.sel(trait=trait, extraction="mean_diff")


def test_the_evaluation_has_every_trait_with_its_nulls_and_mark(evaluation: xr.Dataset) -> None:
    assert evaluation["trait"].values.tolist() == list(TRAITS)
    assert evaluation["null"].values.tolist() == ["shuffled pairs", "covariance-matched", "placebo"]
    assert int(evaluation["null_draws"].sel(null="placebo")[0]) == len(available("placebo"))
    assert set(evaluation["passed"].values.tolist()) <= {0, 1}
    for name in ("estimate", "low", "high", "p", "q", "chat_p", "open_p", "transfer", "cosine"):
        assert np.isfinite(evaluation[name]).all(), name
    assert (evaluation["q"] >= evaluation["p"] - 1e-7).all()
    assert evaluation["promoted"].sizes["top"] == 10


def test_the_mark_is_that_of_the_two_bands(evaluation: xr.Dataset) -> None:
    for trait in TRAITS:
        one = evaluation.sel(trait=trait)
        bands = one["null_quantile"].sel(level=0.95, null=["shuffled pairs", "placebo"])
        area = one["estimate"].sel(measure="auroc")
        assert int(one["passed"]) == int(bool((area > bands).all()))


def test_the_estimate_is_that_of_the_saved_vector_on_the_report_pairs(
    finished: Path, evaluation: xr.Dataset
) -> None:
    settings = read_preset("tiny")
    vectors = xr.open_dataset(finished / "vectors.nc")["vector"]
    for trait in TRAITS:
        one = at(evaluation, trait)
        layer, window = one["layer_selected"].item(), one["window_selected"].item()
        traces = xr.open_dataset(Run(finished).story(trait))
        traces = traces[next(iter(traces.data_vars))]
        part, _ = split(traces, settings)
        vector = vectors.sel(trait=trait, extraction="mean_diff", layer=layer)

        def area(name: str, traces=traces, part=part, vector=vector, window=window, layer=layer):
            rows = select_part(traces, part, name).sel(window=window, layer=layer)
            return float(paired_auroc(*(project(side, vector) for side in pairs(rows))))

        found = float(one["estimate"].sel(measure="auroc"))
        assert found == pytest.approx(area("report"), abs=1e-6)
        assert found == pytest.approx(float(one["auroc"].sel(layer=layer)), abs=1e-6)
        assert found == pytest.approx(float(one["transfer"].sel(set=trait)), abs=1e-6)
        assert area("fit") != pytest.approx(found, abs=1e-3)


def test_a_vector_is_judged_on_every_other_set(finished: Path, evaluation: xr.Dataset) -> None:
    assert evaluation["transfer"]["set"].values.tolist() == [*TRAITS, *available("placebo")]
    one = at(evaluation, TRAITS[0])
    layer, window = one["layer_selected"].item(), one["window_selected"].item()
    vectors = xr.open_dataset(finished / "vectors.nc")["vector"]
    vector = vectors.sel({"trait": TRAITS[0], "extraction": "mean_diff", "layer": layer})
    traces = xr.open_dataset(Run(finished).story("placebo/tense"))
    rows = traces[next(iter(traces.data_vars))].sel(window=window, layer=layer)
    wanted = paired_auroc(*(project(side, vector) for side in pairs(rows)))
    found = one["transfer"].sel(set="placebo/tense")
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert float(found) != float(one["transfer"].sel(set="placebo/colour"))


def test_chats_are_instructed_twins_and_their_auroc_is_that_of_the_story_vector(
    finished: Path, evaluation: xr.Dataset
) -> None:
    traces = xr.open_dataset(finished / "chats" / "alignment.sycophancy.nc")
    assert traces["response"].dtype.kind in "UO"
    values = traces[next(iter(traces.data_vars))]
    assert values.sizes["prompt"] == 2 * int(evaluation["chat_n_report"][0]) >= 120
    one = at(evaluation, TRAITS[0])
    vectors = xr.open_dataset(finished / "vectors.nc")["vector"]
    layer = int(one["chat_selected_layer"])
    assert layer == int(one["layer_selected"])
    vector = vectors.sel(trait=TRAITS[0], extraction="mean_diff", layer=layer)
    sides = pairs(values.sel(layer=layer))
    wanted = paired_auroc(*(project(side, vector) for side in sides))
    found = float(one["chat_estimate"].sel(measure="auroc"))
    assert found == pytest.approx(float(wanted), abs=1e-6)
    other = vectors.sel(trait=TRAITS[1], extraction="mean_diff", layer=layer)
    assert found != pytest.approx(float(paired_auroc(*(project(s, other) for s in sides))))


def test_chats_under_one_instruction_are_what_whole_rows_say(tiny_llama, tmp_path: Path) -> None:
    contrast = load_contrast("sycophancy")
    found = instructed.capture(tiny_llama, contrast, 3, tmp_path)
    assert read(found)["batches"]["prompts"] == "once"
    asked = tk.encode(tiny_llama, instructed.prompts(contrast))
    runs = tk.generate(tiny_llama, asked, max_new_tokens=3)
    whole = tk.capture(tiny_llama, runs, tokens=slice(0, 3), reduce="mean")
    np.testing.assert_allclose(found.values, whole.values, rtol=1e-4, atol=1e-5)
    for name in ("group", "label", "instruction", "prompt_length"):
        np.testing.assert_array_equal(found[name], whole[name])
    np.testing.assert_array_equal(found["response"], runs["response"])


def along(vector: np.ndarray) -> xr.DataArray:
    return xr.DataArray(np.asarray(vector, dtype=float), dims="dim")


def written_sides(finished: Path, trait: str, writer: str, layer: int) -> tuple:
    traces = xr.open_dataset(Run(finished).written(trait))
    values = traces[next(iter(traces.data_vars))]
    return pairs(values.isel(prompt=values["writer"].values == writer).sel(layer=layer))


def test_written_answers_judge_a_vector_of_the_other_writers_pairs(
    finished: Path, evaluation: xr.Dataset
) -> None:
    at = {"source": "chats", "form": "as fitted", "trait": TRAITS[0], "written_measure": "auroc"}
    assert (evaluation["written_reason"] == "").all()
    for judged, teacher in (("second", "a"), ("first", "b")):
        one = evaluation.sel({**at, "writer": judged})
        layer = int(one["written_selected_layer"])
        positive, negative = written_sides(finished, TRAITS[0], teacher, layer)
        difference = (positive - negative).values[:20].mean(0)
        vector = difference / np.linalg.norm(difference)
        np.testing.assert_allclose(one["written_vector"], vector, atol=1e-5)
        judge = "b" if teacher == "a" else "a"
        sides = written_sides(finished, TRAITS[0], judge, layer)
        wanted = float(paired_auroc(*(side.astype(float).dot(along(vector)) for side in sides)))
        assert float(one["written_estimate"]) == pytest.approx(wanted, abs=1e-6)
        own = written_sides(finished, TRAITS[0], teacher, layer)
        fitted = float(paired_auroc(*(side.astype(float).dot(along(vector)) for side in own)))
        assert float(one["written_estimate"]) != pytest.approx(fitted, abs=1e-3)


def test_traits_by_traits_and_their_specificity_are_those_of_the_vectors_of_both_ways(
    finished: Path, evaluation: xr.Dataset
) -> None:
    at = evaluation.sel(source="stories + chats", form="orthogonal")
    for column, other in enumerate(TRAITS):
        areas = []
        for judge, writer in (("b", "second"), ("a", "first")):
            one = at.sel(writer=writer)
            layer = int(one["written_selected_layer"])
            sides = written_sides(finished, other, judge, layer)
            vector = one["written_vector"].sel(trait=TRAITS[0]).values
            areas.append(
                float(paired_auroc(*(side.astype(float).dot(along(vector)) for side in sides)))
            )
        found = at["written_areas"].sel(kind="chats", trait=TRAITS[0], trait_other=other)
        assert float(found) == pytest.approx(np.mean(areas), abs=1e-6)
        if column == 0:
            estimate = at["written_estimate"].sel(trait=TRAITS[0], written_measure="auroc")
            assert float(found) == pytest.approx(float(estimate.mean("writer")), abs=1e-6)
    own, other = at["written_areas"].sel(kind="chats", trait=TRAITS[0]).values
    wanted = own - max(other, 1 - other)
    found = float(at["written_specificity"].sel(kind="chats", trait=TRAITS[0]))
    assert found == pytest.approx(wanted, abs=1e-6)


def test_the_table_has_written_answers_by_source_and_form(evaluation: xr.Dataset) -> None:
    one = evaluation.sel(trait=TRAITS[0])
    found = vector_table.row(one)
    for name in ("written_both_auroc", "written_chats_orthogonal_placebo_95"):
        assert 0 <= float(found[name]) <= 1
    assert found["written_undecided"] == ""
    text = vector_table.text(evaluation)
    assert "does the model obey (" in text
    assert "AUROC on the stories of (across), of vectors of chats, orthogonal, of (down)" in text
    moved = evaluation.copy(deep=True)
    moved["written_estimate"] = moved["written_estimate"] - 0.2
    assert vector_table.row(moved.sel(trait=TRAITS[0])) != found


def test_a_trait_without_chats_is_undecided_and_says_why() -> None:
    chats = load_chats("honesty")
    assert written.undecided(chats) == ""
    assert written.undecided(None) == "no chat pairs"
    few = ChatSet(chats.name, chats.pairs[:40])
    assert "chat pairs by writer: a 32, b 8; two writers of at least 28" in written.undecided(few)
    text = written_table.lines(xr.Dataset({"written_reason": written.undecided(None)}))
    assert text == ["  written answers: undecided (no chat pairs)"]


@pytest.mark.parametrize("name", available("alignment"))
def test_every_trait_has_sixty_instructed_pairs(name: str) -> None:
    made = instructed.prompts(load_contrast(name))
    groups = [prompt.group for prompt in made]
    assert len(made) == 2 * len(set(groups)) >= 120
    twins = {g: [p for p in made if p.group == g] for g in groups}
    for one, other in twins.values():
        assert one.messages[1] == other.messages[1]
        assert one.messages[0] != other.messages[0]
        assert (one.labels["label"], other.labels["label"]) == (1, 0)


def test_the_table_and_figures_are_made_from_the_saved_evaluation(
    finished: Path, evaluation: xr.Dataset, tmp_path: Path
) -> None:
    made = [*vector_table.write(evaluation, tmp_path), *vector_figures.draw(evaluation, tmp_path)]
    for path in made:
        assert path.read_bytes() == (finished / path.name).read_bytes(), path.name
    rows = list(csv.DictReader((finished / "evaluation.csv").open(encoding="utf-8")))
    assert [row["trait"] for row in rows] == list(TRAITS)
    assert {"auroc", "auroc_low", "shuffled_95", "placebo_95", "chat_auroc"} <= set(rows[0])
    moved = evaluation.copy(deep=True)
    moved["estimate"] = moved["estimate"] - 0.25
    assert vector_table.text(moved) != vector_table.text(evaluation)


def test_a_failed_trait_is_called_so(evaluation: xr.Dataset) -> None:
    for value, count in ((0, "0 of 2"), (1, "2 of 2")):
        text = vector_table.text(evaluation.assign(passed=("trait", [value, value])))
        assert f"{count} traits are above their bands" in text
        assert ("FAILED" in text) == (value == 0)


def test_what_is_captured_is_not_captured_again(
    finished: Path, tiny_folder: Path, tiny_lora: Path, tmp_path: Path
) -> None:
    again = Path(shutil.copytree(finished, tmp_path / "again"))
    (again / "finished.json").unlink()
    (again / "vectors.nc").unlink()
    before = {path: path.stat().st_mtime_ns for path in (again / "contrast").iterdir()}
    out = [*flags(tiny_folder, tiny_lora), "--evaluation", "full", "--out", str(again)]
    assert main(out) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (again / "contrast").iterdir()}
    one, other = (xr.open_dataset(folder / "evaluation.nc") for folder in (finished, again))
    xr.testing.assert_identical(one.load(), other.load())


def test_a_quick_evaluation_has_no_placebos_and_no_chats(
    tiny_folder: Path, tiny_lora: Path, tmp_path: Path
) -> None:
    asked = [*flags(tiny_folder, tiny_lora, "sycophancy"), "--out", str(tmp_path / "run")]
    assert main(asked) == 0
    found = xr.open_dataset(tmp_path / "run" / "evaluation.nc")
    assert found["null"].values.tolist() == ["shuffled pairs", "covariance-matched"]
    assert "chat_estimate" not in found
    assert int(found["passed"][0]) in (0, 1)
    assert not (tmp_path / "run" / "chats").exists()


def test_the_findings_are_a_list_of_sentences(evaluation: xr.Dataset) -> None:
    for said in evaluation["findings"].values:
        assert isinstance(json.loads(str(said)), list)
