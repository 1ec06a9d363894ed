"""The simple recommenders.

Popular lately, and what a subscriber takes most. Rivals of the model, and its fallback.

Both take histories and give rows of the catalogue, best first, -1 where nothing is left.
"""

import numpy as np
import numpy.typing as npt

from reco.catalogue import KeyIndex
from reco.features.history import Histories
from reco.features.pairs import HALF_LIVES_DAYS, pairs

Rows = npt.NDArray[np.int32]
HALF_LIFE: int = HALF_LIVES_DAYS.index(120)


def popularity(
    histories: Histories, index: KeyIndex, items: int, as_of_day: int, event_type: int, days: int
) -> npt.NDArray[np.float64]:
    """Different subscribers [items] who took each item in the `days` before `as_of_day`.

    Adds up over buckets.

    Where events have no time, all of them count.
    """
    records = histories.records
    day = records["day"].astype(np.int64)
    row = index.rows(records["item"])
    recent = (day < as_of_day) & ((day >= as_of_day - days) | (day == 0))
    kept = recent & (row >= 0) & (records["type"] == event_type)
    pair = np.unique(histories.owner[kept] * items + row[kept])
    return np.bincount(pair % items, minlength=items).astype(np.float64)


def most_popular(popular: npt.NDArray[np.float64], n: int, k: int) -> Rows:
    """The same k most popular rows for n subscribers; equal ones in the order of their rows."""
    best = np.argsort(-popular, kind="stable")[:k]
    return np.tile(np.where(popular[best] > 0, best, -1), (n, 1)).astype(np.int32)


def personal_frequency(
    histories: Histories,
    index: KeyIndex,
    popular: npt.NDArray[np.float64],
    as_of_day: int,
    event_type: int,
    k: int,
) -> Rows:
    """What each subscriber takes most, decayed with half-life 120 days, filled up by popularity."""
    p = pairs(histories, as_of_day, event_type)
    row = index.rows(p.item)
    out = most_popular(popular, len(histories), k)
    order = np.lexsort((row, -p.decayed[:, HALF_LIFE], p.owner))
    order = order[row[order] >= 0]
    owner = p.owner[order]
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    kept = place < k
    filled = np.bincount(owner[kept], minlength=len(histories))
    own = np.full((len(histories), k), -1, np.int32)
    own[owner[kept], place[kept]] = row[order][kept]
    for user in np.flatnonzero(filled < k):
        more = out[user][~np.isin(out[user], own[user, : filled[user]])]
        own[user, filled[user] :] = more[: k - filled[user]]
    return own
