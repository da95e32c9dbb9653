"""Several directions in one generation: which of them each row is steered along."""

from __future__ import annotations

from typing import Any

import torch
import xarray as xr

from tracekit.edits.directions import Amount, Amounts
from tracekit.edits.positions import Rows
from tracekit.errors import InputError
from tracekit.storage.identity import digest


def bank_dim(vector: xr.DataArray, coefficient: Amount) -> str | None:
    """The dim of a vector that the coefficient has a label of for each prompt; `None` without."""
    if not isinstance(coefficient, xr.DataArray) or "prompt" not in coefficient.dims:
        return None
    by_prompt = {str(name) for name, c in coefficient.coords.items() if c.dims == ("prompt",)}
    extra = [str(dim) for dim in vector.dims if dim not in ("layer", "dim", "prompt")]
    return extra[0] if len(extra) == 1 and extra[0] in by_prompt else None


class Choice:
    """Which direction of a bank each row has, by the label that its coefficient carries.

    Errors: `ValueError` for labels that the bank lacks or has twice.
    """

    def __init__(
        self, vector: xr.DataArray, coefficient: xr.DataArray, amount: Amounts, dim: str
    ) -> None:
        labels, self.dim, self.amount = [str(one) for one in vector[dim].values], dim, amount
        self.names = [str(name) for name in coefficient["prompt"].values]
        self.wanted = [str(label) for label in coefficient[dim].values]
        missing = sorted(set(self.wanted) - set(labels))
        if missing or len(set(labels)) < len(labels):
            raise InputError(
                f"The rows are to be steered along the {dim}s {missing or self.wanted}, and the "
                f"vector has {labels}, each of which it must have once."
            )
        self._order = [labels.index(label) for label in self.wanted]

    def of(self, directions: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Each row's direction: (row, 1, dim) of (bank, dim)."""
        places = [self._order[place] for place in self.amount.places(rows)]
        return directions[places][:, None]

    def described(self) -> dict[str, Any]:
        """As the provenance records it."""
        pairs = zip(self.names, self.wanted, strict=True)
        return {"by": self.dim, "hash": digest([list(pair) for pair in pairs])}
