"""Vector files: sites that are kept, key styles, and arguments that do not fit what a file says."""

from __future__ import annotations

import inspect
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file

import tracekit as tk
from tracekit.storage.provenance import stamp
from tracekit.storage.vector_files.arguments import Given, require_numbers
from tracekit.storage.vector_files.vector_labels import site_of

ROW = [1.0, 2.0, 3.0, 4.0]


def _site(vectors: xr.DataArray) -> str:
    return str(tk.provenance(vectors)["site"])


def _pt(content: object, folder: Path, name: str = "x.pt") -> Path:
    torch.save(content, folder / name)
    return folder / name


def _json(content: object, folder: Path) -> Path:
    (folder / "x.json").write_text(json.dumps(content))
    return folder / "x.json"


def _tensors(*keys: Any) -> dict[Any, torch.Tensor]:
    return {key: torch.full((4,), float(n)) for n, key in enumerate(keys)}


@pytest.mark.parametrize("suffix", [".json", ".pt", ".npz"])
@pytest.mark.parametrize("site", ["residual", "attention", "mlp", "heads"])
def test_the_site_comes_back(site: str, suffix: str, vectors: xr.DataArray, tmp_path: Path) -> None:
    several = stamp(vectors.sel(extraction="probe", drop=True), {"source": {"site": site}})
    for array in (several, several.isel(trait=0, drop=True), several.isel(trait=0, layer=2)):
        path = tk.write_vectors(array, tmp_path / f"v{suffix}")
        back = tk.read_vectors(path)
        assert back.dims == (("trait", "layer", "dim") if array.ndim == 3 else ("layer", "dim"))
        np.testing.assert_array_equal(back.values.squeeze(), array.values.squeeze())
        assert site_of(back) == site
    if site != "residual":
        with pytest.raises(tk.InputError, match=f"'queries' was given, and it says '{site}'"):
            tk.read_vectors(path, site="queries")


def test_npy_has_no_place_for_a_site(vector: xr.DataArray, tmp_path: Path) -> None:
    with pytest.raises(tk.InputError, match=r"site 'mlp'.*Write \.npz"):
        tk.write_vectors(stamp(vector, {"site": "mlp"}), tmp_path / "v.npy")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"layer": -5}, r"layer=-5 was given.*from 0"),
        ({"layer": True}, "layer=True was given"),
        ({"layer": 9, "depth": 6}, r"layer=9 was given, and depth=6"),
        ({"layer": 1, "depth": 0}, r"depth=0 was given.*number of blocks"),
    ],
)
def test_a_layer_that_no_model_has_is_refused(
    given: dict[str, Any], words: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "v.npy", np.ones(4))
    with pytest.raises(tk.InputError, match=rf"v\.npy.*{words}"):
        inspect.unwrap(tk.read_vectors)(tmp_path / "v.npy", **given)
    assert tk.read_vectors(tmp_path / "v.npy", layer=-1).layer.values.tolist() == [-1]
    assert tk.read_vectors(tmp_path / "v.npy", layer=5, depth=6).layer.values.tolist() == [5]


def test_half_a_layer_is_refused() -> None:
    given = Given()
    object.__setattr__(given, "layer", 2.5)  # whom the tests' own check of types would stop
    with pytest.raises(tk.InputError, match=r"v\.npy.*layer=2\.5 was given"):
        require_numbers(Path("v.npy"), given)


def test_a_depth_is_compared_with_what_a_file_says(
    vector: xr.DataArray, tmp_path: Path, tiny_llama: Any
) -> None:
    for name, more in (("v.gguf", {"model_type": "llama"}), ("v.safetensors", {})):
        path = tk.write_vectors(vector, tmp_path / name, **more)
        assert tk.read_vectors(path, depth=4).layer.values.tolist() == [1, 2, 3]
        with pytest.raises(tk.InputError, match=r"layers \[3\], and a model of depth=3"):
            tk.read_vectors(path, depth=3)
    with pytest.raises(tk.InputError, match="depth=3 was given, and a model of 4 blocks"):
        tk.read_vectors(path, depth=3, model=tiny_llama)


def test_a_site_that_json_says_otherwise_is_refused(tmp_path: Path) -> None:
    path = _json({"site": "mlp", "layers": {"3": ROW}}, tmp_path)
    assert _site(tk.read_vectors(path)) == _site(tk.read_vectors(path, site="mlp")) == "mlp"
    with pytest.raises(tk.InputError, match="site='attention' was given, and it says 'mlp'"):
        tk.read_vectors(path, site="attention")


def test_a_layer_that_a_vector_says_otherwise_is_refused(tmp_path: Path) -> None:
    path = _json({"hookName": "blocks.3.hook_resid_pre", "vector": ROW}, tmp_path)
    assert tk.read_vectors(path, layer=2).layer.values.tolist() == [2]
    with pytest.raises(tk.InputError, match="layer=3 was given, and it says the layer 2"):
        tk.read_vectors(path, layer=3)


