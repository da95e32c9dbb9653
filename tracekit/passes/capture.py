"""Transcripts through the model, once a batch; what is asked for comes back labelled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from nnsight import TransformersModel

from tracekit.passes import products
from tracekit.passes.monitoring import Probes, ask_probes
from tracekit.passes.request import Reduce, Site, ask
from tracekit.passes.together import require_path
from tracekit.storage import shard
from tracekit.transcripts.selection import Tokens


def capture(
    model: TransformersModel,
    transcripts: xr.Dataset,
    layers: int | Sequence[int] | None = None,
    *,
    site: Site = "residual",
    dims: Sequence[str] | None = None,
    tokens: Tokens = "response",
    reduce: Reduce | None = None,
    vectors: xr.DataArray | None = None,
    probes: Probes | None = None,
    transfer: bool = False,
    path: str | Path | None = None,
    token_budget: int | None = None,
    compression: str = shard.DEFAULT_CODEC,
    round_to: str | None = None,
    nonfinite: str = "raise",
    writers: int | None = None,
    progress: bool = True,
    share_prompts: bool = False,
) -> xr.DataArray:
    """What happens inside the model on these ids: (prompt, token, layer, dim), float32.

    One trace a batch, stopped after the last layer asked for. `layers` counts from 0 (−1: the
    embedding output), all by default, or those of `vectors`. `site` is one of these (docs/sites.md
    says which architectures lack which), or a function of the block giving (row, token, …), whose
    further axes `dims` names: `dims=("head", "dim")`; without `dims` they are one, `dim`.

    | site | is | dims after `layer` |
    | --- | --- | --- |
    | `residual` | a block's output | `dim` |
    | `attention`, `mlp` | what each adds to the residual stream | `dim` |
    | `heads` | what each head adds; with the bias, their sum is `attention` | `head`, `dim` |
    | `queries`, `keys`, `values` | as projected, before norms and positions | `head`, `dim` |
    | `pattern` | attention's weights, NaN where masked; the token dim is `query` | `head`, `key` |
    | `mlp_hidden` | the input of the MLP's down projection | `unit` |
    | `router` | a mixture's logits before their softmax | `expert` |

    Where queries share keys, `keys` and `values` have that many heads. `pattern` runs with eager
    attention, which provenance records, and leaves the model as it was. `tokens`: "response" (and
    the last prompt token, which is all that is kept of a row without a response), "prompt", "all",
    a slice or list of token labels, or a boolean array (prompt, token): `tk.find` gives that of a
    text, a role or a turn.

    `reduce="mean"` (or a function of a row's (token, …) values, giving (…)) keeps one value a
    row: (prompt, layer, …), by default of the response's own tokens. Functions are recorded by
    source and bound values, or under a name of your own as pairs `("name", function)`. With it
    `tokens` may be a boolean array (prompt, stretch, token), such as the sentences of each row:
    (prompt, layer, stretch, …), NaN where a row has no such stretch. `vectors`
    (trait, layer, dim), or one vector with its `layer`, projects inside the trace: (prompt, token,
    layer, trait), with a `head` before the `trait` for `heads`; the dot product, with the norm of
    each value as the coordinate `norm`. `probes` (of `traits.fit`: one, a list, or a dict by name;
    a target is one) are scored inside the trace, each at its own layer of the residual stream:
    (prompt, token, probe), with the coordinates `layer`, `pooling` and `threshold` (probe), and
    `pooled` (prompt, probe), each probe's own pooling of the tokens that it pools (the response's,
    labels from 0, unless it was fitted on others), of those that are kept: where `tokens` is left
    at "response" and a probe pools tokens before it, "all". Of others
    `tk.pool(scores, …, tokens=…)`. Vectors and probes made with other weights need
    `transfer=True`, which is recorded.

    With `path` the values go to a folder of netCDF shards while the model runs, and the lazy
    array over them is returned (in the order of the batch plan); a capture that was killed goes
    on where it stopped. Without, the array is in memory, in the order of the transcripts. A batch
    holds at most `token_budget` tokens, padding included (by default what the memory holds).
    `writers` is the most writer processes to start (0, the default: this process's threads).
    `round_to="bfloat16"` and `nonfinite="mark"` (keep NaN and infinity) are recorded.
    `share_prompts=True` reads what all rows begin with (a system message) once, and behind it a
    prompt that several rows have (samples) once a batch, where either saves an eighth of what is
    computed and the model is proved to say the same so: values agree within rounding, nothing
    before a prompt's last token can be kept, and provenance records it, so that such values are
    compared with such alone. With edits, of a remote model and of transcripts that were cut, each
    row is read whole.

    Errors: `ValueError` or `TypeError` for layers, sites, tokens or vectors that do not fit, for a
    function that has no name (see above), for a row without a kept token, for `share_prompts` and
    tokens before a response or a site function, for a `path` that holds something else, for what
    would be ignored (`transfer` without vectors or probes, how a folder is written without a
    `path`), and for a value that is not finite (prompt, token and layer named); `OSError` for a
    disk that is full (what is finished stays).

    >>> capture(model, runs, layers=range(12, 24)).dims
    ('prompt', 'token', 'layer', 'dim')
    >>> capture(model, runs, probes={"lies": probe}, tokens="all").pooled.dims
    ('prompt', 'probe')
    """
    shard.require_codec(compression)
    if probes is None:
        asked = ask(
            model, layers, site, tokens, reduce, vectors, round_to, nonfinite, transfer, dims
        )
    else:
        others: dict[str, Any] = {"layers": layers, "site": site, "dims": dims, "reduce": reduce}
        others |= {"vectors": vectors, "round_to": round_to}
        asked = ask_probes(model, probes, tokens, nonfinite, transfer, others)
    paths = [None if path is None else Path(path)]
    require_path(paths, compression, writers)
    made = products.of(
        *(model, transcripts, [asked], paths, token_budget),
        *(compression, writers, progress, share_prompts),
    )
    return made[0]
