"""Two tensor-parallel ranks, and blocks on different devices, give the single-process traces."""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tracekit as tk
from tracekit.origin import origin

SITES = ("residual", "attention", "mlp")


def test_two_ranks_give_the_single_process_traces(tiny_llama, tiny_folder, tiny_lora, tmp_path):
    program = Path(__file__).with_name("two_ranks.py")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", port]
    command += [str(program), str(tiny_folder), str(tiny_lora), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    texts = ["Where is Paris?", "The sky is blue because"]
    runs = tk.encode(tiny_llama, texts, template="raw")
    for site in SITES:
        alone = tk.capture(tiny_llama, runs, site=site, tokens="all", progress=False).values
        scale = np.nanmax(np.abs(alone))
        for rank in (0, 1):
            split = tk.open(tmp_path / f"{site}-{rank}.nc").values
            assert np.nanmax(np.abs(split - alone)) <= 1e-5 * scale
            # the twin: another row's values are not within the bound
            assert np.nanmax(np.abs(split[:, ::-1] - alone)) > 1e-2 * scale
    for rank in (0, 1):
        held, refusal = (tmp_path / f"said-{rank}.txt").read_text().split("\n")
        assert held == "(16, 32)"  # half of the 32 query rows: the weights really are split
        assert "tensor-parallel model (2 ranks): peft does not shard" in refusal


@pytest.mark.parametrize("what", [{"dtype": "nf4"}, {"adapter": "anything"}])
def test_split_weights_take_neither_nf4_nor_an_adapter(tiny_folder, what):
    with pytest.raises(ValueError, match=r"tensor parallelism: .* Use device_map='auto'"):
        tk.load(tiny_folder, tp_plan="auto", **what)


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


def test_blocks_on_disk_give_the_same_values(tiny_llama, offloaded):
    assert offloaded.layers[1].attn.q_proj._module.weight.is_meta
    runs = tk.encode(tiny_llama, ["Where is Paris?", "Hi"], template="raw")
    for site in SITES:
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
