"""The towers as served: plain arrays, one sparse product a chunk.

Training folds a TwoTower into these; the ranker's examples and the Scorer both use them, so what
the ranker learns from is what it will be given.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco.features.pairs import Pairs
from reco.models.spectral import bag_weights, unit
from reco.models.taste import MIDDLE, Known, Taste

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Towers:
    """Folded towers: logit = users @ item.T + bias.

    taken     float32 [n, d]  what having taken an item adds to a subscriber's vector
    item      float32 [n, d]  vector of a candidate, the scale multiplied in
    bias      float32 [n]     log popularity plus what was learned
    profile   float32 [t, d]  vectors of hashed profile tokens; row 0 is zero
    activity  float32 [d, USER_COLUMNS]
    """

    taken: Floats
    item: Floats
    bias: Floats
    profile: Floats
    activity: Floats

    def users(self, bags: sp.csr_matrix, taste: Taste, tokens: npt.NDArray[np.uint32]) -> Floats:
        """Unit vectors float32 [n, d] of a chunk of n subscribers, by their decayed bags."""
        bag = unit(bags @ self.taken)
        profile = self.profile[(tokens % len(self.profile)).astype(np.int64)].sum(axis=1)
        return unit(bag + profile + taste.user @ self.activity.T)

    def likeness(self, taken: Rows, weight: Floats, picks: Rows) -> Floats:
        """How much each taken item speaks for each pick [taken, picks] (models.because)."""
        return weight[:, None] * (self.taken[taken] @ self.item[picks].T)


def bag_matrix(p: Pairs, known: Known, n: int, items: int) -> sp.csr_matrix:
    """Decayed bags [n, items] of n subscribers."""
    weights = bag_weights(p.decayed[known.pairs, MIDDLE])
    return sp.csr_matrix(
        (weights, known.row, np.searchsorted(known.owner, np.arange(n + 1))), (n, items)
    )
