"""Item frequency caps on a real Valkey: checked and reserved in one call, released if not sent."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import redis as redis_client

from reco.errors import ServiceUnavailable
from reco.rules.caps import DAY_S, KEPT_DAYS, Caps, Showing, first
from reco.tables import cap_key, item_keys

DAY = 17_500
ITEMS = np.tile(item_keys(["a", "b", "c", "d"]), (2, 1))
USERS = ["ann", "bob"]


def showing(by: str, day: int = DAY, times: int = 1, days: int = 7) -> Showing:
    return Showing(by, day, times, days)


def test_first_uncapped_candidates_are_chosen_and_the_next_campaign_moves_on(redis):
    caps = Caps(redis)

    one = caps.choose(showing("one"), USERS, ITEMS, 2, reserve=True)
    two = caps.choose(showing("two"), USERS, ITEMS, 2, reserve=True)
    three = caps.choose(showing("three"), USERS, ITEMS, 2, reserve=True)

    assert one.tolist() == [[True, True, False, False]] * 2
    assert two.tolist() == [[False, False, True, True]] * 2
    assert not three.any()


def test_looking_reserves_nothing(redis):
    caps = Caps(redis)

    for _ in range(3):
        assert caps.choose(showing("one"), USERS, ITEMS, 1, reserve=False)[:, 0].all()
    assert redis.keys() == []


def test_reserving_again_for_the_same_campaign_counts_once(redis):
    caps = Caps(redis)
    for _ in range(3):
        caps.choose(showing("one", times=2), USERS, ITEMS[:, :1], 1, reserve=True)

    assert caps.choose(showing("two", times=2), USERS, ITEMS[:, :1], 1, reserve=True).all()
    assert not caps.choose(showing("three", times=2), USERS, ITEMS[:, :1], 1, reserve=True).any()


def test_window_slides_and_the_server_forgets(redis):
    caps = Caps(redis)
    caps.choose(showing("one"), USERS, ITEMS[:, :1], 1, reserve=True)

    assert not caps.choose(showing("two", DAY + 6), USERS, ITEMS[:, :1], 1, reserve=False).any()
    assert caps.choose(showing("two", DAY + 7), USERS, ITEMS[:, :1], 1, reserve=False).all()
    assert 0 < redis.ttl(cap_key("ann")) <= KEPT_DAYS * DAY_S


def test_a_short_window_does_not_forget_for_a_longer_one(redis):
    caps = Caps(redis)
    caps.choose(showing("one"), USERS, ITEMS[:, :1], 1, reserve=True)
    caps.choose(showing("two", DAY + 8, days=2), USERS, ITEMS[:, :1], 1, reserve=True)

    late = showing("three", DAY + 9, times=2, days=28)

    assert not caps.choose(late, USERS, ITEMS[:, :1], 1, reserve=False).any()


def test_what_is_long_past_is_dropped(redis):
    caps = Caps(redis)
    many = item_keys([f"x{i}" for i in range(260)]).reshape(1, -1)
    for start in range(0, 260, 52):
        caps.choose(showing("one"), ["ann"], many[:, start : start + 52], 52, reserve=True)

    caps.choose(showing("two", DAY + 200), USERS, ITEMS[:, :1], 1, reserve=True)

    assert redis.hlen(cap_key("ann")) == 1


def test_release_gives_back_only_what_this_campaign_took(redis):
    caps = Caps(redis)
    for campaign in ("one", "two"):
        caps.choose(showing(campaign, times=2), USERS, ITEMS[:, :1], 1, reserve=True)

    caps.forget(showing("two", times=2), ["ann"])
    caps.forget(showing("stranger", times=2), ["bob"])

    after = caps.choose(showing("three", times=2), USERS, ITEMS[:, :1], 1, reserve=False)
    assert after.tolist() == [[True], [False]]
    caps.forget(showing("one", times=2), ["ann"])
    assert not redis.exists(cap_key("ann"))


def test_campaigns_at_once_never_exceed_the_cap(redis):
    caps = Caps(redis)
    users = [f"u{i}" for i in range(50)]
    items = np.tile(item_keys(["a", "b"]), (50, 1))

    with ThreadPoolExecutor(8) as pool:
        chosen = list(
            pool.map(
                lambda i: caps.choose(showing(f"c{i}", times=3), users, items, 1, reserve=True),
                range(12),
            )
        )

    assert np.sum(chosen, axis=0).tolist() == [[3, 3]] * 50


def test_empty_places_are_never_chosen(redis):
    items = ITEMS.copy()
    items[:, :2] = 0

    assert (
        Caps(redis).choose(showing("one"), USERS, items, 1, reserve=True).tolist()
        == [[False, False, True, False]] * 2
    )
    assert first(items, 1).tolist() == [[False, False, True, False]] * 2
    assert Caps(redis).choose(showing("one"), [], ITEMS[:0], 1, reserve=True).shape == (0, 4)


def test_an_unreachable_redis_is_named():
    caps = Caps(redis_client.Redis(port=1))

    with pytest.raises(ServiceUnavailable, match="Redis does not answer"):
        caps.choose(showing("one"), USERS, ITEMS, 1, reserve=True)


def test_a_redis_that_takes_no_writes_is_named(redis):
    redis.config_set("min-replicas-to-write", 1)
    try:
        with pytest.raises(ServiceUnavailable, match="NOREPLICAS"):
            Caps(redis).choose(showing("one"), USERS, ITEMS, 1, reserve=True)
    finally:
        redis.config_set("min-replicas-to-write", 0)
