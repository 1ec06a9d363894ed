"""Draws among candidates: every order is as likely, and the chance is written down."""

from collections import Counter

import numpy as np
from scipy import stats

from reco.campaigns.variants import in_places
from reco.experiments.assignment import HOLDOUT
from reco.models.slates import Reason
from reco.rules.exploring import drawn
from reco.rules.ladder import seeds_of
from serve.chunks import Choice, Request
from tests.small_shop import names, slates_of
from tests.small_world import NO_PROFILING, campaign, small_world
from tests.stages import Stages

POOL = ["i0", "i1", "i2", "i4", "i5"]


def many(n, campaign="c"):
    slates = slates_of(*[POOL] * n)
    return drawn(slates, np.ones(n, bool), seeds_of([f"u{i}" for i in range(n)], campaign))


def test_every_candidate_comes_to_every_place_alike():
    slates, chances = many(5_000)

    assert set(chances) == {1 / 5}
    for place in range(5):
        counts = Counter(row[place] for row in names(slates))
        assert stats.chisquare([counts[item] for item in POOL]).pvalue > 0.001
    pairs = Counter(tuple(row[:2]) for row in names(slates))
    assert len(pairs) == 20
    assert stats.chisquare(list(pairs.values())).pvalue > 0.001


def test_the_same_mail_is_drawn_the_same_way_again_and_another_campaign_otherwise():
    assert names(many(50)[0]) == names(many(50)[0])
    assert names(many(50)[0]) != names(many(50, "d")[0])


def test_whoever_does_not_explore_keeps_the_order_and_has_no_chance():
    slates = slates_of(POOL, POOL)
    mixed, chances = drawn(slates, np.array([False, True]), seeds_of(["a", "b"], "c"))

    assert names(mixed)[0] == POOL
    assert sorted(names(mixed)[1]) == POOL
    assert chances.tolist() == [0, 1 / 5]
    assert set(mixed.reasons[1]) == {Reason.EXPLORE}
    assert np.array_equal(drawn(slates, np.zeros(2, bool), seeds_of(["a", "b"], "c"))[1], [0, 0])


def test_empty_places_stay_last_and_do_not_count():
    slates, chances = drawn(slates_of(["i0", "i1", ""]), np.array([True]), seeds_of(["a"], "c"))

    assert sorted(names(slates)[0]) == ["i0", "i1"]
    assert slates.items[0, 2] == 0
    assert chances.tolist() == [0.5]


def test_drawn_items_have_slots_that_no_copy_has():
    assert [("place/0", "a", 0.2), ("place/1", "b", 0.2)] == [
        (one.slot, one.arm, one.propensity) for one in in_places(["a", "b"], 0.2, "other")
    ]


def test_mails_of_an_arm_that_explores_carry_the_chances_of_what_they_show(services):
    arms = [{"name": "learn", "weight": 1, "slate": "explore"}, {"name": "personal", "weight": 1}]
    spec = campaign("curious", arms=arms)
    people = ["u05", "u06", "u07", NO_PROFILING]
    request = Request(
        Choice.of(spec), people, ["learn", "personal", HOLDOUT, "learn"],
        campaign=spec.model_dump_json().encode(),
    )  # fmt: skip
    with small_world(services) as world:
        mails = Stages(world).assemble(request)

    drawn_places, *others = mails.copy
    assert [("place/0", 1 / 20), ("place/1", 1 / 20), ("place/2", 1 / 20)] == [
        (one.slot, one.propensity) for one in drawn_places
    ]
    assert mails.item_ids[0] == [one.arm for one in drawn_places]
    assert others == [(), (), ()]
    assert set(mails.slates.reasons[0]) == {Reason.EXPLORE}


def test_a_mail_that_the_ladder_had_to_fill_logs_no_chance(services):
    """Where the rules leave fewer candidates than picks, the rest is not drawn."""
    arms = [{"name": "learn", "weight": 1, "slate": "explore"}]
    spec = campaign("narrow", arms=arms, rules={"max_per_category": 1}, picks=6)
    request = Request(Choice.of(spec), ["u05"], ["learn"], campaign=spec.model_dump_json().encode())
    with small_world(services) as world:
        mails = Stages(world).assemble(request)

    assert len(mails.item_ids[0]) == 6
    assert len(set(mails.slates.reasons[0])) > 1
    assert [()] == mails.copy
