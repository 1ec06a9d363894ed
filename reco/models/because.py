"""Because of what they took: for each pick that goes with the history, the item that speaks most.

Takes slates and the weighted history of a chunk, gives the row of that item; the sentence names it.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco.models.slates import Reason, Slates

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int32]
# How much each taken item speaks for each pick: rows [t], weights [t], rows [p] -> [t, p].
Likeness = Callable[[Rows, Floats, Rows], Floats]
MOST: Final = 64  # items of a history, those of most weight, among which one is named


def because(slates: Slates, rows: Rows, bags: sp.csr_matrix, likeness: Likeness) -> Rows:
    """Row of the taken item that speaks most for each pick [n, k]; -1 where none does.

    `rows` [n, k] are those of the picks, `bags` [n, items] weigh what each subscriber took.
    """
    out = np.full(slates.items.shape, -1, np.int32)
    asked = (slates.reasons == Reason.BOUGHT_TOGETHER) & (rows >= 0)
    for i in np.flatnonzero(asked.any(axis=1)).tolist():
        part = slice(bags.indptr[i], bags.indptr[i + 1])
        taken, weight = bags.indices[part], bags.data[part]
        if len(taken) > MOST:
            heavy = np.argpartition(-weight, MOST)[:MOST]
            taken, weight = taken[heavy], weight[heavy]
        if len(taken):
            at = np.flatnonzero(asked[i])
            speaks = likeness(taken, weight, rows[i, at])
            speaks = np.where(taken[:, None] == rows[i, at], -1, speaks)  # itself explains nothing
            best = speaks.argmax(axis=0)
            found = speaks[best, np.arange(len(at))] > 0
            out[i, at] = np.where(found, taken[best], -1)
    return out
