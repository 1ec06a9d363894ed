"""A new domain sends so many mails a day, over all campaigns, and no more."""

from datetime import UTC, date, datetime, timedelta

import pytest

from reco.campaigns.delivery import HandOff, Settled, State
from reco.campaigns.ledger import Ledger
from reco.campaigns.timing import WarmUp
from reco.campaigns.warmup import Quota, quota

START = date(2026, 11, 24)
PLAN = WarmUp(starts_on=START, per_day=(10, 20))


@pytest.mark.parametrize(("days", "mails"), [(-1, 0), (0, 10), (1, 20), (2, None), (400, None)])
def test_the_plan_names_each_day_and_ends(days, mails):
    assert mails == quota(PLAN, START + timedelta(days=days))


@pytest.mark.parametrize(("at_once", "largest"), [(3, 10)])
def test_senders_together_never_pass_a_day_s_quota(engine, database_url, at_once, largest):
    today = WarmUp(starts_on=datetime.now(UTC).date(), per_day=(largest,))
    claimed = 0
    with Ledger(database_url) as ledger:
        for name in ("one", "two"):
            ledger.enqueue(name, [(f"u{n:02d}", "a") for n in range(20)])
        for n in range(40):
            left = Quota(today, engine).left() or 0
            if not left:
                break
            claim = ledger.claim(("one", "two")[n % 2], min(left, at_once))
            ids = [delivery.user_id for delivery in claim.deliveries]
            mails = [HandOff(user, f"<{user}-{n}@a>", 1, [], [], [], 1) for user in ids]
            ledger.hand_off(("one", "two")[n % 2], claim.fence, mails)
            settled = [Settled(user, State.ACCEPTED, "250") for user in ids]
            ledger.settle(("one", "two")[n % 2], claim.fence, settled)
            claimed += len(ids)

    assert largest == claimed
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert Quota(today, engine, lambda: tomorrow).left() is None


def test_nothing_is_sent_before_the_first_day(engine):
    later = WarmUp(starts_on=datetime.now(UTC).date() + timedelta(days=1))

    assert 0 == Quota(later, engine).left()


def test_senders_that_ask_at_once_share_what_is_left(engine):
    today = WarmUp(starts_on=datetime.now(UTC).date(), per_day=(100,))
    one = Quota(today, engine)
    given = [one.left() or 0 for _ in range(20)]

    assert [50, 25, 12] == given[:3]
    assert 100 >= sum(given)
