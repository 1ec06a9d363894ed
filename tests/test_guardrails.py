"""Harm is seen early, and a harmless campaign is let go on."""

from dataclasses import replace

import numpy as np
import polars as pl

from reco.outcomes.bands import Bands
from reco.outcomes.guardrails import CEILING, Harm, guard, harm_of

CEILINGS = Bands().harm
BATCH = 10_000  # mails of each arm between two looks
LOOKS = 20


def looks(rng, rates, bounce=0.005):
    """Harm after each batch; rates of unsubscribing by arm."""
    arms = {arm: Harm(0) for arm in rates}
    for _ in range(LOOKS):
        for arm, rate in rates.items():
            old = arms[arm]
            arms[arm] = replace(
                old,
                mails=old.mails + BATCH,
                unsubscribe=old.unsubscribe + int(rng.binomial(BATCH, rate)),
                bounce=old.bounce + int(rng.binomial(BATCH, bounce)),
            )
        yield dict(arms)


def first_alarm(seed, rates):
    rng = np.random.default_rng(seed)
    for i, arms in enumerate(looks(rng, rates)):
        if any(g.harmful for g in guard(arms, "control", CEILINGS, 2 * BATCH * LOOKS)):
            return i + 1
    return None


def test_a_doubled_unsubscribe_rate_is_seen_within_two_batches():
    found = [first_alarm(seed, {"control": 0.004, "personal": 0.008}) for seed in range(100)]

    assert sum(n is not None and n <= 2 for n in found) >= 95, found


def test_a_harmless_campaign_is_seldom_paused():
    found = [first_alarm(seed, {"control": 0.004, "personal": 0.004}) for seed in range(400)]

    assert sum(n is not None for n in found) / 400 <= 0.05


def test_a_rate_above_its_ceiling_is_harm_without_any_control():
    found = guard({"personal": Harm(5_000, complaint=60)}, "control", CEILINGS, 20_000)

    assert [("complaint", CEILING)] == [(g.name, g.against) for g in found if g.harmful]
    assert "complaint rate of all arms, 1.20 %" in next(g.text for g in found if g.harmful)


def test_ten_events_are_too_few_to_pause():
    assert not any(g.harmful for g in guard({"a": Harm(9, 9, 0, 9)}, "a", CEILINGS, 100))


def test_harm_is_counted_once_a_mail_and_refusals_are_bounces():
    ledger = pl.DataFrame(
        {"user_id": ["a", "b", "c", "d", "e"], "arm": ["x", "x", "x", "y", "y"],
         "state": ["accepted", "accepted", "failed", "accepted", "queued"]}
    )  # fmt: skip
    events = pl.DataFrame(
        [("unsubscribe", "a"), ("bounce", "b"), ("bounce", "c"), ("complaint", "d")],
        schema=["type", "delivery_id"], orient="row",
    )  # fmt: skip

    assert {"x": Harm(3, 1, 0, 2), "y": Harm(1, 0, 1, 0)} == harm_of(ledger, events)
