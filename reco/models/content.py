"""The content-based recommender: items like those that a subscriber took, by what they are.

Takes the words of the catalogue (category, brand, price band, title), gives scores of all items
and, for each pick, the item that it was picked for: "because you bought X". A rival of the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco.catalogue import Catalogue
from reco.models.item_tokens import CONTENT_ROWS, content_tokens
from reco.models.spectral import unit_rows

Floats = npt.NDArray[np.float32]
OWN: Final = 1e-6  # weight of the own likeness beside an item's popularity


@dataclass(frozen=True, slots=True)
class Content:
    """Words [n, tokens] of n items as unit rows, rare ones weigh more; popular [n] log takers."""

    words: sp.csr_matrix
    popular: Floats

    @classmethod
    def of(
        cls, catalogue: Catalogue, rows: npt.NDArray[np.int32], takers: npt.NDArray[np.float64]
    ) -> "Content":
        """Of the catalogue's `rows` [n], taken by `takers` [n] subscribers lately."""
        tokens = content_tokens(catalogue, rows)
        item, place = np.nonzero(tokens)
        found = sp.csr_matrix(
            (np.ones(len(item), np.float32), (item, tokens[item, place])), (len(rows), CONTENT_ROWS)
        )
        found.data[:] = 1
        rarity = np.log((len(rows) + 1) / (1 + np.asarray(found.sum(axis=0)).ravel()))
        return cls(
            unit_rows((found @ sp.diags(rarity)).tocsr()), np.log1p(takers).astype(np.float32)
        )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What was learned, by name."""
        words = self.words
        return {
            "popular": self.popular, "data": words.data, "indices": words.indices,
            "indptr": words.indptr,
        }  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> "Content":
        """The reverse of `arrays`."""
        parts = (arrays["data"], arrays["indices"], arrays["indptr"])
        words = sp.csr_matrix(parts, (len(arrays["popular"]), CONTENT_ROWS))
        return cls(words, arrays["popular"])

    def scores(self, bags: sp.csr_matrix) -> Floats:
        """Scores [users, n]: likeness to the bag, times log popularity."""
        likeness = (unit_rows((bags @ self.words).tocsr()) @ self.words.T).toarray()
        return np.asarray(likeness * (self.popular + OWN), np.float32)

    def likeness(
        self, taken: npt.NDArray[np.int32], weight: Floats, picks: npt.NDArray[np.int32]
    ) -> Floats:
        """How much each taken item speaks for each pick [taken, picks] (models.because)."""
        alike = (self.words[taken] @ self.words[picks].T).toarray()
        return np.asarray(weight[:, None] * alike, np.float32)
