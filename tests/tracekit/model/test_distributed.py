"""Two tensor-parallel ranks, and blocks on different devices, give the single-process traces."""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tracekit as tk
from tests.support import two_ranks
from tests.support.models import tiny
from tracekit.model.record import origin
from tracekit.storage.provenance import read


def test_two_ranks_give_the_single_process_traces(tiny_llama, tiny_folder, tiny_lora, tmp_path):
    program = Path(two_ranks.__file__)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    other = tiny.build_lora(tiny_folder, tmp_path / "other", seed=2)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", port]
    command += [str(program), *map(str, (tiny_folder, tiny_lora, other, tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    runs = tk.encode(tiny_llama, two_ranks.TEXTS, template="raw")
    for name, weights in {"bare": None, "lora": tiny_lora, "other": other}.items():
        with tk.adapter(tiny_llama, weights):
            for site, where in two_ranks.SITES.items():
                alone = tk.capture(tiny_llama, runs, site=where, tokens="all", progress=False)
                compare(alone, tmp_path, f"{name}-{site}")
    for rank in (0, 1):
        for site in ("heads", "keys", "pattern"):
            assert "split over 2 ranks" in (tmp_path / f"{site}-{rank}.txt").read_text()
        # half of the 32 query rows, and of the LoRA's B for them: the weights really are split
        assert (tmp_path / f"said-{rank}.txt").read_text() == "(16, 32) (16, 4)"


def compare(alone, folder: Path, name: str) -> None:
    scale = np.nanmax(np.abs(alone.values))
    for rank in (0, 1):
        split = tk.open(folder / f"{name}-{rank}.nc")
        assert split.dims == alone.dims
        assert np.nanmax(np.abs(split.values - alone.values)) <= 1e-5 * scale, name
        # the twin: another row's values are not within the bound
        assert np.nanmax(np.abs(split.values[:, ::-1] - alone.values)) > 1e-2 * scale
        there, here = (read(array) for array in (split, alone))
        assert [there[key] for key in ("weights", "adapter")] == [
            here[key] for key in ("weights", "adapter")
        ]


def test_split_weights_cannot_be_nf4(tiny_folder):
    with pytest.raises(ValueError, match=r"tensor parallelism: .* Use device_map='auto'"):
        tk.load(tiny_folder, tp_plan="auto", dtype="nf4")


@pytest.fixture(scope="module")
def offloaded(tiny_folder, words, tmp_path_factory):
    """Two of four blocks on disk."""
    places = {f"model.layers.{n}": "disk" if n in (1, 2) else "cpu" for n in range(4)}
    places |= {f"model.{n}": "cpu" for n in ("embed_tokens", "norm", "rotary_emb")}
    folder = str(tmp_path_factory.mktemp("offload"))
    return tk.load(
        tiny_folder,
        dtype="float32",
        tokenizer=words,
        device_map={**places, "lm_head": "cpu"},
        offload_folder=folder,
    )


def test_an_embedding_on_disk_is_refused(tiny_folder, words, tmp_path):
    rest = {f"model.{n}": "cpu" for n in ("layers", "norm", "rotary_emb")} | {"lm_head": "cpu"}
    disk = {"model.embed_tokens": "disk"}
    for places in ({**disk, **rest}, {**rest, **disk}, {"": "disk"}):
        with pytest.raises(ValueError, match="puts the embedding on disk"):
            tk.load(tiny_folder, tokenizer=words, device_map=places, offload_folder=str(tmp_path))


def test_blocks_on_disk_give_the_same_values(tiny_llama, offloaded):
    assert offloaded.layers[1].attn.q_proj._module.weight.is_meta
    runs = tk.encode(tiny_llama, ["Where is Paris?", "Hi"], template="raw")
    for site in ("residual", "attention", "mlp"):
        here, there = (
            tk.capture(model, runs, site=site, tokens="all", progress=False)
            for model in (tiny_llama, offloaded)
        )
        assert np.array_equal(here.values, there.values, equal_nan=True)
        assert float(abs(tk.difference(here, there)).max()) == 0
    options = {"max_new_tokens": 4, "progress": False}
    assert tk.generate(offloaded, runs, **options).token_id.equals(
        tk.generate(tiny_llama, runs, **options).token_id
    )


def test_the_fingerprint_reads_offloaded_weights(tiny_llama, offloaded):
    assert origin(offloaded).weights == origin(tiny_llama).weights


def test_an_adapter_on_offloaded_weights_is_refused(offloaded, tiny_lora):
    with (
        pytest.raises(ValueError, match=r"18 parameters are offloaded \(such as model\.layers\.1"),
        tk.adapter(offloaded, tiny_lora),
    ):
        pass
