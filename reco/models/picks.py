"""Scored items of a chunk on their way to slates.

Padded rows, merged, mixed and cut to the best.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reco.models.slates import Reason, Slates

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
NO: float = -1.0  # probability of an empty place


@dataclass(frozen=True, slots=True)
class Picks:
    """Candidates of n subscribers in w places each, in any order; an item stands once a subscriber.

    row          int32 [n, w]    row of the item in the model, -1 where a place is empty
    probability  float32 [n, w]  NO where a place is empty
    reason       uint8 [n, w]    Reason
    """

    row: npt.NDArray[np.int32]
    probability: Floats
    reason: npt.NDArray[np.uint8]

    @classmethod
    def of_rows(
        cls, owner: npt.NDArray[np.int64], row: npt.NDArray[np.int32], probability: Floats,
        n: int, reason: npt.NDArray[np.uint8],
    ) -> "Picks":  # fmt: skip
        """From flat rows sorted by owner."""
        place = np.arange(len(owner)) - np.searchsorted(owner, owner)
        width = int(place.max(initial=-1)) + 1
        rows, chances = np.full((n, width), -1, np.int32), np.full((n, width), NO, np.float32)
        rows[owner, place] = row
        chances[owner, place] = np.where(row >= 0, probability, NO)
        reasons = np.zeros((n, width), np.uint8)
        reasons[owner, place] = reason
        return cls(rows, chances, reasons)

    def beside(self, other: "Picks") -> "Picks":
        """Both; no item may stand in both."""
        return Picks(
            np.concatenate([self.row, other.row], axis=1),
            np.concatenate([self.probability, other.probability], axis=1),
            np.concatenate([self.reason, other.reason], axis=1),
        )

    def mixed(
        self,
        who: npt.NDArray[np.intp],
        weight: Floats,
        rows: npt.NDArray[np.int32],
        chances: Floats,
    ) -> "Picks":
        """For subscribers `who` [c].

        Weight x own probability + (1 - weight) x that of others like them.

        weight [c, 1]; rows [m] and chances [c, m] of the others' items, 0 where an item may not be.
        """
        items = int(max(self.row.max(initial=0), rows.max(initial=0))) + 1
        score = np.zeros((len(who), items + 1), np.float32)  # the last column takes empty places
        own = np.where(self.row[who] < 0, items, self.row[who])
        np.put_along_axis(score, own, weight * self.probability[who], axis=1)
        score[:, rows] += (1 - weight) * chances
        score[:, items] = 0
        reason = np.full(score.shape, Reason.SIMILAR_PEOPLE, np.uint8)
        of_others = (1 - weight) * np.ones(own.shape, np.float32)
        mine = np.where(of_others < 0.5, self.reason[who], Reason.SIMILAR_PEOPLE)
        np.put_along_axis(reason, own, mine.astype(np.uint8), axis=1)
        width = min(self.row.shape[1], items)
        best = np.argsort(-score, axis=1, kind="stable")[:, :width]
        value = np.take_along_axis(score, best, axis=1)
        out = Picks(self.row.copy(), self.probability.copy(), self.reason.copy())
        out.row[who], out.probability[who] = -1, NO
        at = (who[:, None], np.arange(width)[None, :])
        out.row[at] = np.where(value > 0, best, -1)
        out.probability[at] = np.where(value > 0, value, NO)
        out.reason[at] = np.take_along_axis(reason, best, axis=1)
        return out

    def best(
        self, k: int, keys: npt.NDArray[np.uint64], rungs: npt.NDArray[np.uint8],
        value: Floats | None = None,
    ) -> Slates:  # fmt: skip
        """Slates of the k most probable; keys of the model's rows, rung [n] of each subscriber.

        By `value` [n, w] instead where it is given, which is least where a place is empty.
        """
        by = self.probability if value is None else value
        n, width = self.row.shape
        keep = min(k, width)
        out = Slates.empty(n, k)
        if not keep:
            return out
        # Ties at the cut and in the order go by row, so that equal inputs give equal bytes.
        part = np.argpartition(-by, keep - 1, axis=1)[:, :keep]
        order = np.lexsort(
            (np.take_along_axis(self.row, part, 1), -np.take_along_axis(by, part, 1)), axis=1
        )
        part = np.take_along_axis(part, order, axis=1)
        row = np.take_along_axis(self.row, part, axis=1)
        there = row >= 0
        out.items[:, :keep] = np.where(there, keys[row], 0)
        out.scores[:, :keep] = np.where(there, np.take_along_axis(self.probability, part, 1), 0)
        out.reasons[:, :keep] = np.where(there, np.take_along_axis(self.reason, part, 1), 0)
        out.rungs[:, :keep] = np.where(there, rungs[:, None], 0)
        return out
