"""Copy that learns: drawn with a propensity, logged, judged by clicks, and better next time."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from pydantic import ValidationError
from sqlalchemy import select

from reco.campaigns.campaign import OTHER
from reco.campaigns.delivery import HandOff, Settled, State
from reco.campaigns.ledger import Ledger
from reco.campaigns.variants import Variants
from reco.database import COPY_CHOICES, SUBSCRIBERS
from reco.outcomes.copy_learning import learned
from reco.outcomes.copy_log import CopyLog
from reco.tables import EVENTS
from tests.small_world import campaign

SLOTS = {"subject": {"plain": "Your picks", "asking": "What is for dinner?"}}
USERS = [f"v{i:04d}" for i in range(600)]


def trying(name="monday", **changes):
    return campaign(name, variants={"key": "weekly", "slots": SLOTS} | changes)


def drawn(variants, salt="monday", segment=OTHER):
    return [variants.choose(salt, user, segment)[0] for user in USERS]


def test_without_evidence_arms_are_equal_and_a_recipient_keeps_theirs():
    variants = trying().variants

    counts = Counter(one.arm for one in drawn(variants))

    assert min(counts.values()) > 250
    assert {0.5} == {one.propensity for one in drawn(variants)}
    assert drawn(variants) == drawn(variants)
    assert drawn(variants) != drawn(variants, "tuesday")


def test_learned_weights_are_those_of_the_segment():
    weights = {"subject": {"buyer": {"plain": 0.9, "asking": 0.1}}}
    variants = Variants.model_validate({"slots": SLOTS, "weights": weights})

    buyers = drawn(variants, segment="buyer")

    assert sum(one.arm == "plain" for one in buyers) > 500
    assert {("plain", 0.9), ("asking", 0.1)} == {(c.arm, round(c.propensity, 9)) for c in buyers}
    assert {0.5} == {one.propensity for one in drawn(variants)}


def test_slots_are_drawn_independently():
    slots = SLOTS | {"cta": {"shop": "Shop", "look": "Look"}}
    variants = Variants.model_validate({"slots": slots})

    pairs = Counter(tuple(c.arm for c in variants.choose("x", user, OTHER)) for user in USERS)

    assert len(pairs) == 4
    assert min(pairs.values()) > 110


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"slots": {}}, "at least 1"),
        ({"slots": {"subject": {"one": "a"}}}, "at least two arms"),
        ({"floor": 0.49, "slots": {"subject": dict.fromkeys("abc", "x")}}, "leave no choice"),
        ({"slots": {n: dict.fromkeys("abc", "x") for n in ("k", "l", "m")}}, "27 combinations"),
        ({"slots": {"subject": {"a": "x\nBcc: y", "b": "y"}}}, "pattern"),
    ],
)
def test_what_cannot_be_tried_is_refused(changes, said):
    with pytest.raises(ValidationError, match=said):
        trying(**changes)


@pytest.fixture
def sent(engine, database_url, lake):
    """A campaign that was sent a week ago; a third of the readers of `asking` clicked, no others.

    Everybody is followed but the last hundred."""
    one = trying()
    with engine.begin() as connection:
        rows = [{"user_id": u, "consent_tracking": i < 500} for i, u in enumerate(USERS)]
        connection.execute(SUBSCRIBERS.insert(), rows)
    choices = {user: one.variants.choose(one.id, user, OTHER) for user in USERS}
    CopyLog(engine).record(one, choices)
    with Ledger(database_url) as ledger:
        ledger.enqueue(one.id, [(user, "personal") for user in USERS])
        fence = ledger.claim(one.id, 600).fence
        ledger.hand_off(one.id, fence, [HandOff(u, u, 1, ["i"], [0.1], [0], 9) for u in USERS])
        ledger.settle(one.id, fence, [Settled(u, State.ACCEPTED) for u in USERS])
    clickers = [u for i, u in enumerate(USERS) if choices[u][0].arm == "asking" and i % 3 == 0]
    programs = [u for u in USERS if choices[u][0].arm == "plain"]
    _click(lake, clickers, "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Firefox/128.0")
    _click(lake, programs, "python-requests/2.32")
    return one


def _click(lake, users, agent):
    at = datetime.now(UTC) + timedelta(hours=1)
    rows = [
        dict.fromkeys(EVENTS.names)
        | {"event_id": f"{user}-{agent}", "user_id": user, "type": "click", "slot": 0,
           "timestamp": at, "campaign_id": "monday", "delivery_id": user,
           "attributes": json.dumps({"user_agent": agent})}
        for user in users
    ]  # fmt: skip
    lake.append(pl.DataFrame(rows, schema=pl.from_arrow(EVENTS.empty_table()).schema))


def test_the_next_campaign_of_the_key_prefers_what_persons_clicked(engine, lake, sent):
    later = datetime.now(UTC) + timedelta(hours=80)

    after = learned(trying("tuesday"), CopyLog(engine), lake, later).variants

    weights = after.weights["subject"][OTHER]
    assert weights["asking"] > 0.9
    assert weights["plain"] == pytest.approx(0.05, abs=0.01)
    assert sum(one.arm == "asking" for one in drawn(after, "tuesday")) > 500


def test_an_open_window_is_no_evidence(engine, lake, sent):
    after = learned(trying("tuesday"), CopyLog(engine), lake).variants

    assert {"plain": 0.5, "asking": 0.5} == after.weights["subject"][OTHER]


def test_another_key_knows_nothing_of_it(engine, lake, sent):
    later = datetime.now(UTC) + timedelta(hours=80)

    after = learned(trying("other", key="daily"), CopyLog(engine), lake, later).variants

    assert {"plain": 0.5, "asking": 0.5} == after.weights["subject"][OTHER]


def test_only_readers_who_are_followed_are_evidence(engine, lake, sent):
    outcomes = CopyLog(engine).outcomes("weekly", lake)

    assert 500 == outcomes.height
    assert (
        outcomes["succeeded_at"].is_not_null().sum()
        == outcomes.filter(
            (pl.col("arm") == "asking") & pl.col("succeeded_at").is_not_null()
        ).height
    )


def test_a_choice_that_was_logged_stays(engine):
    one = trying()
    first = one.variants.choose(one.id, "v", OTHER)
    other = one.variants.choose(one.id, "w", "buyer")
    log = CopyLog(engine)

    log.record(one, {"v": first})
    log.record(one, {"v": other})

    with engine.connect() as connection:
        rows = connection.execute(select(COPY_CHOICES)).all()
    assert [(first[0].arm, OTHER)] == [(row.arm, row.segment) for row in rows]


def test_a_campaign_without_variants_stays_as_it_is(engine, lake):
    plain = campaign()

    assert plain is learned(plain, CopyLog(engine), lake)
