"""The other recommenders behind the signature of the Scorer: selectable, and judged by the gate.

Takes the histories of a shop, gives scorers by name: popular, frequency, collaborative, content.
Their scores are no probabilities, so slates carry 0, as those of the ladder do.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco.catalogue import Catalogue, KeyIndex
from reco.features.history import Histories, cutoff_day
from reco.features.pairs import Pairs, pairs
from reco.models.plain import NAMES, REASONS, Plain
from reco.models.simple import HALF_LIFE, popularity
from reco.models.slates import Reason, Rung, Slates
from reco.models.spectral import bag_weights

__all__ = ["NAMES", "Rival", "bags_of", "rival"]

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
RECENT_DAYS: Final = 28
NEVER: Final = np.float32(-np.inf)


@dataclass(frozen=True, slots=True)
class Rival:
    """A simple recommender over `rows` of a catalogue; what it leaves open is popular."""

    plain: Plain
    catalogue: Catalogue
    rows: npt.NDArray[np.int32]
    event_type: int
    repeats: bool

    def score(
        self, histories: Histories, as_of: datetime, k: int, *,
        allowed: Mask | None = None, novel_only: bool = False,
    ) -> Slates:  # fmt: skip
        """Best k items of each subscriber, as Scorer.score."""
        bags = self.bags(histories, cutoff_day(as_of))
        scores = self.plain.scores(bags)
        owner = np.repeat(np.arange(len(histories)), np.diff(bags.indptr))
        if novel_only or not self.repeats:
            scores[owner, bags.indices] = NEVER
        if allowed is not None:
            scores[:, ~allowed[self.rows]] = NEVER
        return self._slates(scores, bags, k)

    def bags(self, histories: Histories, as_of_day: int) -> sp.csr_matrix:
        """Decayed bags [users, n] as of a day."""
        found = pairs(histories.before(as_of_day), as_of_day, self.event_type)
        index = KeyIndex(self.catalogue.keys[self.rows])
        return bags_of(found, index, len(histories), len(self.rows))

    def _slates(self, scores: Floats, bags: sp.csr_matrix, k: int) -> Slates:
        part = np.argpartition(-scores, min(k, scores.shape[1] - 1), axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, part, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(part, order, axis=1)
        value = np.take_along_axis(scores, best, axis=1)
        out = Slates.empty(len(scores), k)
        there, width = value > 0, best.shape[1]
        out.items[:, :width] = np.where(there, self.catalogue.keys[self.rows][best], 0)
        had = np.asarray(bags[np.arange(len(best))[:, None], best].todense()) > 0
        reason = np.where(had, Reason.REPEAT, REASONS[self.plain.name])
        out.reasons[:, :width] = np.where(there, reason, 0)
        out.rungs[:, :width] = np.where(there, Rung.LIVE, 0)
        return out


def bags_of(found: Pairs, index: KeyIndex, n: int, items: int) -> sp.csr_matrix:
    """Decayed bags [n, items] of pairs."""
    row = index.rows(found.item)
    kept = row >= 0
    weights = bag_weights(found.decayed[kept, HALF_LIFE])
    return sp.csr_matrix((weights, (found.owner[kept], row[kept])), (n, items))


def rival(
    name: str, histories: Histories, catalogue: Catalogue, usable: Mask, as_of_day: int,
    event_type: int, repeats: bool,
) -> Rival:  # fmt: skip
    """The recommender `name` (NAMES), fitted on what happened before `as_of_day`."""
    rows = np.flatnonzero(usable).astype(np.int32)
    index, n = KeyIndex(catalogue.keys[rows]), len(rows)
    past = histories.before(as_of_day)
    takers = popularity(past, index, n, as_of_day, event_type, RECENT_DAYS)

    bags = bags_of(pairs(past, as_of_day, event_type), index, len(past), n)
    plain = Plain.fit(name, bags, takers, catalogue, rows)
    return Rival(plain, catalogue, rows, event_type, repeats)
