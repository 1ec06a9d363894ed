"""A campaign's harm as read from a real ledger and a real lake."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from reco.campaigns.delivery import HandOff, Settled, State
from reco.campaigns.ledger import Ledger
from reco.outcomes.bands import Bands
from reco.outcomes.watch import Watch
from reco.tables import EVENTS
from tests.small_world import campaign

NOW = datetime.now(UTC)


@pytest.fixture
def sent(engine, database_url):
    """A campaign of 400 mails, half an arm each; the last ten of either are refused."""
    rows = [(f"{arm[0]}{i:03d}", arm) for arm in ("control", "personal") for i in range(200)]
    with Ledger(database_url) as ledger:
        ledger.enqueue("spring", rows)
        claim = ledger.claim("spring", 400)
        mails = [HandOff(u, f"<{u}>", 1, ["i"], [0.5], [0], 1000) for u, _ in rows]
        ledger.hand_off("spring", claim.fence, mails)
        ended = [(u, State.FAILED if int(u[1:]) >= 190 else State.ACCEPTED) for u, _ in rows]
        ledger.settle("spring", claim.fence, [Settled(u, state) for u, state in ended])


def left(lake, users, kind="unsubscribe", campaign_id="spring", at=NOW):
    rows = [
        dict.fromkeys(EVENTS.names)
        | {"event_id": f"{kind}-{u}-{at}", "user_id": u, "type": kind, "timestamp": at,
           "campaign_id": campaign_id, "delivery_id": u}
        for u in users
    ]  # fmt: skip
    lake.append(pl.DataFrame(rows, schema=pl.from_arrow(EVENTS.empty_table()).schema))


def trouble(engine, lake, **bands):
    limits = Bands(bounce_ceiling=0.2, **bands)
    return Watch(campaign(), NOW - timedelta(hours=1), engine, lake, limits).trouble()


def test_nothing_is_wrong_with_a_few_unsubscriptions(engine, lake, sent):
    left(lake, ["p001", "c001"])

    assert "" == trouble(engine, lake)


def test_many_unsubscriptions_of_one_arm_are_trouble(engine, lake, sent):
    left(lake, [f"p{i:03d}" for i in range(60)])

    said = trouble(engine, lake, unsubscribe_ceiling=0.5)

    assert "The unsubscribe rate of personal, 30.00 %, is surely above that of control" in said


def test_others_old_and_repeated_events_do_not_count(engine, lake, sent):
    many = [f"p{i:03d}" for i in range(60)]
    left(lake, many, campaign_id="autumn")
    left(lake, many, at=NOW - timedelta(days=2))
    left(lake, ["nobody", *many[:4]])
    left(lake, many[:4], at=NOW - timedelta(minutes=1))

    assert "" == trouble(engine, lake)


def test_refused_mails_are_bounces(engine, lake, sent):
    assert (
        "bounce rate of all arms, 5.00 %"
        in Watch(campaign(), NOW, engine, lake, Bands(bounce_ceiling=0.001)).trouble()
    )


def test_a_campaign_without_mails_is_in_no_trouble(engine, lake):
    assert "" == trouble(engine, lake)


def test_looks_are_spaced(engine, lake, sent):
    watch = Watch(campaign(), NOW, engine, lake, Bands(bounce_ceiling=0.001))

    assert watch.trouble()
    assert "" == watch.trouble()
