"""What a subscriber likes, in sums over all they took.

Activity, price, shares of categories and brands.

Takes the pairs of a chunk, gives one row a subscriber; both heads of the ranker read from it.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from reco.features.pairs import HALF_LIVES_DAYS, Pairs
from reco.models.item_statistics import HORIZON_AGE, WINDOW_DAYS, ItemStatistics

Floats = npt.NDArray[np.float32]
SHORT: Final = HALF_LIVES_DAYS.index(60)
MIDDLE: Final = HALF_LIVES_DAYS.index(120)


@dataclass(frozen=True, slots=True)
class Known:
    """The pairs whose item the model knows; p pairs of n subscribers, sorted by owner.

    owner  int64 [p]    subscriber's position in the chunk
    row    int32 [p]    row of the item in the model
    age    float32 [p]  days since the last event
    since  float32 [p]  days since the first event
    pairs  int64 [p]    position in the Pairs
    """

    owner: npt.NDArray[np.int64]
    row: npt.NDArray[np.int32]
    age: Floats
    since: Floats
    pairs: npt.NDArray[np.int64]

    @classmethod
    def of(cls, p: Pairs, rows: npt.NDArray[np.int32], as_of_day: int) -> "Known":
        """`rows` [p]: row of each pair's item, -1 where the model does not know it."""
        at = np.flatnonzero(rows >= 0)
        last, first = p.last_day[at], p.first_day[at]
        age = np.where(last > 0, np.minimum(as_of_day - last, HORIZON_AGE), 0).astype(np.float32)
        since = np.where(first > 0, np.minimum(as_of_day - first, HORIZON_AGE), 0).astype(
            np.float32
        )
        return cls(p.owner[at], rows[at], age, since, at)


USER_COLUMNS: Final = ("log_items", "log_activity", "log_idle_days", "repeat_share", "novel_share")


@dataclass(frozen=True, slots=True)
class Taste:
    """Taste of n subscribers.

    user      float32 [n, USER_COLUMNS]
    activity  float32 [n]         decayed events, half-life 120 days
    price     float32 [n]         mean of log1p(price) of what they take
    category  float32 [n, categories]  share of the decayed events
    brand     float32 [n, brands]
    kind      float32 [n, kinds]
    kind_items, kind_new  float32 [n, kinds]  different items, and those first taken lately
    """

    user: Floats
    activity: Floats
    price: Floats
    category: Floats
    brand: Floats
    kind: Floats
    kind_items: Floats
    kind_new: Floats

    @classmethod
    def of(cls, p: Pairs, known: Known, n: int, stats: ItemStatistics) -> "Taste":
        """Taste of the n subscribers whose pairs these are."""
        owner, weight = known.owner, p.decayed[known.pairs, MIDDLE]

        def total(values: npt.NDArray[np.generic] | None = None) -> npt.NDArray[np.float64]:
            return np.bincount(owner, values, n).astype(np.float64)

        def table(codes: npt.NDArray[np.int32], of: npt.NDArray[np.generic] | None) -> Floats:
            width = int(codes.max(initial=0)) + 1
            cell = owner * width + codes[known.row]
            return np.bincount(cell, of, n * width).reshape(n, width).astype(np.float32)

        def shares(codes: npt.NDArray[np.int32]) -> Floats:
            return table(codes, weight) / np.maximum(whole, 1e-9).astype(np.float32)[:, None]

        whole, items = total(weight), total()
        idle = np.full(n, float(HORIZON_AGE))
        first = np.flatnonzero(np.diff(owner, prepend=-1))  # owners come in order
        if len(first):
            idle[owner[first]] = np.minimum.reduceat(known.age, first)
        lately = known.age <= WINDOW_DAYS
        user = (
            np.log1p(items),
            np.log1p(total(p.decayed[known.pairs, SHORT])),
            np.log1p(idle),
            total(p.days[known.pairs] > 1) / np.maximum(items, 1),
            total(lately & (known.since <= WINDOW_DAYS)) / np.maximum(total(lately), 1),
        )
        log_price = np.log1p(stats.price)[known.row]
        return cls(
            user=np.stack(user, axis=1).astype(np.float32),
            activity=whole.astype(np.float32),
            price=(total(weight * log_price) / np.maximum(whole, 1e-9)).astype(np.float32),
            category=shares(stats.category),
            brand=shares(stats.brand),
            kind=shares(stats.kind),
            kind_items=table(stats.kind, None),
            kind_new=table(stats.kind, known.since <= 2 * WINDOW_DAYS),
        )
