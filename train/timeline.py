"""Where the past ends and the future begins, at every reference date of a training run.

A shop with times is cut by days: the past is before a day, the labels are in the horizon after it.
A shop without times is cut by a stable hash of (subscriber, item): one tenth of the pairs is
hidden.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco.catalogue import KeyIndex
from reco.features.history import Histories

FOLDS: Final = 10
SPREAD: Final = np.uint64(
    0x9E3779B97F4A7C15
)  # odd, so that multiplying mixes the high bits (Fibonacci hashing)
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Timeline:
    """Reference dates up to `end_day`, the first day that may not be seen.

    Without times a date is a fold, 0 .. FOLDS - 1; `end_day` 0 hides fold 0, any other hides
    nothing.
    """

    end_day: int
    horizon_days: int
    timeless: bool

    def past(self, histories: Histories, day: int) -> Histories:
        """What is known at a reference date."""
        if not self.timeless:
            return histories.before(min(day, self.end_day))
        return only(histories, (folds(histories) != day) & self._open(histories))

    def everything(self, histories: Histories) -> Histories:
        """What is known at the end."""
        return (
            histories.before(self.end_day)
            if not self.timeless
            else only(histories, self._open(histories))
        )

    def labels(
        self, histories: Histories, day: int, event_type: int, index: KeyIndex, items: int
    ) -> sp.csr_matrix:
        """0/1 matrix [subscribers, items] of what happened after a reference date.

        Within the horizon.
        """
        records = histories.records
        row = index.rows(records["item"])
        future = self._future(histories, day) & (records["type"] == event_type) & (row >= 0)
        found = sp.csr_matrix(
            (np.ones(int(future.sum()), np.float32), (histories.owner[future], row[future])),
            (len(histories), items),
        )
        found.data[:] = 1
        return found

    def dates(self, count: int, step_days: int, first_day: int) -> list[int]:
        """Up to `count` reference dates whose labels are known at the end, ascending.

        They lie `step_days` apart and, where possible, at least a horizon after `first_day`.
        """
        if self.timeless:
            return list(range(1, min(count, FOLDS - 1) + 1))
        latest = self.end_day - self.horizon_days
        days = [latest - i * step_days for i in range(count)]
        return sorted(
            day for i, day in enumerate(days) if i == 0 or day - self.horizon_days >= first_day
        )

    def _future(self, histories: Histories, day: int) -> Mask:
        if self.timeless:
            return (folds(histories) == day) & (self._open(histories) | (day == 0))
        when = histories.records["day"].astype(np.int64)
        return (when >= day) & (when < day + self.horizon_days)

    def _open(self, histories: Histories) -> Mask:
        return folds(histories) != 0 if self.end_day == 0 else np.ones(len(histories.records), bool)


def folds(histories: Histories) -> npt.NDArray[np.int64]:
    """Fold of each record, the same for all records of a subscriber and item."""
    owner = histories.owner.astype(np.uint64) + np.uint64(1)
    mixed = (histories.records["item"] ^ (owner * SPREAD)) * SPREAD
    return ((mixed >> np.uint64(40)) % np.uint64(FOLDS)).astype(np.int64)


def only(histories: Histories, keep: Mask) -> Histories:
    """The histories with some of their records."""
    counts = np.bincount(histories.owner[keep], minlength=len(histories))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Histories(histories.records[keep], offsets, histories.tokens, histories.flags)
