"""Preflight: what blocks a send, what is only said."""

import polars as pl
import pytest

from reco.campaigns.campaign import Campaign
from reco.campaigns.preflight import MAILS, AudienceCounts, Preflight
from reco.models.slates import Rung


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
    row = {"rung": Rung.LIVE, "items": ["a", "b"], "size_bytes": 25 * 1024, "missing": []} | columns
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
