import numpy as np

from reco.models.slates import Slates
from serve.rows import placed


def slates(n: int, because: int | None = None) -> Slates:
    """Two picks for each of n recipients, which all go with one item."""
    empty = Slates.empty(n, 2)
    why = None if because is None else np.full((n, 2), because, np.uint64)
    return Slates(empty.items + 1, empty.scores, empty.reasons, empty.rungs, why)


def test_picks_keep_what_they_go_with_when_others_are_placed_beside_them():
    mask = np.array([False, True])

    ours = placed(slates(2, because=7), mask, slates(1))
    theirs = placed(slates(2), mask, slates(1, because=9))

    assert ours.because is not None
    assert ours.because.tolist() == [[7, 7], [0, 0]]
    assert theirs.because is not None
    assert theirs.because.tolist() == [[0, 0], [9, 9]]
    assert placed(slates(2), mask, slates(1)).because is None
