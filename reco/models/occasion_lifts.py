"""Chances as they are at the moment of a mail: what `reco.features.occasion` learned, joined.

Takes slates with their chances, gives them in the order of now. Stock needs no lift: what is sold
out is not among the candidates (rules.RuleContext.allowed).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from reco.catalogue import Catalogue
from reco.features.moment import Moment
from reco.features.occasion import CELLS, PROMOTION, cells, windows
from reco.models.slates import Rung, Slates

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lifts:
    """Lifts over the m rows of a catalogue; one more row at the end stands for unknown items.

    by_cell   float32 [CELLS, m + 1]
    promotion what an item gains while it is promoted
    first, last  float64 [m + 1] its window (s since 1970)
    """

    catalogue: Catalogue
    by_cell: Floats
    promotion: float
    first: Doubles
    last: Doubles

    @classmethod
    def of(cls, table: pl.DataFrame, catalogue: Catalogue) -> "Lifts":
        """Lifts of what `learn` gave, for the items that are sold now."""
        by_cell = np.zeros((CELLS, len(catalogue) + 1), np.float32)
        code = {name: i for i, name in enumerate(catalogue.category_names)}
        by_code = np.zeros((CELLS, len(code) + 1), np.float32)  # the last: without a category
        promotion = 0.0
        for cell, category, lift in table.iter_rows():
            if cell == PROMOTION:
                promotion = lift
            elif category in code:
                by_code[cell, code[category]] = lift
        by_cell[:, :-1] = by_code[:, catalogue.category]
        first, last = windows(catalogue)
        return cls(
            catalogue, by_cell, promotion, np.append(first, np.inf), np.append(last, -np.inf)
        )

    def joined(self, slates: Slates, when: datetime, timezones: Sequence[str]) -> Slates:
        """Slates [n, w] in the order of their chances at this moment.

        Only picks of the model move, and only among themselves. Where a model ranks by something
        else than the chance (what a shown item earns), its order stays.
        """
        if not slates.items.size:
            return slates
        rows = self.catalogue.index.rows(slates.items)
        moment = Moment.at(when, [zone or None for zone in timezones])
        lift = self.by_cell[cells(moment)[:, None], rows]
        now = when.astimezone(UTC).timestamp()
        lift = lift + self.promotion * ((self.first[rows] <= now) & (now < self.last[rows]))
        ours = (slates.items != 0) & (slates.rungs <= Rung.LOOKALIKE) & (slates.scores > 0)
        chances = np.where(ours, _raised(slates.scores, lift), slates.scores).astype(np.float32)
        falling = np.where(ours, slates.scores, 0)
        by_chance = np.all(falling[:, 1:] <= falling[:, :-1], axis=1, keepdims=True)
        order = np.argsort(np.where(ours, -chances, 1.0), axis=1, kind="stable")
        order = np.where(by_chance, order, np.arange(order.shape[1]))
        raised = replace(slates, scores=np.where(by_chance, chances, slates.scores))
        return raised.take(order)


def _raised(chances: Floats, lift: Floats) -> Floats:
    """Chances with so much added to their log-odds."""
    p = np.clip(chances.astype(np.float64), 1e-9, 1 - 1e-9)
    raised: Floats = (1 / (1 + (1 - p) / p * np.exp(-lift))).astype(np.float32)
    return raised
