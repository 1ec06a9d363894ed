import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reco.models.slates import Rung, Slates
from reco.models.topk import HEADER, PLACE_BYTES, pack, unpack


def slates(n: int, k: int, seed: int = 0) -> Slates:
    draw = np.random.default_rng(seed)
    return Slates(
        draw.integers(1, 2**63, (n, k)).astype(np.uint64),
        np.sort(draw.random((n, k)).astype(np.float32))[:, ::-1].copy(),
        draw.integers(1, 7, (n, k)).astype(np.uint8),
        np.full((n, k), Rung.LIVE, np.uint8),
    )


@given(st.integers(1, 20), st.integers(1, 60), st.integers(1, 60))
def test_what_was_packed_comes_back(n: int, places: int, k: int) -> None:
    stored = slates(n, places)

    found = unpack(pack(stored, "v1", 1_700_000_000), k, "v1")

    kept = min(places, k)
    assert (found.slates.items[:, :kept] == stored.items[:, :kept]).all()
    assert np.allclose(found.slates.scores[:, :kept], stored.scores[:, :kept], atol=5e-4)
    assert (found.slates.reasons[:, :kept] == stored.reasons[:, :kept]).all()
    assert (found.slates.rungs[:, :kept] == Rung.FRESH).all()
    assert (found.slates.items[:, kept:] == 0).all()
    assert (found.as_of == 1_700_000_000).all()


def test_slates_of_another_model_are_not_used() -> None:
    found = unpack(pack(slates(3, 5), "v1", 1), 5, "v2")

    assert not found.slates.items.any()
    assert not found.as_of.any()


def test_missing_and_damaged_values_are_empty_places() -> None:
    value = pack(slates(1, 5), "v1", 9)[0]

    found = unpack([None, b"", value, b"\x07"], 5, "v1")

    assert found.slates.items.any(axis=1).tolist() == [False, False, True, False]


def test_fifty_places_take_566_bytes() -> None:
    assert len(pack(slates(1, 50), "v1", 1)[0]) == HEADER.itemsize + 50 * PLACE_BYTES == 566
