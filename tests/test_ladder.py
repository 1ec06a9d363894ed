"""The fallback ladder leaves no place empty and never breaks the hard rules."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reco.models.slates import Reason, Rung, Slates
from reco.rules.ladder import Pools, editorial_slates, fill, seeds_of
from reco.tables import item_keys
from tests.small_shop import SHOP, names, slates_of

IDS = [f"i{i}" for i in range(len(SHOP))]


def pools(popular=(), editorial=(), allowed=None) -> Pools:
    mask = SHOP.in_stock if allowed is None else np.array(allowed)
    return Pools.of(SHOP, mask, item_keys(popular), item_keys(editorial))


@given(
    rows=st.lists(st.lists(st.sampled_from(IDS), unique=True, max_size=4), min_size=2, max_size=5),
    popular=st.lists(st.sampled_from([*IDS, "gone"]), max_size=6),
    editorial=st.lists(st.sampled_from(IDS), max_size=6),
    allowed=st.lists(st.booleans(), min_size=len(IDS), max_size=len(IDS)),
    k=st.integers(1, 5),
    campaign=st.text(max_size=5),
)
def test_no_place_stays_empty_while_anything_is_allowed(
    rows, popular, editorial, allowed, k, campaign
):
    given_ids = {i for row in rows for i in row}
    allowed = [ok or name in given_ids for name, ok in zip(SHOP.item_ids, allowed, strict=True)]
    slates = slates_of(*([*row, "", "", "", ""][:4] for row in rows))
    seeds = seeds_of([str(i) for i in range(len(rows))], campaign)

    filled = fill(slates, k, pools(popular, editorial, allowed), seeds)

    can = set(SHOP.item_ids[np.array(allowed)])
    for before, after in zip(rows, names(filled), strict=True):
        assert len(after) == min(k, len(can))
        assert len(set(after)) == len(after)
        assert set(after) <= can
        assert after[: len(before)] == before[:k]


def test_rungs_are_climbed_in_order_and_recorded():
    slates = slates_of(["i0", "", "", ""])
    filled = fill(slates, 4, pools(["i1"], ["i1", "i2"]), seeds_of(["u"], "c"))

    assert names(filled)[0][:3] == ["i0", "i1", "i2"]
    assert filled.rungs[0].tolist() == [1, Rung.POPULAR, Rung.EDITORIAL, Rung.RANDOM]
    assert filled.reasons[0, 1:].tolist() == [Reason.POPULAR, Reason.EDITORIAL, Reason.RANDOM]
    assert filled.scores[0, 1:].tolist() == [0, 0, 0]


def test_random_picks_are_the_same_for_the_same_subscriber_and_campaign_only():
    users = [f"u{i}" for i in range(40)]

    def picks(campaign: str) -> np.ndarray:
        return fill(Slates.empty(40, 3), 3, pools(), seeds_of(users, campaign)).items

    assert np.array_equal(picks("a"), picks("a"))
    assert not np.array_equal(picks("a"), picks("b"))
    assert len({tuple(row) for row in picks("a").tolist()}) > 10


def test_editorial_slate_is_one_list_for_all_and_popular_when_nobody_chose():
    chosen = editorial_slates(pools(["i1"], ["i5", "i4"]), 2, 3)
    popular = editorial_slates(pools(["i1"]), 2, 3)

    assert names(chosen) == [["i5", "i4"]] * 2
    assert names(popular) == [["i1"]] * 2
    assert popular.reasons[0, 0] == Reason.POPULAR
    assert popular.rungs[0, 0] == Rung.EDITORIAL


def test_nothing_allowed_gives_empty_slates_and_no_error():
    nothing = pools(["i1"], ["i2"], [False] * len(IDS))

    assert not fill(slates_of(["", ""]), 2, nothing, seeds_of(["u"], "c")).items.any()
