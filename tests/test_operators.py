"""Pace by receiver: each has its own bucket, pause and breaker, and none slows another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reco.campaigns.operators import (
    BREAK_AFTER,
    BREAK_S,
    CLEAN,
    MOST_WAIT_S,
    PAUSES_S,
    Pace,
    Paces,
    is_throttled,
    operator_of,
)


class Clock:
    """Time that passes when we say so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("domain", "servers", "operator"),
    [
        ("Gmail.com", (), "gmail"),
        ("hotmail.co.uk", (), "microsoft"),
        ("yahoo.co.jp", (), "yahoo"),
        ("me.com", (), "apple"),
        ("shop.example", (), "other"),
        ("shop.example", ("aspmx.l.google.com",), "gmail"),
        ("shop.example", ("shop-example.mail.protection.outlook.com",), "microsoft"),
        ("notgmail.com", (), "other"),
        ("gmail.com.evil.example", (), "other"),
    ],
)
def test_who_takes_the_mail_of_a_domain(domain, servers, operator):
    assert operator == operator_of(domain, servers)


@pytest.mark.parametrize(
    ("reply", "throttled"),
    [
        ("421 4.3.2 Service not available", True),
        ("451 4.7.1 Try again later, greylisted", True),
        ("450 4.2.1 Mailbox busy", False),
        ("452 4.2.2 over quota, 1421 bytes", False),
    ],
)
def test_pace_is_told_from_a_busy_mailbox(reply, throttled):
    assert throttled is is_throttled(reply)


@given(st.floats(0.5, 200), st.integers(50, 400))
def test_the_rate_stays_within_five_percent_of_the_bucket(rate, mails):
    clock = Clock()
    pace = Pace(rate, clock)
    sent = []
    for _ in range(mails):
        clock.now += pace.reserve()
        sent.append(clock.now)

    observed = (mails - 1) / (sent[-1] - sent[0])
    assert observed == pytest.approx(rate, rel=0.05)


def test_too_fast_halves_the_pace_and_leaves_alone_for_longer_each_time():
    clock = Clock()
    pace = Pace(16.0, clock)
    for pause, rate in zip(PAUSES_S, (8.0, 4.0, 2.0, 1.0), strict=True):
        assert pause == pace.throttled()
        assert pause == pace.throttled()  # those under way say the same
        assert rate == pace.rate_per_s
        clock.now += pause
        assert 0 == pace.hold_s()
    pace.throttled()
    assert 1.0 == pace.rate_per_s  # a sixteenth is the least


def test_clean_mails_bring_the_pace_back_to_what_was_configured():
    clock = Clock()
    pace = Pace(10.0, clock)
    pace.throttled()
    clock.now += PAUSES_S[0]
    rates = []
    for _ in range(20 * CLEAN):
        pace.accepted()
        rates.append(pace.rate_per_s)

    assert rates == sorted(rates)
    assert 10.0 == rates[-1]
    assert PAUSES_S[0] == pace.throttled()


def test_refusals_by_policy_in_a_row_open_the_breaker_a_taken_mail_closes_it():
    clock = Clock()
    pace = Pace(None, clock)
    for _ in range(BREAK_AFTER - 1):
        assert not pace.refused_by_policy()
    pace.accepted()
    for _ in range(BREAK_AFTER - 1):
        assert not pace.refused_by_policy()

    assert pace.refused_by_policy()
    assert BREAK_S == pace.hold_s()


def test_one_receiver_that_is_left_alone_slows_no_other():
    paces = Paces({"gmail": 1.0}, Clock())
    paces.of("a@gmail.com").throttled()

    assert paces.of("b@googlemail.com").hold_s() > 0
    assert 0 == paces.of("c@yahoo.com").hold_s()
    assert [0.0] * 50 == [paces.of("d@shop.example").reserve() for _ in range(50)]


def test_more_mails_than_the_pace_takes_are_all_sent_in_the_end_and_never_faster():
    clock = Clock()
    pace = Pace(2, clock)
    waiting, sent = [clock.now] * 200, []
    while waiting:
        clock.now = waiting.pop(0)
        wait_s = pace.reserve()
        if wait_s > MOST_WAIT_S:
            waiting = sorted([*waiting, clock.now + wait_s])
        else:
            sent.append(clock.now + wait_s)

    assert len(sent) == 200
    assert 99 <= max(sent) - min(sent) <= 130
