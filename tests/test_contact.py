"""Message cap and quiet hours: nobody is written to too often, or at night."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reco.campaigns.timing import QuietHours
from reco.rules.contact import Contacts

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
WEEK = (2, 7)


def ask(contacts: Contacts, campaign_id: str, user="ann", *, cap=WEEK, now=NOW, reserve=True):
    (may,) = contacts.may_write(campaign_id, [user], [user], now, cap, reserve=reserve)
    return may


def test_the_third_mail_in_a_week_waits_for_the_first_to_be_a_week_old(redis):
    contacts = Contacts(redis)

    assert ask(contacts, "a")
    assert ask(contacts, "b", cap=None, now=NOW + timedelta(days=1))  # it has no cap, and counts
    assert not ask(contacts, "c", now=NOW + timedelta(days=2))
    assert ask(contacts, "c", "bob")
    assert not ask(contacts, "c", now=NOW + timedelta(days=6, hours=23))
    assert ask(contacts, "c", now=NOW + timedelta(days=7, minutes=1))
    assert not ask(contacts, "d", now=NOW + timedelta(days=7, minutes=2))


def test_a_mail_that_is_made_again_counts_once_and_a_look_counts_nothing(redis):
    contacts = Contacts(redis)

    assert all(ask(contacts, "a") for _ in range(5))
    assert all(ask(contacts, "b", reserve=False) for _ in range(5))
    assert ask(contacts, "c")
    assert ask(contacts, "c")
    assert not ask(contacts, "b")


def test_what_was_not_sent_is_given_back(redis):
    contacts = Contacts(redis)
    assert ask(contacts, "a")
    assert ask(contacts, "b")

    contacts.release("b", ["ann", "nobody"], ["ann", "nobody"])

    assert ask(contacts, "c")
    assert not ask(contacts, "d")
    assert redis.ttl("reco:m:ann") > 0


def test_campaigns_at_once_never_go_over_the_cap(redis):
    contacts, users = Contacts(redis), [f"u{n}" for n in range(50)]

    def one(campaign: int) -> list[bool]:
        return contacts.may_write(f"c{campaign}", users, users, NOW, (3, 7), reserve=True)

    with ThreadPoolExecutor(8) as pool:
        granted = list(pool.map(one, range(16)))

    assert [sum(column) for column in zip(*granted, strict=True)] == [3] * len(users)


ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Pacific/Apia",
    "Australia/Lord_Howe",
    "",
    "no/such zone",
]


# When clocks change: in Berlin, in New York, on Lord Howe (by a half).
CHANGES = [
    datetime(2026, 3, 29, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 3, 8, 7, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 4, 4, 15, tzinfo=UTC),
    datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
]


@given(
    now=st.integers(0, 365 * 1_440).map(lambda m: NOW + timedelta(minutes=m))
    | st.builds(
        lambda change, minutes: change + timedelta(minutes=minutes),
        st.sampled_from(CHANGES),
        st.integers(-180, 180),
    ),
    starts=st.integers(0, 1_439).map(lambda m: time(m // 60, m % 60)),
    ends=st.integers(0, 1_439).map(lambda m: time(m // 60, m % 60)),
    zone=st.sampled_from(ZONES),
)
def test_quiet_hours_end_when_they_say_and_nobody_is_held_longer_than_a_day(
    now, starts, ends, zone
):
    if starts == ends:
        return
    quiet = QuietHours(starts=starts, ends=ends, timezone="Asia/Tokyo")
    until = quiet.until(now, zone)

    if until is None:
        return
    there = until.astimezone(ZoneInfo(zone if "/" in zone and " " not in zone else "Asia/Tokyo"))
    assert now < until <= now + timedelta(hours=25)
    # In spring an hour of the night does not exist.
    assert abs(timedelta(hours=there.hour - ends.hour, minutes=there.minute - ends.minute)) <= (
        timedelta(hours=1)
    )


@pytest.mark.parametrize(("now", "until"), [("00:10", "00:30"), ("01:10", "01:30")])
def test_in_the_hour_that_comes_twice_quiet_hours_still_end_later(now, until):
    quiet = QuietHours(starts=time(21), ends=time(2, 30))
    first, second = (datetime.fromisoformat(f"2026-10-25T{clock}Z") for clock in (now, until))

    assert quiet.until(first, "Europe/Berlin") == second


@pytest.mark.parametrize(
    ("hour", "until"),
    [(20, None), (21, 32), (23, 32), (24, 32), (31, 32), (32, None)],
)
def test_the_night_of_the_recipient_counts(hour, until):
    quiet = QuietHours(starts=time(21), ends=time(8))
    midnight = datetime(2026, 1, 5, tzinfo=ZoneInfo("America/New_York"))

    found = quiet.until((midnight + timedelta(hours=hour)).astimezone(UTC), "America/New_York")

    assert found == (until and (midnight + timedelta(hours=until)).astimezone(UTC))
