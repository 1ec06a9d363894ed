"""Since when an address has been known to be invalid: what its owner did later teaches nothing.

For training. Events before that time stay: they were somebody's while the address still worked.
"""

from collections.abc import Sequence
from typing import Final

import polars as pl

from reco.subscribers.store import SubscriberStore
from reco.subscribers.suppression import SuppressionList, SuppressionReason

DEAD: Final = frozenset({SuppressionReason.INVALID, SuppressionReason.HARD_BOUNCE})
SINCE: Final = pl.Schema({"user_id": pl.String(), "since": pl.Datetime("us", "UTC")})


def invalid_since(
    store: SubscriberStore, suppressions: SuppressionList, user_ids: Sequence[str]
) -> pl.DataFrame:
    """Rows user_id, since (`SINCE`) of those subscribers whose address is known to be invalid."""
    people = [p for p in store.get(user_ids) if p is not None and p.email]
    entries = suppressions.check([p.email or "" for p in people])
    rows = [
        (person.user_id, entry.since)
        for person, entry in zip(people, entries, strict=True)
        if entry is not None and entry.reason in DEAD
    ]
    return pl.DataFrame(rows, schema=SINCE, orient="row")


def without_invalid(events: pl.LazyFrame, since: pl.DataFrame) -> pl.LazyFrame:
    """The events (user_id, timestamp, …) but those at or after their user's `since`.

    Order and columns stay; an event without a time stays too.
    """
    joined = events.join(since.lazy(), on="user_id", how="left", maintain_order="left")
    late = pl.col("timestamp") >= pl.col("since")
    return joined.filter(~late.fill_null(False)).drop("since")
