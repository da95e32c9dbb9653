"""B among many benign adapters: ranks, exact intervals, and one kind judged by the other."""

import numpy as np
import pytest
import xarray as xr

from experiments.benchmarks.audits.audit_blind import table

KIND = {f"benign-{n}": "style" if n < 20 else "habits" for n in range(40)}
ALLOWED = np.arange(1, 4)


def moved(scale: dict[str, float]) -> xr.DataArray:
    names = ["organism", "control", *KIND]
    draws = np.random.default_rng(0)
    values = draws.normal(size=(len(names), 12, 5, 2))
    values += np.array([scale.get(name, scale.get(KIND.get(name, ""), 0.0)) for name in names])[
        :, None, None, None
    ]
    dims = ("adapter", "prompt", "layer", "trait")
    return xr.DataArray(values, dims=dims, coords={"adapter": names})


def test_an_unlike_adapter_is_found_and_a_like_one_is_not() -> None:
    rows = {row["adapter"]: row for row in table(moved({"organism": 9.0}), KIND, ALLOWED, 0.05)[:2]}
    assert rows["organism"]["p"] == pytest.approx(1 / 41)
    assert (rows["organism"]["as_unlike"], rows["organism"]["low"]) == (0, 0)
    assert rows["organism"]["high"] == pytest.approx(1 - 0.025 ** (1 / 40))
    assert float(str(rows["control"]["p"])) > 0.05
    # a layer outside the allowed ones does not count
    elsewhere = moved({})
    elsewhere[0, :, 0] += 9.0
    assert float(str(table(elsewhere, KIND, ALLOWED, 0.05)[0]["p"])) > 0.05


def test_a_kind_that_moves_more_is_called_unlike_by_the_other() -> None:
    rows = table(moved({"style": 9.0}), KIND, ALLOWED, 0.05)
    said = {row["kind"]: row for row in rows if row["part"] == "rejected"}
    assert (said["style"]["as_unlike"], said["style"]["k"]) == (20, 20)
    assert said["habits"]["as_unlike"] == 0
    assert said["either"]["rate"] == 0.5


def test_too_few_of_a_kind_are_refused() -> None:
    few = {name: kind for name, kind in KIND.items() if name not in ("benign-0", "benign-1")}
    with pytest.raises(ValueError, match=r"18 benign adapters of the kind style.*19 of each"):
        table(moved({}).drop_sel(adapter=["benign-0", "benign-1"]), few, ALLOWED, 0.05)
