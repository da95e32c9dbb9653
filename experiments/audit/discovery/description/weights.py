"""How large an adapter's change of the weights is, where it lies, and over how many directions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr

from experiments.audit.discovery.answering.products import Products
from tracekit import Model
from tracekit.errors import InputError
from tracekit.model.adapters.forms import adapter_path, stored_weights
from tracekit.model.adapters.layers import tuner_layers
from tracekit.model.adapters.scale import kind_of, unscalable
from tracekit.model.load import model_provenance
from tracekit.storage.provenance import stamp

SIDES = ("lora_A", "lora_B")  # the change is their product


def weight_change(model: Model) -> xr.Dataset:
    """Of each matrix that the adapter (which is on) changes: `norm` and `directions` (module,).

    `norm` is the Frobenius norm of the change, `directions` the participation ratio of its
    squared singular values: 1 where one direction has all of it, the rank where all have the same.
    Both from the low-rank factors; modules that are not plain LoRA (DoRA, whole modules, rows of an
    embedding) are left out, and the attribute `left_out` says how many of which kind; `fixed` names
    those that cannot be made stronger.

    >>> with tk.adapter(model, lora):
    ...     change = weight_change(model)
    >>> sorted(change.data_vars)
    ['directions', 'norm']
    """
    plain = list(_factors(model))
    measured = {id(layer) for _, layer, _ in plain}
    others = Counter(kind_of(x) for x in tuner_layers(model._module) if id(x) not in measured)
    values = [singular_values(*factors) for *_, factors in plain]
    squares = [np.square(v) for v in values]
    dataset = xr.Dataset(
        {
            "norm": ("module", np.array([np.sqrt(s.sum()) for s in squares])),
            "directions": ("module", np.array([_ratio(s) for s in squares])),
        },
        coords={"module": np.array([name for name, *_ in plain], np.str_)},
        attrs={
            "left_out": ", ".join(f"{n} {kind}" for kind, n in sorted(others.items())),
            "fixed": ", ".join(sorted({kind_of(x) for x in unscalable(model._module)})),
        },
    )
    return stamp(dataset, dict(model_provenance(model)))


def kept_change(model: Model, adapter: str, products: Products) -> xr.Dataset:
    """The same of an adapter, from its folder where it is there.

    >>> kept_change(model, str(lora), Products(Path("mine"), {})).sizes["module"] > 0
    True
    """
    with products.adapted(model, adapter, "weights.nc"):
        return products.kept("weights.nc", partial(weight_change, model))


def refuse_broken(adapter: str) -> None:
    """Raise `ValueError` for saved weights that are not finite, or that change nothing.

    >>> refuse_broken("river")
    """
    some: dict[str, bool] = {}
    for name, values in stored_weights(adapter_path(adapter)):
        bad = int((~torch.isfinite(values.float())).sum())
        if bad:
            raise InputError(
                f"The adapter {adapter!r} was to be searched; {bad} of {values.numel()} values of "
                f"{name} are NaN or infinite. Train it again, or give an earlier checkpoint."
            )
        side = next((side for side in SIDES if side in name), name)
        some[side] = some.get(side, False) or bool(values.any())
    empty = [side for side, there in some.items() if not there]
    if {*some} <= {*SIDES} and empty:
        raise InputError(
            f"The adapter {adapter!r} was to be searched; all of its {empty[0]} weights "
            "are zero, so it changes nothing. Give one that was trained."
        )


def singular_values(down: torch.Tensor, up: torch.Tensor, scaling: float) -> np.ndarray:
    """Of `scaling · up @ down`, from QR factors: no matrix of the model's width is made.

    >>> singular_values(torch.eye(2, 5), 3 * torch.eye(4, 2), 2.0).tolist()
    [6.0, 6.0]
    """
    inner = torch.linalg.qr(up.double()).R @ torch.linalg.qr(down.double().T).R.T
    return (torch.linalg.svdvals(inner) * abs(scaling)).cpu().numpy()


def described(own: xr.Dataset, others: Mapping[str, xr.Dataset]) -> list[str]:
    """Sentences: how large beside the others, where it lies, and what was not measured."""
    # a file of before has neither
    left, fixed = (own.attrs.get(name, "") for name in ("left_out", "fixed"))
    nor = "; nothing was asked at more than the adapter's own strength" if fixed else ""
    apart = [f"Not measured is what is no plain LoRA: {left}{nor}."] if left else []
    if not own.sizes["module"]:
        none = "Its weights: none of its modules is plain LoRA, so their size is not described."
        return [none, *apart]
    total = _total(own)
    sizes = sorted(_total(other) for other in others.values() if other.sizes["module"])
    beside = f"; {len(sizes)} benign ones {sizes[0]:.3g} to {sizes[-1]:.3g}" if sizes else ""
    largest = own.module.values[own.norm.values.argmax()]
    return [
        f"Its weights change by {total:.3g} (Frobenius, all {'plain ' if left else ''}modules"
        f"{beside}), over {float(own.directions.mean()):.1f} directions a matrix; most in "
        f"{largest}.",
        *apart,
    ]


def _total(change: xr.Dataset) -> float:
    return float(np.sqrt(np.square(change.norm.values).sum()))


def _ratio(squares: np.ndarray) -> float:
    return float(squares.sum() ** 2 / np.square(squares).sum()) if squares.any() else 0.0


def _factors(model: Model) -> Iterator[tuple[str, Any, tuple[torch.Tensor, torch.Tensor, float]]]:
    layers = tuner_layers(model._module)
    plain = {id(layer) for layer in layers} - {id(layer) for layer in unscalable(model._module)}
    for name, layer in model._module.named_modules():
        if id(layer) not in plain or getattr(layer, "disable_adapters", True):
            continue
        for adapter, down in _entries(layer, "lora_A"):
            up = dict(_entries(layer, "lora_B")).get(adapter)
            if up is not None and adapter in layer.active_adapters:
                factors = down.weight, up.weight, float(layer.scaling[adapter])
                yield name.removeprefix("base_model.model."), layer, factors


def _entries(layer: Any, name: str) -> list[tuple[str, Any]]:
    held = getattr(layer, name, None)
    return list(held.items()) if held is not None else []
