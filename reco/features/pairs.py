"""What a subscriber did with each item: decayed frequency, first and last day, repeat gap.

Takes histories, gives one row a (subscriber, item); the ranker's personal features and the
repeat features of `definitions` are read from it. One pass over sorted records.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from reco.features.history import Histories
from reco.tables import type_code

PURCHASE: Final = type_code("purchase")
HALF_LIVES_DAYS: Final = (60, 120, 240)


@dataclass(frozen=True, slots=True)
class Pairs:
    """p pairs of a chunk of n subscribers, sorted by (owner, item key).

    owner      int64 [p]       subscriber's position in the chunk
    offsets    int64 [n + 1]   pairs of subscriber i are [offsets[i]:offsets[i + 1]]
    item       uint64 [p]      item key, never 0
    count      int64 [p]       events
    days       int64 [p]       distinct days with an event
    money      float32 [p]     money of these events
    first_day  int64 [p]       day of the first event, 0 where events have no time
    last_day   int64 [p]       day of the last event, 0 where events have no time
    decayed    float32 [p, 3]  sum of count x 2 ** (-age / half-life) over HALF_LIVES_DAYS,
                               age = as_of_day - day, so 1 for the latest day; 0 without a time
    mean_gap   float32 [p]     mean days between days with an event, NaN with a single one
    """

    owner: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    item: npt.NDArray[np.uint64]
    count: npt.NDArray[np.int64]
    days: npt.NDArray[np.int64]
    money: npt.NDArray[np.float32]
    first_day: npt.NDArray[np.int64]
    last_day: npt.NDArray[np.int64]
    decayed: npt.NDArray[np.float32]
    mean_gap: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.item)


def pairs(histories: Histories, as_of_day: int, event_type: int = PURCHASE) -> Pairs:
    """Pairs of all events of one type before `as_of_day`, the first day that does not count.

    For an as-of at midnight that is its own day, else the day after (history.cutoff_day).
    """
    records = histories.records
    day = records["day"].astype(np.int64)
    kept = np.flatnonzero(
        (records["type"] == event_type) & (records["item"] != 0) & (day < as_of_day)
    )
    owner, item, day = histories.owner[kept], records["item"][kept], day[kept]
    first = np.ones(len(kept), bool)
    first[1:] = (owner[1:] != owner[:-1]) | (item[1:] != item[:-1])
    starts = np.flatnonzero(first)
    pair = np.cumsum(first) - 1  # of each record; bincount over it is 4 x as fast as reduceat
    count = records["count"][kept].astype(np.float64)
    age = np.where(day > 0, as_of_day - day, 0)
    decayed = [np.bincount(pair, count * decay(age, h), len(starts)) for h in HALF_LIVES_DAYS]
    days = np.diff(np.append(starts, len(kept)))
    first_day, last_day = day[starts], day[starts + days - 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_gap = np.where(days > 1, (last_day - first_day) / (days - 1), np.nan)
    owner = owner[starts]
    return Pairs(
        owner=owner,
        offsets=np.searchsorted(owner, np.arange(len(histories) + 1)).astype(np.int64),
        item=item[starts],
        count=np.bincount(pair, count, len(starts)).astype(np.int64),
        days=days,
        money=(np.bincount(pair, records["cents"][kept], len(starts)) / 100).astype(np.float32),
        first_day=first_day,
        last_day=last_day,
        decayed=np.stack(decayed, axis=1).astype(np.float32),
        mean_gap=mean_gap.astype(np.float32),
    )


def decay(age_days: npt.NDArray[np.int64], half_life_days: float) -> npt.NDArray[np.float64]:
    """Weight 2 ** (-age / half-life) of each age; a table, since ages are few and events many."""
    ages = np.arange(int(age_days.max(initial=0)) + 1)
    table: npt.NDArray[np.float64] = np.exp2(-ages / half_life_days)
    return table[age_days]
