"""The stages on real stores without Ray: what travels, who is withheld, what is shown."""

import pickle
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from reco.campaigns.delivery import delivery_id, recipient_of
from reco.campaigns.showing import Rules
from reco.database import SUBSCRIBERS
from reco.embedded import Services
from reco.features.history import day_of, from_events
from reco.models.slates import Reason, Rung
from reco.tables import EVENTS, item_keys
from serve.chunks import Choice, FeatureChunk, Mode, Request
from serve.picking import showing_of, unscored
from tests.small_world import (
    MAILED,
    NO_PROFILING,
    POPULAR,
    TRACKED,
    USERS,
    WITHHELD,
    World,
    campaign,
    small_world,
)
from tests.stages import Stages


@pytest.fixture(scope="module")
def world(services: Services) -> Iterator[World]:
    with small_world(services) as world:
        yield world


@pytest.fixture(scope="module")
def stages(world: World) -> Stages:
    return Stages(world)


def request(users=USERS, arm="personal", mode=Mode.CHECK, **changes) -> Request:
    spec = campaign(**changes)
    return Request(
        Choice.of(spec), list(users), [arm] * len(users), mode, spec.model_dump_json().encode()
    )


def test_who_may_not_be_written_to_is_withheld_with_the_reason(stages):
    made = stages.assemble(request())

    assert {w.delivery: w.reason for w in made.withheld} == WITHHELD
    assert made.deliveries == MAILED
    assert not made.broken


def test_unknown_subscribers_are_withheld_but_may_be_recommended_to(stages):
    assert stages.assemble(request(["nobody"])).withheld[0].reason == "unknown"
    chunk = stages.reader.read(request(["nobody"], mode=Mode.RECOMMEND))
    picked = stages.picker.pick(chunk, stages.scoring.score(chunk))

    assert (picked.slates.items != 0).all()


def test_no_mail_has_an_empty_place_and_each_is_for_its_own_recipient(stages, world):
    made = stages.assemble(request(picks=5))

    assert made.slates.items.shape == (len(MAILED), 5)
    assert (made.slates.items != 0).all()
    for delivery, address, message, item_ids in zip(
        made.deliveries, made.addresses, made.messages, made.item_ids, strict=True
    ):
        mail = message_from_bytes(message, policy=default)
        html = mail.get_body(("html",)).get_content()
        assert mail["To"].addresses[0].addr_spec == address == f"{delivery}@mail.example"
        assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert all(f"Thing number {int(i[-2:])}" in html for i in item_ids[:3])
        others = {other for other in MAILED if other != delivery}
        assert not any(f"{other}@mail.example" in html for other in others)


def test_the_same_request_makes_the_same_mail(stages):
    spec = {"as_of": "2017-12-04T00:00:00Z"}

    assert stages.assemble(request(**spec)).messages == stages.assemble(request(**spec)).messages


def test_without_a_model_the_ladder_fills_and_says_why(stages):
    made = stages.assemble(request())

    assert made.fallback == "no_model"
    assert set(np.unique(made.slates.rungs)) == {Rung.POPULAR}
    assert made.item_ids[0] == POPULAR[:3]


def test_the_editorial_arm_gets_the_editors_list(stages):
    chosen = ["item-33", "item-31", "item-32"]

    made = stages.assemble(request(arm="control", editorial=chosen))

    assert made.item_ids == [chosen] * len(MAILED)
    assert (made.slates.rungs == Rung.EDITORIAL).all()


def test_the_block_of_favourites_repeats_no_pick(stages):
    made = stages.assemble(request(["u05"], arm="control", picks=2))
    links = re.findall(r"/(item-\d\d)\?", made.rendered[0].text)

    assert made.item_ids[0] == POPULAR[:2]
    assert sorted(set(links)) == sorted(links) == POPULAR[:6]


def test_nothing_is_read_of_those_who_did_not_agree_to_profiling(stages):
    chunk = stages.reader.read(request([NO_PROFILING, "u05"]))

    assert chunk.personal.tolist() == [False, True]
    assert np.diff(chunk.histories.offsets)[0] == 0
    assert np.diff(chunk.histories.offsets)[1] > 0


def test_clicks_and_opens_are_followed_only_with_consent(stages, world):
    made = stages.assemble(request([TRACKED, "u05"]))
    tracked, plain = (mail.html for mail in made.rendered)

    assert f"{world.services.public_url}/c/" in tracked
    assert f"{world.services.public_url}/o/" in tracked
    assert "/c/" not in plain
    assert "/o/" not in plain


def test_rules_of_the_campaign_hold_in_every_rung(stages):
    rules = {"blocked_items": POPULAR[:2], "blocked_categories": ["aisle 3"], "max_per_category": 1}

    made = stages.assemble(request(rules=rules, picks=4))

    assert made.item_ids[0] == ["item-02", "item-04", "item-05", "item-06"]


