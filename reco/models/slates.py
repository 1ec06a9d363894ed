"""A slate: the ranked picks of a chunk of subscribers, as arrays. The currency of the graph."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt


class Reason(IntEnum):
    """Why an item was picked; the sentence for people is made where it is shown."""

    NONE = 0
    REPEAT = 1  # bought before, and due again
    BOUGHT_TOGETHER = 2  # goes with something bought before
    CATEGORY = 3  # from a category they like
    POPULAR = 4  # bought by many lately
    SIMILAR_PEOPLE = 5  # liked by subscribers with a like profile
    EXPLORE = 6  # to learn
    EDITORIAL = 7  # chosen by a person
    RANDOM = 8  # in stock, and nothing better was known
    ASKED = 9  # from a category that they said they want
    LOOKED_AT = 10  # seen or put into the cart, and not bought yet
    PROMOTED = 11  # the shop wants to sell it


class Rung(IntEnum):
    """Step of the fallback ladder that a pick came from, best first."""

    NONE = 0
    FRESH = 1  # precomputed top-K, young enough and of the current model
    LIVE = 2  # scored now
    LOOKALIKE = 3  # cold subscriber: borrowed from those with a like profile
    POPULAR = 4
    EDITORIAL = 5
    RANDOM = 6


@dataclass(frozen=True, slots=True)
class Slates:
    """Ranked picks of n subscribers, k places each, best first; key 0 marks an empty place.

    items    uint64 [n, k]  item keys (reco.tables.item_key)
    scores   float32 [n, k] calibrated probability of the target in the horizon, 0..1
    reasons  uint8 [n, k]   Reason
    rungs    uint8 [n, k]   Rung
    because  uint64 [n, k]  key of what they took that a pick goes with, 0 for none; None: not asked
    """

    items: npt.NDArray[np.uint64]
    scores: npt.NDArray[np.float32]
    reasons: npt.NDArray[np.uint8]
    rungs: npt.NDArray[np.uint8]
    because: npt.NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def empty(cls, n: int, k: int) -> "Slates":
        """Slates of n subscribers with k empty places each."""
        return cls(
            items=np.zeros((n, k), np.uint64),
            scores=np.zeros((n, k), np.float32),
            reasons=np.zeros((n, k), np.uint8),
            rungs=np.zeros((n, k), np.uint8),
        )

    def take(self, order: npt.NDArray[np.intp]) -> "Slates":
        """Places in another order: `order` [n, m] holds old places; -1 leaves a place empty."""
        rows = np.arange(len(self))[:, None]
        keep = order >= 0
        why = self.because
        return Slates(
            items=np.where(keep, self.items[rows, order], 0).astype(np.uint64),
            scores=np.where(keep, self.scores[rows, order], 0).astype(np.float32),
            reasons=np.where(keep, self.reasons[rows, order], 0).astype(np.uint8),
            rungs=np.where(keep, self.rungs[rows, order], 0).astype(np.uint8),
            because=None if why is None else np.where(keep, why[rows, order], 0).astype(np.uint64),
        )

    def keep(self, mask: npt.NDArray[np.bool_]) -> "Slates":
        """Only the places where `mask` [n, k] holds, moved up; the rest is empty."""
        order = np.argsort(~mask, axis=1, kind="stable")
        kept = np.take_along_axis(mask, order, axis=1)
        return self.take(np.where(kept, order, -1))
