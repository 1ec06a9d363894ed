"""Where the past ends and the future begins, at every reference date of a training run.

A shop with times is cut by days: the past is before a day, the labels are in the horizon after it.
A shop without times is cut by a stable hash of (subscriber, item, how often before): one tenth of
the events is hidden. Who took something several times still has it when one of these is hidden, so
repeats can be learned where no time is known.
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
STEP: Final = np.uint64(0xD6E8FEB86659FD93)  # odd, as well
Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]


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
        return without(histories, self._closed(histories) + (hidden(histories, day) if day else 0))

    def everything(self, histories: Histories) -> Histories:
        """What is known at the end."""
        if not self.timeless:
            return histories.before(self.end_day)
        return without(histories, self._closed(histories))

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
            return hidden(histories, day) > 0
        when = histories.records["day"].astype(np.int64)
        return (when >= day) & (when < day + self.horizon_days)

    def _closed(self, histories: Histories) -> Counts:
        """How many events of each record may never be seen."""
        return hidden(histories, 0) * (self.end_day == 0)


def hidden(histories: Histories, fold: int) -> Counts:
    """How many events of each record lie in a fold; records of one event stay whole."""
    counts = histories.records["count"].astype(np.int64)
    record = np.repeat(np.arange(len(counts)), counts)
    nth = np.arange(len(record)) - np.repeat(np.cumsum(counts) - counts, counts)
    owner = histories.owner[record].astype(np.uint64) + np.uint64(1)
    mixed = (histories.records["item"][record] ^ (owner * SPREAD)) * SPREAD
    mixed += nth.astype(np.uint64) * STEP
    inside = (mixed >> np.uint64(40)) % np.uint64(FOLDS) == fold
    return np.bincount(record[inside], minlength=len(counts))


def without(histories: Histories, gone: Counts) -> Histories:
    """The histories with fewer events of some records; records of none are left out."""
    left = histories.records["count"] - gone
    keep = left > 0
    records = histories.records[keep].copy()
    records["count"] = left[keep]
    counts = np.bincount(histories.owner[keep], minlength=len(histories))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Histories(records, offsets, histories.tokens, histories.flags)
