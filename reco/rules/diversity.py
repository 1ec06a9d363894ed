"""Maximal marginal relevance: the next pick is good, and unlike the picks before it.

Carbonell & Goldstein, "The use of MMR, diversity-based reranking", SIGIR 1998. Two items are alike
here when they share a category, so one step is one comparison over the chunk.
"""

import numpy as np
import numpy.typing as npt

from reco.models.slates import Slates


def relevance_against_likeness(
    slates: Slates, categories: npt.NDArray[np.int32], weight: float
) -> npt.NDArray[np.intp]:
    """Places [n, w] in their new order, -1 for empty ones at the end.

    weight 0..1 is the share of likeness: (1 - weight) * relevance - weight * likeness. Relevance is
    the old place, from 1 for the first down to 0, so that it has one scale whatever the model's is.
    """
    n, width = slates.items.shape
    filled = slates.items != 0
    relevance = np.broadcast_to(np.linspace(1.0, 0.0, width, dtype=np.float32), (n, width))
    gain = np.where(filled, (1.0 - weight) * relevance, -np.inf).astype(np.float32)
    like = np.zeros((n, width), np.bool_)
    order = np.full((n, width), -1, np.intp)
    everyone = np.arange(n)
    for place in range(width):
        best = np.argmax(gain - weight * like, axis=1)
        open_ = gain[everyone, best] > -np.inf
        order[:, place] = np.where(open_, best, -1)
        chosen = categories[everyone, best][:, None]
        like |= (categories == chosen) & (chosen >= 0) & open_[:, None]
        gain[everyone, best] = -np.inf
    return order