def test_what_each_rule_took_is_told_for_a_single_mail(stages):
    rules = {"blocked_items": POPULAR[:2], "seen": "drop", "max_per_category": 2}

    made = stages.assemble(request(["u10"], rules=rules))

    assert sorted(made.removed["not_bought"]) == [f"item-{11 + j}" for j in range(5)]
    assert made.removed["per_category"][0] not in made.item_ids[0]
    assert "not_blocked" not in made.removed  # the ladder's pools hold nothing that is blocked


def test_bought_items_are_left_out_where_the_campaign_says_so(stages, world):
    made = stages.assemble(request(["u05"], rules={"seen": "drop"}))
    own = [f"item-{(7 * 5 + j) % 59:02d}" for j in range(5)]

    assert not set(made.item_ids[0]) & set(own)


def test_showings_are_counted_only_when_mails_are_for_sending(stages, world):
    rules = {"frequency_cap": {"times": 1, "days": 7}}
    looked = stages.assemble(request(["u06"], rules=rules))
    again = stages.assemble(request(["u06"], rules=rules, campaign_id="second"))

    assert looked.item_ids == again.item_ids
    sent = stages.assemble(request(["u06"], mode=Mode.SEND, rules=rules))
    after = stages.assemble(request(["u06"], rules=rules, campaign_id="second"))
    assert sent.item_ids == looked.item_ids
    assert not set(after.item_ids[0]) & set(sent.item_ids[0])


def test_each_mail_of_a_campaign_counts_and_one_that_failed_gives_back_its_own(stages):
    rules = {"frequency_cap": {"times": 1, "days": 7}}
    mails = [delivery_id("u22", key) for key in ("mon", "tue", "wed")]
    one, *rest = mails

    made = stages.assemble(request([one], mode=Mode.SEND, rules=rules))
    more = stages.assemble(request(rest, mode=Mode.SEND, rules=rules))
    again = stages.assemble(request(mails, mode=Mode.SEND, rules=rules))

    shown = made.item_ids + more.item_ids
    assert len({item for items in shown for item in items}) == 9
    assert again.item_ids == shown
    showing = showing_of(
        Choice("spring", 3, Rules.model_validate(rules)), day_of(datetime.now(UTC))
    )
    stages.picker._caps.forget(showing, [rest[0]])
    other = stages.assemble(request(["u22"], rules=rules, campaign_id="summer"))
    assert other.item_ids[0] == shown[1]


def test_a_cap_holds_while_anything_else_is_in_stock(stages):
    rules = {"frequency_cap": {"times": 1, "days": 7}}

    shown = [
        stages.assemble(
            request(["u23"], mode=Mode.SEND, rules=rules, campaign_id=f"day{n}")
        ).item_ids[0]
        for n in range(20)
    ]

    assert len({item for items in shown[:19] for item in items}) == 3 * 19
    assert len(shown[19]) == 3  # of the 59 items two are left; an empty place would be worse


def test_what_was_bought_is_not_shown_while_anything_else_is_in_stock(stages, world):
    everything = [
        {
            "event_id": f"all-{item}",
            "user_id": "u24",
            "type": "purchase",
            "timestamp": datetime(2017, 11, 1, tzinfo=UTC),
            "item_id": item,
            "value": 1.0,
        }
        for item in POPULAR
    ]
    rows = [dict.fromkeys(EVENTS.names) | row for row in everything]
    events = pl.DataFrame(rows, schema=pl.from_arrow(EVENTS.empty_table()).schema)
    world.online.load(["u24"], from_events(events, ["u24"]))

    made = stages.assemble(request(["u24"], rules={"seen": "drop", "max_per_category": 1}, picks=6))

    assert not set(made.item_ids[0][:5]) & set(POPULAR)
    assert {int(i[-2:]) % 5 for i in made.item_ids[0][:5]} == set(range(5))
    assert len(made.item_ids[0]) == 6  # there are five categories


def test_segments_look_at_profile_and_features(stages):
    segments = [
        {"name": "north", "when": {"region": "north"}},
        {"name": "buyer", "when": {"count_purchase_90d": {"min": 10}}},
    ]
    spec = {"segments": segments, "as_of": "2017-12-04T00:00:00Z"}

    chunk = stages.reader.read(request(["u05", "u06", "nobody"], mode=Mode.RECOMMEND, **spec))

    assert chunk.recipients.segments == ["north", "buyer", "other"]