def test_what_lies_beside_the_vectors_is_said(tmp_path: Path) -> None:
    neuronpedia = {"hookName": "blocks.3.hook_resid_post", "vector": ROW, "defaultStrength": 10}
    for content, words in (
        ({"layer": 3, "vector": ROW, "scale": -2.0, "sign": -1}, r"scale \(-2\.0\), sign \(-1\)"),
        (neuronpedia, r"defaultStrength \(10\)"),
        ({"directions": {"3": ROW}, "scale": 2}, r"scale \(2\)"),
    ):
        with pytest.warns(UserWarning, match=rf"x\.json.*not read: {words}"):
            found = tk.read_vectors(_json(content, tmp_path))
        assert found.values.tolist() == [ROW]
    kept = {"vector": torch.tensor(ROW), "layer": 3, "scale": torch.tensor(-2.0)}
    with pytest.warns(UserWarning, match=r"scale \(-2\.0\)"):
        tk.read_vectors(_pt(kept, tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tk.read_vectors(_json({"layer": 3, "vector": ROW, "model": "m", "ok": True}, tmp_path))
    two = {"vectors": {"3": ROW}, "directions": {"3": ROW}}
    with pytest.raises(tk.InputError, match=r"\['directions', 'vectors'\].*one that is meant"):
        tk.read_vectors(_json(two, tmp_path))


@pytest.mark.parametrize("form", ["L{}", "l{}", "gpt_neox.layers.{}", "model.decoder.layers.{}"])
@pytest.mark.parametrize("suffix", [".pt", ".PT", ".safetensors"])
def test_usual_names_of_layers_are_read(form: str, suffix: str, tmp_path: Path) -> None:
    content = _tensors(form.format(3), form.format(10))
    path = tmp_path / f"x{suffix}"
    save_file(content, path) if suffix == ".safetensors" else torch.save(content, path)
    found = tk.read_vectors(path)
    assert (found.layer.values.tolist(), found.values[:, 0].tolist()) == ([3, 10], [0, 1])
    nested = _tensors("model.language_model.layers.3.mlp")
    assert _site(tk.read_vectors(_pt(nested, tmp_path))) == "mlp"


def test_traits_are_found_inside_layers_and_in_names(tmp_path: Path) -> None:
    nested = {n: {t: torch.full((4,), n + len(t)) for t in ("evil", "kind!")} for n in (2.0, 3.0)}
    by_layer = {int(n): rows for n, rows in nested.items()}
    named = {f"{t}.{n}": row for n, rows in by_layer.items() for t, row in rows.items()}
    long = {f"{t}.layers.{n}": row for n, rows in by_layer.items() for t, row in rows.items()}
    save_file(named, tmp_path / "named.safetensors")
    paths = [_pt(by_layer, tmp_path), tmp_path / "named.safetensors", _pt(long, tmp_path, "l.pt")]
    for path in paths:
        found = tk.read_vectors(path)
        assert found.dims == ("trait", "layer", "dim")
        assert set(found.trait.values.tolist()) == {"evil", "kind!"}
        assert float(found.sel(trait="kind!", layer=3)[0]) == 8
        assert float(found.sel(trait="evil", layer=2)[0]) == 6
    lacking = {2: by_layer[2], 3: {"evil": by_layer[3]["evil"]}}
    with pytest.raises(tk.InputError, match="its traits have the layers"):
        tk.read_vectors(_pt(lacking, tmp_path))


def test_arrays_of_numpy_in_a_pt_file_are_refused_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(tk.InputError, match=r"arrays of numpy, pickled \(numpy") as refusal:
        tk.read_vectors(_pt({3: np.ones(4)}, tmp_path))
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 400


def test_what_cannot_be_written_is_refused_in_one_line(
    vector: xr.DataArray, tmp_path: Path
) -> None:
    with pytest.raises(tk.InputError, match=r'x\.gguf.*Give model_type="llama"'):
        tk.write_vectors(vector, tmp_path / "x.gguf")
    with pytest.raises(tk.InputError, match=r"model_type='llama'; .*no model_type="):
        tk.write_vectors(vector, tmp_path / "x.pt", model_type="llama")
    with pytest.raises(tk.InputError, match=r"given ndarray; .*Give a DataArray \(layer, dim\)"):
        inspect.unwrap(tk.write_vectors)(np.ones(4), tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())


def test_the_embeddings_vector_is_written_where_it_is_read_again(
    vector: xr.DataArray, tmp_path: Path
) -> None:
    from_embedding = vector.assign_coords(layer=vector.layer.values - int(vector.layer[0]) - 1)
    for suffix in (".json", ".pt", ".npz"):
        for array in (from_embedding, from_embedding.isel(layer=0)):
            with pytest.raises(tk.InputError, match=r"with the layers \[-1.*Write \.safetensors"):
                tk.write_vectors(array, tmp_path / f"v{suffix}")
    assert not list(tmp_path.iterdir())
    back = tk.read_vectors(tk.write_vectors(from_embedding, tmp_path / "v.safetensors"))
    assert back.layer.values.tolist() == from_embedding.layer.values.tolist()
    table = tk.write_vectors(from_embedding, tmp_path / "v.npy")
    np.testing.assert_array_equal(tk.read_vectors(table, first_layer=-1), from_embedding)


@pytest.mark.parametrize("key", ["-1", "layer_-1", "kind:layer_-1", -1])
def test_a_layer_that_counts_from_the_end_is_no_trait(key: Any, tmp_path: Path) -> None:
    path = _pt(_tensors(key), tmp_path)
    with pytest.raises(tk.InputError, match=r"Its layers count from the end \((layer_)?-1;"):
        tk.read_vectors(path, layer=12)


@pytest.mark.parametrize("suffix", [".json", ".pt", ".npz", ".npy", ".safetensors", ".GGUF"])
def test_the_folder_is_made(suffix: str, vector: xr.DataArray, tmp_path: Path) -> None:
    more = {"model_type": "llama"} if suffix == ".GGUF" else {}
    path = tk.write_vectors(vector, tmp_path / "a" / "b" / f"x{suffix}", **more)
    assert [one.name for one in path.parent.iterdir()] == [path.name]
