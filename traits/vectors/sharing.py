"""Vectors on the hub: a safetensors file and a card that says what they are of."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import xarray as xr

import tracekit as tk
from tracekit.errors import InputError
from tracekit.storage.vector_files.vector_labels import site_of

FILE, CARD = "vectors.safetensors", "README.md"
_CARD = """---
library_name: tracekit
tags:
- tracekit
- steering-vectors
{base}---

# {title}

{about}

| | |
| --- | --- |
| traits | {traits} |
| layers | {layers} (outputs of blocks from 0; −1 is the embedding) |
| dim | {dim} |
| site | {site} |

```python
import traits

vectors = traits.pull_vectors("{repo}")
```

`{file}` holds one float32 tensor (layer, dim) for each vector, so that every reader of safetensors
opens it; labels, provenance and a checksum are in its metadata. What made them:

```json
{provenance}
```
"""


def push_vectors(
    vectors: xr.DataArray,
    repo: str,
    *,
    about: str = "",
    private: bool = True,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Vectors (…, layer, dim) with a card into a model repository of the hub; its address.

    The repository is made if there is none, `private` unless that is said otherwise. `about` is the
    card's first paragraph. `token` is the hub's (by default the one of `hf auth login`).

    Errors: `ValueError` for a name that is not owner/name and for vectors that the file cannot
    hold; what the hub refuses is its own error.

    >>> push_vectors(vectors, "me/honesty", about="From 90 stories.")  # doctest: +SKIP
    'https://huggingface.co/me/honesty'
    """
    from huggingface_hub import HfApi

    _require_name(repo)
    with tempfile.TemporaryDirectory() as folder:
        vectors_folder(vectors, folder, repo, about)
        hub = HfApi(endpoint=endpoint, token=token)
        address = hub.create_repo(repo, private=private, exist_ok=True)
        message = "Vectors and their card, by tracekit"
        hub.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    return str(address)


def vectors_folder(vectors: xr.DataArray, folder: str | Path, repo: str, about: str = "") -> Path:
    """The folder that `push_vectors` uploads: the file and the card.

    Errors: `ValueError` for vectors that the file cannot hold.

    >>> sorted(path.name for path in vectors_folder(vectors, "shared", "me/honesty").iterdir())
    ['README.md', 'vectors.safetensors']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tk.write_vectors(vectors, folder / FILE)
    (folder / CARD).write_text(_card(vectors, repo, about), "utf-8")
    return folder


def pull_vectors(
    repo: str | Path, *, revision: str | None = None, model: Any = None, token: str | None = None
) -> xr.DataArray:
    """The vectors that `push_vectors` put into a repository of the hub, or into a folder.

    `revision` pins a commit; with `model` width and layers have to be the model's.

    Errors: `FileNotFoundError` where the hub does not give them; `ValueError` as `read_vectors`.

    >>> folder = vectors_folder(vectors, "shared", "me/honesty")
    >>> pull_vectors(folder).dims
    ('trait', 'layer', 'dim')
    """
    from huggingface_hub import hf_hub_download

    if Path(repo).is_dir():
        return tk.read_vectors(Path(repo) / FILE, model=model)
    _require_name(str(repo))
    try:
        path = hf_hub_download(str(repo), FILE, revision=revision, token=token)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"The vectors {str(repo)!r} were asked for, and the hub did not give their {FILE}: "
            f"{str(error).splitlines()[0]} Look at the name, the revision and your token."
        ) from error
    return tk.read_vectors(path, model=model)


def _card(vectors: xr.DataArray, repo: str, about: str) -> str:
    made = tk.provenance(vectors) if "provenance" in vectors.attrs else {}
    site = site_of(vectors) or "not recorded"
    stream = "residual stream" if site == "residual" else "activations"
    base = (
        made.get("source", made).get("model") if isinstance(made.get("source", made), dict) else 0
    )
    traits: Any = vectors["trait"].values if "trait" in vectors.coords else []
    names = [str(name) for name in getattr(traits, "ravel", lambda: traits)()]
    layers = vectors["layer"].values.ravel().tolist()
    shown = [f"`{name}`" for name in names[:12]]
    return _CARD.format(
        base=f"base_model: {base}\n" if isinstance(base, str) and "/" in base else "",
        title=repo.partition("/")[2],
        about=about or f"Directions in the {stream} of a language model (site: {site}).",
        traits=f"{', '.join(shown)}{' …' if len(names) > 12 else ''}" if names else "one vector",
        layers=f"{layers[0]} to {layers[-1]}, {len(layers)} in all",
        dim=vectors.sizes["dim"],
        site=site,
        repo=repo,
        file=FILE,
        provenance=json.dumps(made, indent=1, ensure_ascii=False),
    )


def _require_name(repo: str) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise InputError(
            f"The repository {repo!r} was named; one of the hub is owner/name, such as "
            "me/honesty-vectors, and a folder has to be there."
        )
