"""The tests' own type checks are on: conftest.py installs them before the packages are imported."""

import beartype.roar
import jaxtyping
import numpy as np
import pytest

from tracekit.passes.batching import grouped
from traits.vectors.extraction import refuse_identical


def test_axes_of_one_name_are_of_one_length():
    with pytest.raises(jaxtyping.TypeCheckError, match="negative"):
        refuse_identical(np.ones((8, 2, 3)), np.zeros((7, 2, 3)))


def test_a_module_that_names_no_axes_is_checked():
    with pytest.raises(beartype.roar.BeartypeCallHintParamViolation, match="shards"):
        grouped([[0]], "1")  # type: ignore[arg-type]
