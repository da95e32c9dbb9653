"""Attribution patching: activation patching to first order, in one forward and one way back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from nnsight import TransformersModel

from tracekit.passes.patching.pair import Group, Pairs, ask, base_of
from tracekit.passes.readouts.gradients import KEPT_ACTIVATIONS, Backward, backward, require_steps
from tracekit.passes.readouts.metrics import Metric
from tracekit.passes.readouts.path import along
from tracekit.passes.starting import head_of
from tracekit.transcripts.selection import Tokens


def attribution_patching(
    model: TransformersModel,
    runs: xr.Dataset,
    sources: xr.Dataset,
    *,
    metric: Metric,
    layers: int | Sequence[int] | None = None,
    tokens: Tokens = "all",
    source_tokens: Tokens | None = None,
    sites: str | Sequence[str] = "residual",
    steps: int | None = None,
) -> xr.DataArray:
    """What `activation_patching` would change of the metric, by gradients: the same labels.

    (source − run) · gradient of the metric in the run, for all layers and tokens by one forward
    and one way back a site; compare it with `found - found.unpatched` of `activation_patching`.
    With `steps` the gradient is the mean along the straight line from the run's activations to
    the source's, all chosen tokens of a layer at once: the sum over tokens is then the change
    that patching them together makes.
    Source: arXiv:2310.10348; with steps, integrated gradients, arXiv:1703.01365.

    Errors: as `activation_patching`.

    >>> asked, other = (tk.encode(model, [f"{x} is in"], template="raw") for x in ("Rome", "Paris"))
    >>> metric = tk.logit_difference(model, " Italy", " France")
    >>> attribution_patching(model, asked, other, metric=metric, layers=[4, 8]).dims
    ('site', 'layer', 'token', 'prompt')
    """
    require_steps(steps)
    asked = ask(model, runs, sources, metric, layers, tokens, source_tokens, sites)
    shape = (len(asked.sites), len(asked.layers), *asked.places.at.shape)
    values, scores = np.full(shape, np.nan), np.full((2, shape[2]), np.nan)
    kept = len(asked.sites) * len(asked.layers) * asked.token_bytes
    for group in asked.groups(kept, parts=KEPT_ACTIVATIONS):
        taken, scores[1, group.prompts] = group.sources()
        backwards = {}
        for n, site in enumerate(asked.sites):
            if (base := base_of(site)) not in backwards:
                # one way back is for all heads; no two sites' are kept
                backwards = {base: _backward(asked, group, base)}
            result = backwards[base]
            values[n][:, group.prompts] = _estimates(asked, group, site, taken, result, steps)
            scores[0, group.prompts] = result.scores.cpu()
    return asked.labelled(values, scores, "attribution_patching", {"steps": steps or 0})


def _backward(asked: Pairs, group: Group, site: str) -> Backward:
    return backward(asked.model, group.made, group.rows, asked.judge, asked.layers, site)


def _estimates(
    asked: Pairs,
    group: Group,
    site: str,
    taken: dict[tuple[str, int], torch.Tensor],
    result: Backward,
    steps: int | None,
) -> Float[np.ndarray, "layer row place"]:
    layers, there = asked.layers, group.there
    row, place = there.nonzero().T
    at = row * group.made.input_ids.shape[1] + group.at[row, place]
    head = head_of(site)
    own, slopes = (
        [(one if head is None else one[:, :, head]).flatten(0, 1)[at].float() for one in side]
        for side in (result.values, result.slopes)
    )
    new = [taken[site, layer][row, place].to(own[n]) for n, layer in enumerate(layers)]
    if steps is not None:
        ends, judge = (own, new), asked.judge
        slopes = along(asked.model, group.made, group.rows, judge, layers, at, ends, steps, site)
    filled = np.full((len(layers), *there.shape), np.nan)
    for n in range(len(layers)):
        filled[n][there.numpy()] = ((new[n] - own[n]) * slopes[n]).sum(-1).cpu().numpy()
    return filled
