"""The collaborative recommender: what goes with what a subscriber took. A rival of the model.

Takes bags of who took what, gives a score of every item for any bag. Small catalogues are solved
in closed form (EASE, Steck, WWW 2019), large ones by factors (implicit ALS, Hu et al., ICDM 2008).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Floats = npt.NDArray[np.float32]
EASE_ITEMS: Final = 4_000  # beyond it the inverse takes too long
EASE_RIDGE: Final = 100.0
FACTORS: Final = 32
ROUNDS: Final = 5
CONFIDENCE: Final = 2.0  # of a unit of a bag, beside 1 for what was not taken
RIDGE: Final = 10.0
FIT_USERS: Final = 20_000  # subscribers from whom the items are learned


@dataclass(frozen=True, slots=True)
class Collaborative:
    """Over n items; either links [n, n] of EASE, or item factors [n, d] of ALS."""

    links: Floats | None
    factors: Floats | None

    @classmethod
    def fit(cls, bags: sp.csr_matrix, seed: int = 0) -> "Collaborative":
        """From bags [users, n] of weights above 0."""
        some = bags[np.flatnonzero(np.diff(bags.indptr))[:FIT_USERS]].tocsr()
        if bags.shape[1] <= EASE_ITEMS:
            return cls(_ease(some), None)
        return cls(None, _als(some, seed))

    def arrays(self) -> dict[str, Floats]:
        """What was learned, by name."""
        found = {"links": self.links, "factors": self.factors}
        return {name: array for name, array in found.items() if array is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> "Collaborative":
        """The reverse of `arrays`."""
        return cls(arrays.get("links"), arrays.get("factors"))

    def scores(self, bags: sp.csr_matrix) -> Floats:
        """Scores [users, n] of all items."""
        if self.links is not None:
            return np.asarray(bags @ self.links, np.float32)
        assert self.factors is not None
        return _solve(bags, self.factors) @ self.factors.T

    def likeness(
        self, taken: npt.NDArray[np.int32], weight: Floats, picks: npt.NDArray[np.int32]
    ) -> Floats:
        """How much each taken item speaks for each pick [taken, picks] (models.because)."""
        if self.links is not None:
            return weight[:, None] * self.links[taken][:, picks]
        assert self.factors is not None
        return weight[:, None] * (self.factors[taken] @ self.factors[picks].T)


def _ease(bags: sp.csr_matrix) -> Floats:
    gram = (bags.T @ bags).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += EASE_RIDGE
    inverse = np.linalg.inv(gram)
    links = inverse / -np.diag(inverse)
    np.fill_diagonal(links, 0)
    out: Floats = links.astype(np.float32)
    return out


def _als(bags: sp.csr_matrix, seed: int) -> Floats:
    draw = np.random.default_rng(seed)
    items = (draw.standard_normal((bags.shape[1], FACTORS)) / FACTORS).astype(np.float32)
    taken = bags.T.tocsr()
    for _ in range(ROUNDS):
        items = _solve(taken, _solve(bags, items))
    return items


def _solve(rows: sp.csr_matrix, fixed: Floats) -> Floats:
    """The factors of each row that fit best beside the fixed ones of its columns."""
    out = np.zeros((rows.shape[0], fixed.shape[1]), np.float32)
    common = fixed.T @ fixed + RIDGE * np.eye(fixed.shape[1], dtype=np.float32)
    for i in np.flatnonzero(np.diff(rows.indptr)):
        part = slice(rows.indptr[i], rows.indptr[i + 1])
        mine, weight = fixed[rows.indices[part]], CONFIDENCE * rows.data[part]
        out[i] = np.linalg.solve(common + (mine.T * weight) @ mine, mine.T @ (1 + weight))
    return out
