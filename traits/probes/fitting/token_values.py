"""A probe's score of each token of plain residuals: the one formula of each kind of probe."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

Parameters = Mapping[str, np.ndarray]
Scores = Float[np.ndarray, "*place probe"]


def token_values(
    parameters: Parameters, values: Float[np.ndarray, "*place dim"]
) -> tuple[Scores, Scores | None]:
    """The scores of residuals by several probes, and the logits of attention where they have one.

    Parameters have a leading axis of probes. A score is weight · residual + offset, and of an MLP
    weight · relu(hidden_weight · residual + hidden_offset) + offset. The mean of such scores that
    attention makes has the offset once, since its weights add up to 1.

    >>> parameters = {"weight": np.ones((1, 3)), "offset": np.array([0.5])}
    >>> token_values(parameters, np.ones((2, 3)))[0].tolist()
    [[3.5], [3.5]]
    """
    weight, offset = parameters["weight"], parameters["offset"]
    # in the residuals' precision: a copy of them in another would be as large as a layer
    like = values.dtype if values.dtype.kind == "f" else np.dtype(np.float64)
    if "hidden_weight" in parameters:
        hidden = zip(parameters["hidden_weight"], parameters["hidden_offset"], strict=True)
        units = [np.maximum(values @ w.T.astype(like) + b.astype(like), 0) for w, b in hidden]
        made = [unit @ w for unit, w in zip(units, weight.astype(like), strict=True)]
        return np.stack(made, -1).astype(np.float64) + offset, None
    scores = (values @ weight.T.astype(like)).astype(np.float64) + offset
    if "query" not in parameters:
        return scores, None
    return scores, (values @ parameters["query"].T.astype(like)).astype(np.float64)