def test_a_mail_that_cannot_be_made_breaks_alone(stages, world):
    with world.engine.begin() as connection:
        connection.exec_driver_sql(
            "update subscribers set email = 'élise@mail.example' where user_id = 'u07'"
        )

    made = stages.assemble(request(["u07", "u08"]))

    assert [w.delivery for w in made.broken] == ["u07"]
    assert made.deliveries == ["u08"]
    assert made.slates.items.shape == (1, 3)


@settings(max_examples=15, deadline=None)
@given(
    order=st.permutations(MAILED).map(lambda users: users[:9]),
    cut=st.integers(1, 8),
)
def test_a_mail_does_not_depend_on_its_neighbours(stages, order, cut):
    spec = {"as_of": "2017-12-04T00:00:00Z"}
    whole = stages.assemble(request(order, **spec))
    parts = [stages.assemble(request(part, **spec)) for part in (order[:cut], order[cut:])]

    mails = {d: m for part in parts for d, m in zip(part.deliveries, part.messages, strict=True)}
    assert mails == dict(zip(whole.deliveries, whole.messages, strict=True))


def test_chunks_survive_the_journey_between_processes(stages):
    chunk = stages.reader.read(request())
    scored = unscored(chunk, "scorer_late")
    picked = stages.picker.pick(chunk, scored)
    made = stages.maker.make(chunk, picked)

    for thing in (chunk, scored, picked, made):
        copy = pickle.loads(pickle.dumps(thing))
        assert type(copy) is type(thing)
    assert picked.fallback == "scorer_late"
    assert pickle.loads(pickle.dumps(made)).messages == made.messages
    assert isinstance(pickle.loads(pickle.dumps(chunk)), FeatureChunk)


def test_a_delivery_knows_its_recipient():
    assert recipient_of(delivery_id("u1", "order-7")) == "u1"
    assert delivery_id("u1") == "u1"


def test_popular_items_do_not_need_the_store_a_second_time(stages, world):
    assert stages.picker._popular.keys().tolist() == item_keys(POPULAR).tolist()


def test_promoted_items_stand_in_their_quota_and_no_rule_bends_for_them(stages, world):
    promoted = {"items": ["item-50", "item-51", "item-59"], "share": 0.5, "slots": 1}
    rules = {"promoted": promoted, "blocked_items": ["item-51"]}

    made = stages.assemble(request(rules=rules))
    control = stages.assemble(request(arm="control", rules=rules))

    last = [items[-1] for items in made.item_ids]
    promotions = (made.slates.reasons == Reason.PROMOTED).sum(axis=1)
    assert set(last) & {*promoted["items"]} == {"item-50"}  # the others: blocked, out of stock
    assert promotions.max() == 1
    assert [item == "item-50" for item in last] == promotions.astype(bool).tolist()
    assert 0 < promotions.sum() < len(MAILED) / 2
    assert all(len(items) == 3 for items in made.item_ids)
    assert not (control.slates.reasons == Reason.PROMOTED).any()


def test_a_category_is_shown_so_often_over_all_campaigns_and_given_back(stages, world):
    caps = {"category_cap": {"times": 1, "days": 7}}
    first = stages.assemble(request(["u05"], mode=Mode.SEND, rules=caps))
    second = stages.assemble(request(["u05"], mode=Mode.SEND, rules=caps, campaign_id="summer"))
    aisles = [{int(i[-2:]) % 5 for i in made.item_ids[0]} for made in (first, second)]

    assert first.item_ids[0] == POPULAR[:3]
    assert aisles[0] == {0, 1, 2}
    assert aisles[1] == {3, 4}
    again = stages.assemble(request(["u05"], mode=Mode.SEND, rules=caps))
    assert again.item_ids == first.item_ids
    showing = showing_of(Choice("spring", 3, Rules.model_validate(caps)), day_of(datetime.now(UTC)))
    stages.picker._caps.forget(showing, ["u05"])
    third = stages.assemble(request(["u05"], mode=Mode.SEND, rules=caps, campaign_id="autumn"))
    assert third.item_ids[0] == POPULAR[:3]


def test_what_a_subscriber_refuses_is_shown_to_them_in_no_rung_and_to_others_as_before(
    stages, world
):
    refused = {"refused_items": POPULAR[:1], "refused_categories": "aisle 1, aisle 2"}
    with world.engine.begin() as connection:
        mine = SUBSCRIBERS.c.user_id == "u20"
        connection.execute(update(SUBSCRIBERS).where(mine).values(attributes=refused))

    for arm in ("personal", "control"):
        made = stages.assemble(request(["u20", "u21"], arm=arm, picks=4))
        assert made.item_ids[0] == ["item-03", "item-04", "item-05", "item-08"]
        assert made.item_ids[1] == POPULAR[:4]
        assert not re.search(r"item-0[012]|item-0[67]", made.rendered[0].text)
