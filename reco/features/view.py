"""A chunk of subscribers as of a day: what the user features share, each computed at most once.

Takes Histories and a Context, gives arrays over the chunk; no loop over subscribers.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco.features.history import Histories
from reco.features.items import BANDS, ItemFacts
from reco.features.pairs import HALF_LIVES_DAYS, PURCHASE, Pairs, pairs
from reco.tables import type_code

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

WINDOWS_DAYS: Final = (7, 28, 30, 90)
COUNTED: Final = ("purchase", "click", "open", "view", "delivery")  # every other type: last slot
TOP_CATEGORIES: Final = 3
HALF_LIFE: Final = HALF_LIVES_DAYS.index(120)  # of category and price preference


@dataclass(frozen=True, slots=True)
class Context:
    """What a user feature needs besides the history.

    as_of_day  first day that does not count (history.cutoff_day)
    items      category and price band of each item
    target     code of the event type that stands for "wanted it"
    """

    as_of_day: int
    items: ItemFacts
    target: int = PURCHASE


class View:
    """Shared intermediate results of a chunk of n subscribers; only what is before as_of_day."""

    def __init__(self, histories: Histories, context: Context) -> None:
        self.histories = histories.before(context.as_of_day)
        self.context = context
        self.n = len(histories)

    @cached_property
    def windows(self) -> tuple[Doubles, Doubles]:
        """Count and money [n, slot, window] of events in the last days; WINDOWS_DAYS, COUNTED.

        A window of w days holds the days as_of_day - w to as_of_day - 1.
        """
        slots, bands = len(COUNTED) + 1, len(WINDOWS_DAYS) + 1
        ages = np.arange(int(self._age.max(initial=0)) + 1)
        band = np.searchsorted(WINDOWS_DAYS, ages)[self._age]  # last: older than every window
        place = (self._owner * slots + self._slot) * bands + band
        shape = (self.n, slots, bands)
        count, money = (
            _sums(place, amount, self.n * slots * bands).reshape(shape).cumsum(axis=2)
            for amount in (self.histories.records["count"].astype(np.float64), self.histories.money)
        )
        return count[:, :, :-1], money[:, :, :-1]

    @cached_property
    def days_since(self) -> Doubles:
        """Days since the last event [n, slot], 1 for the day before as_of_day; NaN without one."""
        slots = len(COUNTED) + 1
        place = self._owner * slots + self._slot
        # Records are sorted by type within a subscriber: runs are few, and reduceat is quick.
        starts = np.flatnonzero(np.diff(place, prepend=-1))
        since = np.full(self.n * slots, np.inf)
        if len(starts):
            age = np.where(self.histories.records["day"] > 0, self._age, np.inf)
            np.minimum.at(since, place[starts], np.minimum.reduceat(age, starts))
        since[np.isinf(since)] = np.nan
        return since.reshape(self.n, slots)

    @cached_property
    def pairs(self) -> Pairs:
        """What each subscriber did with each item, by events of the target type."""
        return pairs(self.histories, self.context.as_of_day, self.context.target)

    @cached_property
    def item_row(self) -> npt.NDArray[np.int32]:
        """Catalogue row of the item of each pair, -1 where the catalogue does not have it."""
        return self.context.items.index.rows(self.pairs.item)

    @cached_property
    def active(self) -> tuple[Doubles, Doubles]:
        """Days since the first event (NaN without one) and number of days with one, each [n]."""
        age, owner = self._age[self._dated], self._owner[self._dated]
        seen = np.zeros((self.n, int(age.max(initial=0)) + 1), bool)
        seen[owner, age] = True
        oldest = seen.shape[1] - 1 - seen[:, ::-1].argmax(axis=1)
        days = seen.sum(axis=1)
        return np.where(days > 0, oldest, np.nan), days.astype(np.float64)

    @cached_property
    def categories(self) -> tuple[Doubles, Doubles]:
        """Codes (-1: none) and shares [n, TOP_CATEGORIES] of the best liked, by decayed count."""
        weight, code = self._weight, self.context.items.category[self.item_row]
        known = code >= 0
        width = int(code.max(initial=0)) + 1
        liked = sp.coo_array(
            (weight[known], (self.pairs.owner[known], code[known])), shape=(self.n, width)
        ).tocsr()
        owner = np.repeat(np.arange(self.n), np.diff(liked.indptr))
        order = np.lexsort((liked.indices, -liked.data, owner))  # ties by code
        rank = np.arange(len(owner)) - liked.indptr[owner]
        top = rank < TOP_CATEGORIES
        codes = np.full((self.n, TOP_CATEGORIES), -1.0)
        shares = np.zeros((self.n, TOP_CATEGORIES))
        total = _sums(owner, liked.data, self.n)
        owner, rank, order = owner[top], rank[top], order[top]
        codes[owner, rank] = liked.indices[order]
        shares[owner, rank] = liked.data[order] / total[owner]
        return codes, shares

    @cached_property
    def price_bands(self) -> Doubles:
        """Decayed count [n, BANDS] of what was bought in each price band."""
        band = self.context.items.price_band[self.item_row].astype(np.int64)
        known = band >= 0
        place = self.pairs.owner[known] * BANDS + band[known]
        return _sums(place, self._weight[known], self.n * BANDS).reshape(self.n, BANDS)

    @cached_property
    def repeat_gap(self) -> Doubles:
        """Mean over the items that came back of their mean gap in days [n]; NaN without one."""
        back = self.pairs.days > 1
        owner = self.pairs.owner[back]
        gap = self.pairs.mean_gap[back].astype(np.float64)
        return _divided(_sums(owner, gap, self.n), _sums(owner, np.ones(len(gap)), self.n))

    def rate(self, event_type: str) -> Doubles:
        """Events of a type a delivery, in the last 90 days [n], at most 1; NaN without delivery."""
        count = self.windows[0][:, :, -1]
        sent = count[:, COUNTED.index("delivery")]
        return np.minimum(_divided(count[:, COUNTED.index(event_type)], sent), 1.0)

    @cached_property
    def _owner(self) -> npt.NDArray[np.int64]:
        return self.histories.owner

    @cached_property
    def _age(self) -> npt.NDArray[np.int64]:
        day: npt.NDArray[np.int64] = self.histories.records["day"].astype(np.int64)
        return self.context.as_of_day - day

    @cached_property
    def _dated(self) -> npt.NDArray[np.intp]:
        return np.flatnonzero(self.histories.records["day"])

    @cached_property
    def _slot(self) -> npt.NDArray[np.int64]:
        slot_of = np.full(256, len(COUNTED), np.int64)
        slot_of[[type_code(name) for name in COUNTED]] = np.arange(len(COUNTED))
        return slot_of[self.histories.records["type"].astype(np.int64)]

    @cached_property
    def _weight(self) -> Doubles:
        return self.pairs.decayed[:, HALF_LIFE].astype(np.float64)


def _sums(place: npt.NDArray[np.integer], amount: Doubles, size: int) -> Doubles:
    """Sum of the amounts at each place, in their order: the same bytes in any chunk."""
    return np.bincount(place, amount, size).astype(np.float64, copy=False)


def _divided(part: Doubles, whole: Doubles) -> Doubles:
    """part / whole, NaN where whole is 0."""
    quotient: Doubles = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return quotient
