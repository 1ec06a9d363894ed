"""What goes with what, in closed form: two hops over the graph of subscribers and items.

Takes who took what, gives a score of every item for any bag. It is the linear filter of GF-CF (Shen
et al., CIKM 2021): neighbours two hops away, plus the smooth part of the spectrum. Nothing is
learned by gradients; where times are unknown or nothing repeats, it finds more than towers do.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco.models.spectral import Reduce, alone, right_vectors
from reco.models.taste import Known

Floats = npt.NDArray[np.float32]
NEIGHBOURS: Final = 200  # of each item that are kept
SMOOTH_WEIGHT: Final = 0.3  # of the smooth part beside the neighbours
BLOCK_CELLS: Final = 20_000_000  # of the square of all items that are in memory at once


@dataclass(frozen=True, slots=True)
class ItemGraph:
    """Over n items, with e links: score of a bag x is x @ links + (x @ taken) @ item.T.

    offsets    int64 [n + 1]  links of item i are [offsets[i]:offsets[i + 1]]
    neighbour  int32 [e]
    weight     float32 [e]
    taken      float32 [n, d]
    item       float32 [n, d]
    """

    offsets: npt.NDArray[np.int64]
    neighbour: npt.NDArray[np.int32]
    weight: Floats
    taken: Floats
    item: Floats

    @classmethod
    def of(
        cls, took: sp.csr_matrix, dim: int, seed: int = 0, reduce: Reduce = alone,
        neighbours: int = NEIGHBOURS,
    ) -> "ItemGraph":  # fmt: skip
        """From the 0/1 matrix [users, n] of who took what.

        `reduce` adds an array up over all workers, each of which holds some of the users.
        """
        degree = reduce(np.asarray(took.sum(axis=0), np.float64).ravel())
        own = np.maximum(np.diff(took.indptr), 1)
        inverse = np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1)), 0)
        scaled = (sp.diags(1 / np.sqrt(own)) @ took @ sp.diags(inverse)).tocsr().astype(np.float32)
        links = _links(scaled, neighbours, reduce)
        directions = right_vectors(scaled, dim, seed, reduce)
        return cls(
            offsets=links.indptr.astype(np.int64),
            neighbour=links.indices.astype(np.int32),
            weight=links.data.astype(np.float32),
            taken=(SMOOTH_WEIGHT * inverse[:, None] * directions).astype(np.float32),
            item=(np.sqrt(degree)[:, None] * directions).astype(np.float32),
        )

    def scores(self, known: Known, n: int) -> Floats:
        """Scores float32 [n, items] of a chunk of n subscribers by what they had."""
        items = len(self.taken)
        starts = np.searchsorted(known.owner, np.arange(n + 1))
        bags = sp.csr_matrix((np.ones(len(known.row), np.float32), known.row, starts), (n, items))
        links = sp.csr_matrix((self.weight, self.neighbour, self.offsets), (items, items))
        found: Floats = (bags @ self.taken) @ self.item.T
        found += (bags @ links).toarray()
        return found


def _links(scaled: sp.csr_matrix, neighbours: int, reduce: Reduce) -> sp.csr_matrix:
    """The `neighbours` strongest entries of each row of scaled.T @ scaled [n, n], by blocks."""
    items = scaled.shape[1]
    other, step = scaled.tocsc(), max(BLOCK_CELLS // max(items, 1), 1)
    kept = min(neighbours, items)
    blocks = []
    for start in range(0, items, step):
        part = reduce((other[:, start : start + step].T @ scaled).toarray())
        column = np.argpartition(-part, kept - 1, axis=1)[:, :kept]
        column.sort(axis=1)
        weight = np.take_along_axis(part, column, axis=1)
        row = np.repeat(np.arange(len(part)), kept)
        there = weight.ravel() > 0
        cells = (row[there], column.ravel()[there])
        blocks.append(sp.csr_matrix((weight.ravel()[there], cells), (len(part), items)))
    return sp.vstack(blocks, format="csr")
