"""What the moment adds to a chance: hour and weekday where the subscriber lives, and promotions.

Learned here from what subscribers took and when, joined to the scores by models.occasion_lifts when
they are served, both by the context features of definitions. Lifts are log-odds that shrink to 0
where little is known.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from reco.catalogue import Catalogue
from reco.events.lake import Lake
from reco.features.definitions import CONTEXT_FEATURES
from reco.features.moment import Moment
from reco.features.table import table_name
from reco.features.targets import strongest
from reco.subscribers.store import SubscriberStore

Doubles = npt.NDArray[np.float64]
HOURS: Final = 4  # of a part of the day
SATURDAY: Final = 5
CELLS: Final = 2 * 24 // HOURS  # parts of a working day, then those of a weekend
PRIOR: Final = 100.0  # events as usual, added to what was seen and to what was to be expected
PROMOTION: Final = -1  # the cell of the lift of what is on promotion
MOST_LIFT: Final = 1.5
COLUMNS: Final = ("user_id", "type", "timestamp", "item_id")
ZONES: Final = pl.Schema({"user_id": pl.String(), "timezone": pl.String()})
STARTS, ENDS = "promoted_from", "promoted_until"  # columns of the shop's own, ISO 8601
TABLE: Final = pl.Schema({"cell": pl.Int64(), "category": pl.String(), "lift": pl.Float64()})
_HOUR, _WEEKDAY = (
    next(f for f in CONTEXT_FEATURES if f.name == name) for name in ("hour", "weekday")
)


def cells(moment: Moment) -> npt.NDArray[np.int64]:
    """Cell [n] of each subscriber's moment."""
    part = np.asarray(_HOUR.read(moment)).astype(np.int64) // HOURS
    is_weekend = np.asarray(_WEEKDAY.read(moment)) >= SATURDAY
    return part + is_weekend * (24 // HOURS)


def windows(catalogue: Catalogue) -> tuple[Doubles, Doubles]:
    """When the promotion of each item begins and ends (s since 1970) [m]; inf, -inf for none.

    One that names no end goes on, one that names no beginning has always been.
    """
    starts, ends = (_times(catalogue.attribute(name)) for name in (STARTS, ENDS))
    none = np.isnan(starts) & np.isnan(ends)
    first = np.where(none, np.inf, np.nan_to_num(starts, nan=-np.inf))
    last = np.where(none, -np.inf, np.nan_to_num(ends, nan=np.inf))
    return first, last


def _times(texts: pl.Series) -> Doubles:
    return np.array([_time(text) for text in texts.to_list()], np.float64)


def _time(text: str | None) -> float:
    """A day or a time in ISO 8601, UTC where it names no zone; NaN for anything else."""
    try:
        when = datetime.fromisoformat(text or "")
    except ValueError:
        return float("nan")
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


# -- learned -----------------------------------------------------------------------------------


def write_occasions(lake: Lake, store: SubscriberStore | None, as_of: datetime) -> str:
    """Learn as of a time, and keep it beside the feature tables of that time; the table's name."""
    zones = pl.DataFrame(schema=ZONES) if store is None else store.timezones()
    name = table_name(as_of, "occasions")
    lake.write_table(name, learn(lake, zones, as_of))
    return name


def learn(lake: Lake, zones: pl.DataFrame, as_of: datetime) -> pl.DataFrame:
    """Rows of TABLE from what was taken before `as_of`; `zones` has columns user_id, timezone."""
    catalogue = Catalogue.of(lake.items())
    kind = strongest(lake.manifest().types())
    names = catalogue.frame.select("item_id", "category").with_row_index("row")
    first, last = windows(catalogue)
    counted = [pl.DataFrame(schema={"cell": pl.Int64, "category": pl.String, "n": pl.UInt32})]
    within, ever = np.zeros(len(catalogue)), np.zeros(len(catalogue))
    begin = as_of.timestamp()
    for bucket in range(lake.buckets):
        events = lake.read_bucket(bucket, before=as_of, columns=COLUMNS)
        taken = events.filter(pl.col("type") == kind).drop_nulls("timestamp")
        taken = taken.join(names, on="item_id", how="inner")
        counted += _by_cell(taken.drop_nulls("category"), zones)
        rows, when = taken["row"].to_numpy(), _seconds(taken["timestamp"])
        inside = (first[rows] <= when) & (when < last[rows])
        within += np.bincount(rows[inside], minlength=len(catalogue))
        ever += np.bincount(rows, minlength=len(catalogue))
        begin = min(begin, float(when.min(initial=begin)))
    length = np.clip(np.minimum(last, as_of.timestamp()) - np.maximum(first, begin), 0, None)
    lifts = [_category_lifts(pl.concat(counted))]
    lifts += _promotion_lift(within, ever, length, as_of.timestamp() - begin)
    return pl.concat(lifts).sort("cell", "category")


def _by_cell(taken: pl.DataFrame, zones: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Number of events of each category in each cell, one time zone after the other."""
    local = taken.join(zones.unique("user_id"), on="user_id", how="left")
    for (zone,), part in local.group_by("timezone"):
        assert zone is None or isinstance(zone, str)
        cell = pl.Series("cell", cells(Moment.each(part["timestamp"], zone)))
        yield part.select(cell, "category").group_by("cell", "category").len("n")


def _category_lifts(counted: pl.DataFrame) -> pl.DataFrame:
    """log of what a category had in a cell by what it usually has, for cells with anything."""
    counted = counted.group_by("cell", "category").agg(pl.sum("n").cast(pl.Float64))
    usual = counted.group_by("category").agg(pl.sum("n").alias("usual"))
    pairs = counted.select("cell").unique().join(usual, how="cross")
    pairs = pairs.join(counted, on=["cell", "category"], how="left")
    there = pl.col("n").fill_null(0.0)
    expected = there.sum().over("cell") * pl.col("usual") / pl.sum("usual").over("cell")
    lift = ((there + PRIOR) / (expected + PRIOR)).log().clip(-MOST_LIFT, MOST_LIFT)
    return pairs.select("cell", "category", lift.alias("lift"))


def _promotion_lift(
    within: Doubles, ever: Doubles, length: Doubles, whole: float
) -> Iterator[pl.DataFrame]:
    """log of what items sold on promotion by what they would have sold; none without promotions.

    Events [m] within the promotion of each item and ever; seconds [m] of it, and of all.
    """
    rest = whole - length
    fair = (length > 0) & (rest > length)  # otherwise nobody knows what is usual
    if not fair.any():
        return
    expected = ((ever - within)[fair] / rest[fair] * length[fair]).sum()
    lift = float(np.log((within[fair].sum() + PRIOR) / (expected + PRIOR)))
    bounded = min(max(lift, -MOST_LIFT), MOST_LIFT)
    yield pl.DataFrame([(PROMOTION, None, bounded)], TABLE, orient="row")


def _seconds(times: pl.Series) -> Doubles:
    return (times.dt.epoch("us").cast(pl.Float64) / 1e6).to_numpy()
