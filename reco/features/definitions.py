"""Every feature, in order: the one definition behind training tables and served values.

A feature reads a float32 vector over a chunk from a view; NaN says "unknown". USER_FEATURES are
read from histories, ITEM_FEATURES from the catalogue and counts, CONTEXT_FEATURES from the clock.
Windows and ages count whole UTC days back from the as-of day (history.cutoff_day).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import xxhash

from reco.features.history import Histories
from reco.features.items import BANDS, price_bands
from reco.features.moment import Moment
from reco.features.popularity import NEVER, ItemView
from reco.features.view import COUNTED, TOP_CATEGORIES, WINDOWS_DAYS, Context, Floats, View

VERSION: Final = (
    1  # of the definitions: raise it when a feature of the same name means another thing
)
V = TypeVar("V")
Vector = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Feature(Generic[V]):
    """A named value: its unit, what it says, and how it is read from a view [n] -> float [n]."""

    name: str
    unit: str
    doc: str
    read: Callable[[V], Vector]


def read_all(features: Sequence[Feature[V]], view: V) -> Floats:
    """Matrix float32 [n, len(features)] of a view, columns in the order of `features`."""
    return np.stack([f.read(view).astype(np.float32) for f in features], axis=1)


def read_users(histories: Histories, context: Context) -> Floats:
    """Matrix float32 [n, len(USER_FEATURES)] of a chunk of subscribers."""
    return read_all(USER_FEATURES, View(histories, context))


# -- users -------------------------------------------------------------------------------------


def _window(totals: Vector, event_type: str, days: int) -> Vector:
    """Column [n] of totals [n, slot, window]; "any" adds up all slots."""
    window: Vector = totals[:, :, WINDOWS_DAYS.index(days)]
    if event_type == "any":
        return np.asarray(window.sum(axis=1))
    return window[:, COUNTED.index(event_type)]


def _count(view: View, event_type: str, days: int) -> Vector:
    return _window(view.windows[0], event_type, days)


def _money(view: View, event_type: str, days: int) -> Vector:
    return _window(view.windows[1], event_type, days)


def _days_since(view: View, event_type: str) -> Vector:
    return view.days_since[:, COUNTED.index(event_type)]


def _price_band_mean(view: View) -> Vector:
    weight = view.price_bands
    total = weight.sum(axis=1)
    known = np.where(total > 0, total, np.nan)
    return (weight @ np.arange(BANDS)) / known


def _price_band_median(view: View) -> Vector:
    weight = view.price_bands.cumsum(axis=1)
    total = weight[:, -1]
    median = (weight >= total[:, None] / 2).argmax(axis=1)
    return np.where(total > 0, median, np.nan)


def _windows() -> list[Feature[View]]:
    types, windows = ("purchase", "click", "open", "view", "any"), (7, 28, 90)
    counts = [
        Feature(
            f"count_{t}_{d}d", "events", f"Events of type {t} in the last {d} days.",
            partial(_count, event_type=t, days=d),
        )
        for t in types for d in windows
    ]  # fmt: skip
    money = [
        Feature(
            f"money_{t}_{d}d", "currency", f"Money of events of type {t} in the last {d} days.",
            partial(_money, event_type=t, days=d),
        )
        for t in types for d in windows
    ]  # fmt: skip
    return counts + money


def _category(view: View, place: int) -> Vector:
    return view.categories[0][:, place]


def _category_share(view: View, place: int) -> Vector:
    return view.categories[1][:, place]


def _categories() -> list[Feature[View]]:
    codes = [
        Feature(
            f"category_{k + 1}", "code", f"Category liked at place {k + 1}, decayed; -1: none.",
            partial(_category, place=k),
        )
        for k in range(TOP_CATEGORIES)
    ]  # fmt: skip
    shares = [
        Feature(
            f"category_{k + 1}_share", "0..1", f"Its share of decayed purchases, place {k + 1}.",
            partial(_category_share, place=k),
        )
        for k in range(TOP_CATEGORIES)
    ]  # fmt: skip
    return codes + shares


USER_FEATURES: Final[tuple[Feature[View], ...]] = (
    *_windows(),
    Feature(
        "purchase_count_30d", "events", "Purchases in the last 30 days.",
        partial(_count, event_type="purchase", days=30),
    ),
    *(
        Feature(
            f"days_since_{t}", "days", f"Days since the last event of type {t}, from 1.",
            partial(_days_since, event_type=t),
        )
        for t in ("open", "click", "purchase")
    ),
    Feature("open_rate_90d", "0..1", "Opens a delivered mail.", lambda v: v.rate("open")),
    Feature("click_rate_90d", "0..1", "Clicks a delivered mail.", lambda v: v.rate("click")),
    *_categories(),
    Feature("price_band_mean", "0..4", "Mean price band bought, decayed.", _price_band_mean),
    Feature("price_band_median", "0..4", "Median price band bought, decayed.", _price_band_median),
    Feature("repeat_gap", "days", "Mean gap of items that came back.", lambda v: v.repeat_gap),
    Feature(
        "distinct_items", "items", "Different items bought.",
        lambda v: np.diff(v.pairs.offsets).astype(np.float64),
    ),
    Feature("tenure", "days", "Days since the first event.", lambda v: v.active[0]),
    Feature("active_days", "days", "Days with an event.", lambda v: v.active[1]),
)  # fmt: skip


# -- items -------------------------------------------------------------------------------------


def _counted(view: ItemView, column: str) -> Vector:
    return view.counts[column].astype(np.float64)


def _price_bucket(view: ItemView) -> Vector:
    band = price_bands(view.price).astype(np.float64)
    return np.where(band >= 0, band, np.nan)


def _trend(view: ItemView) -> Vector:
    now, before = _counted(view, "count_28d"), _counted(view, "count_prior_28d")
    return np.log((now + 1) / (before + 1))


def _freshness(view: ItemView) -> Vector:
    sold = view.counts.first_day
    known = (sold > 0) & (sold < NEVER)
    since = np.where(np.isnan(view.published_day), sold, view.published_day)
    fresh = np.maximum(view.as_of_day - since, 0)
    return np.where(known | ~np.isnan(view.published_day), fresh, np.nan)


def _repeat_rate(view: ItemView) -> Vector:
    buyers = _counted(view, "buyers")
    return _counted(view, "repeaters") / np.where(buyers > 0, buyers, np.nan)


ITEM_FEATURES: Final[tuple[Feature[ItemView], ...]] = (
    Feature("price", "currency", "Price of one unit.", lambda v: v.price),
    Feature("price_bucket", "0..4", "Fifth of the catalogue by price.", _price_bucket),
    Feature("margin", "0..1", "Share of the price that is earned.", lambda v: v.margin),
    *(
        Feature(name, unit, doc, partial(_counted, column=name))
        for name, unit, doc in (
            ("buyers_7d", "subscribers", "Different buyers in the last 7 days."),
            ("buyers_28d", "subscribers", "Different buyers in the last 28 days."),
            ("count_7d", "events", "Purchases in the last 7 days."),
            ("count_28d", "events", "Purchases in the last 28 days."),
        )
    ),
    Feature("trend", "log ratio", "Last 28 days against the 28 before, one added.", _trend),
    Feature("freshness", "days", "Days since published, else since first sold.", _freshness),
    Feature("repeat_rate", "0..1", "Buyers who bought it on two days or more.", _repeat_rate),
)

# -- context -----------------------------------------------------------------------------------

CONTEXT_FEATURES: Final[tuple[Feature[Moment], ...]] = (
    Feature("hour", "0..23", "Hour of the day, where the subscriber lives.", lambda m: m.hour),
    Feature("weekday", "0..6", "Day of the week, Monday is 0.", lambda m: m.weekday),
    Feature("hour_sin", "-1..1", "Time of day on a circle.", lambda m: np.sin(m.day_angle)),
    Feature("hour_cos", "-1..1", "Time of day on a circle.", lambda m: np.cos(m.day_angle)),
    Feature("weekday_sin", "-1..1", "Day of week on a circle.", lambda m: np.sin(m.week_angle)),
    Feature("weekday_cos", "-1..1", "Day of week on a circle.", lambda m: np.cos(m.week_angle)),
)

_NAMES: Final = [
    f"{kind}.{name}"
    for kind, names in (
        ("user", [f.name for f in USER_FEATURES]),
        ("item", [f.name for f in ITEM_FEATURES]),
        ("context", [f.name for f in CONTEXT_FEATURES]),
    )
    for name in names
]
SCHEMA_HASH: Final = xxhash.xxh32_hexdigest(f"{VERSION}:{','.join(_NAMES)}".encode())
