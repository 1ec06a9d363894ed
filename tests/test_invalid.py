"""Events of addresses that were invalid at the time are left out, and no others."""

from datetime import UTC, datetime, timedelta

import polars as pl

from reco.subscribers.invalid import SINCE, invalid_since, without_invalid
from reco.subscribers.store import SubscriberStore
from reco.subscribers.suppression import SuppressionList, SuppressionReason

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def test_only_dead_addresses_count_with_the_time_of_the_finding(engine):
    store, suppressions = SubscriberStore(engine), SuppressionList(engine, b"k" * 32)
    ids = ["dead", "typo", "gone", "fine", "none"]
    emails = ["dead@a.example", "typo@a.example", "gone@a.example", "fine@a.example", None]
    store.upsert(pl.DataFrame({"user_id": ids, "email": emails}))
    suppressions.add(["Dead@a.example"], SuppressionReason.HARD_BOUNCE, "test")
    suppressions.add(["typo@a.example"], SuppressionReason.INVALID, "test")
    suppressions.add(["gone@a.example"], SuppressionReason.UNSUBSCRIBE, "test")

    found = invalid_since(store, suppressions, [*ids, "unknown"])

    assert SINCE == found.schema
    assert {"dead", "typo"} == set(found["user_id"])
    assert (found["since"] > datetime.now(UTC) - timedelta(minutes=5)).all()


def test_what_was_done_before_stays():
    days = [NOW - timedelta(days=1), NOW, NOW + timedelta(days=1), None]
    events = pl.DataFrame(
        {"user_id": ["dead"] * 4 + ["fine"] * 4, "timestamp": days * 2, "value": range(8)},
        schema_overrides={"timestamp": pl.Datetime("us", "UTC")},
    )
    since = pl.DataFrame([("dead", NOW)], schema=SINCE, orient="row")

    kept = without_invalid(events.lazy(), since).collect()

    assert events.columns == kept.columns
    assert [0, 3, 4, 5, 6, 7] == kept["value"].to_list()
