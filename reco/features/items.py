"""Items as features see them: facts from the catalogue, counts from histories.

Counts are made bucket by bucket and add up, since all of a subscriber's events lie in one bucket.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from reco.catalogue import Catalogue, KeyIndex
from reco.features.history import Histories
from reco.features.pairs import PURCHASE, pairs

BANDS: Final = 5  # price bands: fifths of the catalogue
SHORT_DAYS: Final = 7
LONG_DAYS: Final = 28
# Columns that add up over buckets; `first_day` takes the least.
SUMMED: Final = (
    "buyers", "buyers_7d", "buyers_28d", "repeaters",
    "count", "count_7d", "count_28d", "count_prior_28d",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """Arrays over catalogue rows; they travel to workers without a copy.

    category    int32 [m]    code (Catalogue.category), -1 where there is none
    price_band  int8 [m]     fifth of the catalogue by price, 0..4; -1 where the price is unknown
    """

    index: KeyIndex
    category: npt.NDArray[np.int32]
    price_band: npt.NDArray[np.int8]

    @classmethod
    def of(cls, catalogue: Catalogue) -> "ItemFacts":
        """Facts of a catalogue."""
        return cls(catalogue.index, catalogue.category, price_bands(catalogue.price))


def price_bands(price: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """Fifth of the known prices in which each lies, 0..4; -1 where a price is NaN."""
    known = ~np.isnan(price)
    band = np.full(len(price), -1, np.int8)
    if known.any():
        edges = np.quantile(price[known], np.arange(1, BANDS) / BANDS)
        band[known] = np.searchsorted(edges, price[known], side="right")
    return band


def count_items(histories: Histories, as_of_day: int, target: int = PURCHASE) -> pl.DataFrame:
    """Columns item (key), SUMMED and first_day, by events of the target type before as_of_day.

    A buyer is a subscriber with such an event, a repeater one with two on different days.
    """
    p = pairs(histories, as_of_day, target)
    records = histories.records
    at = np.flatnonzero(
        (records["type"] == target) & (records["item"] != 0) & (records["day"] < as_of_day)
    )
    events = pl.DataFrame(
        {
            "item": records["item"][at],
            "age": as_of_day - records["day"][at].astype(np.int64),
            "count": records["count"][at].astype(np.int64),
        }
    )
    age = pl.col("age")
    counts = events.group_by("item").agg(
        pl.col("count").sum(),
        _sum_where(age <= SHORT_DAYS).alias("count_7d"),
        _sum_where(age <= LONG_DAYS).alias("count_28d"),
        _sum_where(age.is_between(LONG_DAYS + 1, 2 * LONG_DAYS)).alias("count_prior_28d"),
    )
    last = pl.lit(as_of_day) - pl.col("last_day")
    buyers = (
        pl.DataFrame(
            {"item": p.item, "days": p.days, "first_day": p.first_day, "last_day": p.last_day}
        )
        .group_by("item")
        .agg(
            pl.len().cast(pl.Int64).alias("buyers"),
            (last <= SHORT_DAYS).sum().cast(pl.Int64).alias("buyers_7d"),
            (last <= LONG_DAYS).sum().cast(pl.Int64).alias("buyers_28d"),
            (pl.col("days") > 1).sum().cast(pl.Int64).alias("repeaters"),
            pl.col("first_day").min(),
        )
    )
    return buyers.join(counts, on="item").select("item", *SUMMED, "first_day").sort("item")


def add_up(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Counts of all buckets as one frame, sorted by item key."""
    return (
        pl.concat(parts)
        .group_by("item")
        .agg(pl.col(SUMMED).sum(), pl.col("first_day").min())
        .sort("item")
    )


@dataclass(frozen=True, slots=True)
class ItemView:
    """m items as of a day: `counts` (SUMMED, first_day) and `catalogue` rows side by side."""

    counts: pl.DataFrame
    price: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32]
    published_day: npt.NDArray[np.float64]  # NaN where unknown
    as_of_day: int

    @classmethod
    def of(cls, catalogue: Catalogue, counts: pl.DataFrame, as_of_day: int) -> "ItemView":
        """The rows of the catalogue, in its order; an item without events counts 0."""
        joined = pl.DataFrame({"item": catalogue.keys}).join(
            counts, on="item", how="left", maintain_order="left"
        )
        frame = catalogue.frame.select(
            pl.col("margin").cast(pl.Float32).fill_null(float("nan")),
            (pl.col("published_at").dt.epoch("d")).cast(pl.Float64).fill_null(float("nan")),
        )
        return cls(
            joined.with_columns(pl.col(SUMMED).fill_null(0)),
            catalogue.price,
            frame["margin"].to_numpy(),
            frame["published_at"].to_numpy(),
            as_of_day,
        )


def _sum_where(condition: pl.Expr) -> pl.Expr:
    return pl.col("count").filter(condition).sum()
