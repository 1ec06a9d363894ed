"""What happened to each item of the catalogue, counted from histories as of a day.

Counts are made chunk by chunk and add up, since all of a subscriber's events lie in one chunk.
A buyer is a subscriber with an event of the target type, a repeater one with two on other days.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from reco.catalogue import Catalogue
from reco.features.view import View

SHORT_DAYS: Final = 7
LONG_DAYS: Final = 28
NEVER: Final = 2**31 - 1  # day of what did not happen
COUNTS: Final = (
    "buyers", "buyers_7d", "buyers_28d", "repeaters",
    "count", "count_7d", "count_28d", "count_prior_28d",
)  # fmt: skip

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SomeCounts:
    """Counts of the items that a chunk of subscribers touched: the form in which they travel.

    rows       int64 [r]               catalogue rows, ascending
    totals     int64 [len(COUNTS), r]
    first_day  int64 [r]               day of the first event, 0 where events have no time
    """

    rows: Ints
    totals: Ints
    first_day: Ints


class ItemCounts:
    """Counts of all m items of a catalogue: totals [len(COUNTS), m] and first_day [m]."""

    def __init__(self, m: int) -> None:
        self.totals = np.zeros((len(COUNTS), m), np.int64)
        self.first_day = np.full(m, NEVER, np.int64)

    def __getitem__(self, name: str) -> Ints:
        row: Ints = self.totals[COUNTS.index(name)]
        return row

    def add(self, part: SomeCounts) -> None:
        """Add the counts of another chunk of subscribers."""
        self.totals[:, part.rows] += part.totals
        self.first_day[part.rows] = np.minimum(self.first_day[part.rows], part.first_day)

    def some(self) -> SomeCounts:
        """Only the items with an event."""
        rows = np.flatnonzero(self["count"])
        return SomeCounts(rows, self.totals[:, rows], self.first_day[rows])


def count_items(view: View) -> SomeCounts:
    """What the subscribers of a view did with the items of the catalogue."""
    p, m = view.pairs, len(view.context.items)
    known = np.flatnonzero(view.item_row >= 0)
    row = view.item_row[known]
    since = view.context.as_of_day - p.last_day[known]
    recent, recent_age, recent_count = _recent(view)
    counts = ItemCounts(m)
    for name, where, weight in (
        ("buyers", row, np.ones(len(row))),
        ("buyers_7d", row, since <= SHORT_DAYS),
        ("buyers_28d", row, since <= LONG_DAYS),
        ("repeaters", row, p.days[known] > 1),
        ("count", row, p.count[known]),
        ("count_7d", recent, recent_count * (recent_age <= SHORT_DAYS)),
        ("count_28d", recent, recent_count * (recent_age <= LONG_DAYS)),
        ("count_prior_28d", recent, recent_count * (recent_age > LONG_DAYS)),
    ):
        counts[name][:] = np.bincount(where, weight, m)
    np.minimum.at(counts.first_day, row, p.first_day[known])
    return counts.some()


def _recent(view: View) -> tuple[npt.NDArray[np.int32], Ints, Ints]:
    """Catalogue row, age and count of each record of the target type in the last 56 days."""
    records, context = view.histories.records, view.context
    fresh = records["day"] >= max(context.as_of_day - 2 * LONG_DAYS, 1)
    at = np.flatnonzero(fresh & (records["type"] == context.target))
    row = context.items.index.rows(records["item"][at])
    at, row = at[row >= 0], row[row >= 0]
    age = context.as_of_day - records["day"][at].astype(np.int64)
    return row, age, records["count"][at].astype(np.int64)


@dataclass(frozen=True, slots=True)
class ItemView:
    """The m items of a catalogue, in its order, as of a day; NaN where something is unknown."""

    counts: ItemCounts
    price: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32]
    published_day: npt.NDArray[np.float64]
    as_of_day: int

    @classmethod
    def of(cls, catalogue: Catalogue, counts: ItemCounts, as_of_day: int) -> "ItemView":
        """The items of `catalogue` with what happened to them."""
        nan = float("nan")
        frame = catalogue.frame.select(
            pl.col("margin").cast(pl.Float32).fill_null(nan),
            pl.col("published_at").dt.epoch("d").cast(pl.Float64).fill_null(nan),
        )
        published = frame["published_at"].to_numpy()
        return cls(counts, catalogue.price, frame["margin"].to_numpy(), published, as_of_day)


def popular_keys(catalogue: Catalogue, counts: ItemCounts, most: int) -> npt.NDArray[np.uint64]:
    """Keys of the items with the most different buyers in the last 28 days, ties by key."""
    buyers = counts["buyers_28d"]
    order = np.lexsort((catalogue.keys, -buyers))[:most]
    return catalogue.keys[order[buyers[order] > 0]]
