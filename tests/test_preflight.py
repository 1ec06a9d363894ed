"""Preflight: what blocks a send, what is only said."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from sqlalchemy import insert

from reco.campaigns.campaign import Campaign
from reco.campaigns.preflight import MAILS, AudienceCounts, Preflight
from reco.database import DELIVERIES
from reco.events.schema import conform
from reco.models.slates import Rung
from reco.outcomes.complaints import Complaints, complaints_lately
from reco.tables import EVENTS


def campaign(**changes: object) -> Campaign:
    """A campaign of two arms that shows two items."""
    values = {
        "id": "c",
        "template": "digest",
        "from_name": "Shop",
        "from_email": "shop@example.com",
        "postal_address": "1 Street, Town",
        "picks": 2,
        "arms": [
            {"name": "control", "weight": 1, "slate": "editorial"},
            {"name": "personal", "weight": 1, "slate": "model"},
        ],
    }
    return Campaign.model_validate(values | changes)


def mails(n: int = 10, **columns: object) -> pl.DataFrame:
    """n good mails, every second one personal, with some columns replaced in all of them."""
    row = {"rung": Rung.LIVE, "items": ["a", "b"], "size_bytes": 25 * 1024, "missing": []}
    row |= {"fallback": "", "capped": False} | columns
    rows = [{"user_id": f"u{i}", "arm": "personal" if i % 2 else "control"} | row for i in range(n)]
    return pl.DataFrame(rows, schema=MAILS)


def judge(rows: pl.DataFrame, **changes: object) -> Preflight:
    """Preflight of an audience of just these mails."""
    return Preflight.of(rows, campaign(**changes), AudienceCounts(len(rows)), mailable_items=8)


def test_a_good_campaign_may_be_sent() -> None:
    report = judge(mails())

    assert report.ok
    assert report.findings.by_arm == {"control": 5, "personal": 5}
    assert report.findings.by_rung == {"live": 5}
    assert report.findings.coverage == 2 / 8
    assert report.findings.size_kb == {"p50": 25.0, "p95": 25.0, "max": 25.0}
    assert report.as_dict()["ok"] is True


@pytest.mark.parametrize(
    ("rows", "changes", "says"),
    [
        (mails(0), {}, "Nobody would get a mail."),
        (mails(items=["a", ""]), {}, "10 mails would show fewer items than picks."),
        (mails(items=["a"]), {}, "10 mails would show fewer items than picks."),
        (mails(items=["a", "bad"]), {"rules": {"blocked_items": ["bad"]}}, "blocked item"),
        (mails(rung=Rung.POPULAR), {}, "100.0% of the personal mails fall back; the limit is"),
        (mails(size_bytes=91 * 1024), {}, "100.0% of the mails exceed 90 KB"),
        (mails(missing=["user.first_name"]), {}, "of the mails lack user.first_name"),
        (pl.concat([mails(1), mails(1)]), {}, "2 mails go to recipients who have another one."),
    ],
)
def test_a_fault_blocks_the_send(rows: pl.DataFrame, changes: dict[str, object], says: str) -> None:
    report = judge(rows, **changes)

    assert not report.ok
    assert any(says in problem for problem in report.problems)


def test_limits_are_the_campaigns_own() -> None:
    rows = mails(rung=Rung.RANDOM, size_bytes=200 * 1024, missing=["x"])
    loose = {"fallback_share": 1, "over_size_share": 1, "missing_share": 1}

    assert len(judge(rows).problems) == 3
    assert judge(rows, limits=loose).ok


def test_the_editorial_arm_is_no_fallback() -> None:
    rows = mails().with_columns(
        rung=pl.when(pl.col("arm") == "control")
        .then(Rung.EDITORIAL.value)
        .otherwise(Rung.FRESH.value)
    )

    assert judge(rows).findings.fallback_share == 0


def test_a_recipient_without_a_mail_is_noticed() -> None:
    report = Preflight.of(mails(9), campaign(), AudienceCounts(10))

    assert report.problems == ("10 recipients can be mailed, 9 mails could be made.",)


def test_who_is_left_out_is_said_but_blocks_nothing() -> None:
    audience = AudienceCounts(14, no_address=1, no_consent=2, suppressed=1)
    report = Preflight.of(mails(), campaign(), audience)

    assert report.ok
    assert len(report.notes) == 3


def test_invalid_addresses_count_against_those_who_have_one() -> None:
    audience = AudienceCounts(13, no_address=2, invalid_address=1)
    report = Preflight.of(mails(), campaign(), audience)

    assert report.problems == ("9.1% of the addresses are invalid; the limit is 2.0%.",)


def test_rows_without_a_column_are_refused() -> None:
    with pytest.raises(ValueError, match="missing"):
        judge(mails().drop("missing"))


def test_it_says_why_mails_fall_back_and_how_often_caps_bind() -> None:
    rows = mails(4, rung=Rung.POPULAR, fallback="no_model", capped=True)
    audience = AudienceCounts(total=10, capped=6)

    report = Preflight.of(rows, campaign(limits={"fallback_share": 1.0}), audience)

    assert report.findings.by_fallback == {"no_model": 2}
    assert report.problems == (
        "60.0% of the audience had enough mails (message_cap); the limit is 50.0%.",
    )
    assert "6 had enough mails lately (message_cap)." in report.notes
    assert "The frequency cap takes candidates from 4 mails." in report.notes
    assert "2 mails of the model's arms fall back: no_model." in report.notes


@pytest.mark.parametrize(
    ("complaints", "mails", "too_many"),
    [(0, 0, False), (2, 100, False), (3, 1_000, False), (4, 1_000, True), (30, 10_000, False)],
)
def test_complaints_beyond_what_providers_allow_are_told_from_chance(complaints, mails, too_many):
    assert Complaints(complaints, mails).exceed(0.003) is too_many


def test_complaints_of_the_last_month_are_counted_once_a_mail(engine, lake) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    ages = [1, 1, 2, 40]
    rows = [
        {
            "event_id": f"e{n}",
            "user_id": "u",
            "type": "complaint",
            "timestamp": now - timedelta(days=age),
            "campaign_id": "c",
            "delivery_id": f"d{age}",
        }
        for n, age in enumerate(ages)
    ]
    lake.append(conform(pl.DataFrame(rows), EVENTS))
    with engine.begin() as connection:
        connection.execute(
            insert(DELIVERIES),
            [
                {
                    "campaign_id": "c",
                    "user_id": f"d{age}",
                    "arm": "a",
                    "state": "accepted",
                    "settled_at": now - timedelta(days=age),
                }
                for age in (1, 2, 3, 40)
            ],
        )

    assert complaints_lately(engine, lake, now) == Complaints(2, 3)
