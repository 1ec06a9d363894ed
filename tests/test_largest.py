"""The k largest of each row: exact for any shape, for negative and for equal values."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reco.models.largest import largest


@pytest.mark.parametrize("columns", [40, 50, 319, 320, 999, 1_280, 4_096])
def test_the_largest_are_those_of_a_full_sort(columns: int) -> None:
    torch.manual_seed(columns)
    x = torch.randn(30, columns)

    best, at = largest(x, 40)

    assert np.array_equal(best, torch.topk(x, 40, dim=1)[0].numpy())
    assert np.array_equal(np.take_along_axis(x.numpy(), at, axis=1), best)


@given(
    st.integers(1, 6), st.integers(1, 12), st.integers(0, 300), st.integers(1, 400),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_equal_values_change_nothing(
    rows: int, k: int, more: int, different: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    x = draw.integers(-different, different, (rows, k + more)).astype(np.float32)
    x[draw.random(x.shape) < 0.1] = -1e9  # what is known already

    best, at = largest(torch.from_numpy(x), k)

    assert np.array_equal(best, -np.sort(-x, axis=1)[:, :k])
    assert np.array_equal(np.take_along_axis(x, at, axis=1), best)
    assert all(len(set(line)) == k for line in at.tolist())


def test_a_row_that_is_no_number_harms_no_other() -> None:
    torch.manual_seed(1)
    x = torch.randn(4, 2_000)
    x[2, ::3] = float("nan")

    best, at = largest(x, 40)

    whole = [0, 1, 3]
    assert np.array_equal(best[whole], torch.topk(x[whole], 40, dim=1)[0].numpy())
    assert at.min() >= 0
    assert at.max() < 2_000


@pytest.mark.parametrize("shape", [(3, 500), (3, 0), (0, 500)])
def test_nothing_is_asked_of_anything(shape: tuple[int, int]) -> None:
    best, at = largest(torch.zeros(shape), 0)

    assert best.shape == at.shape == (shape[0], 0)
