"""What became of every candidate: which rule took it, whether it was shown. The decision record.

Takes candidates and rules, gives the same slates as `rules.apply` and a code a candidate.
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from reco.models.slates import Slates
from reco.rules.rules import RULES, Bools, RuleContext

Codes = npt.NDArray[np.uint8]


class Fate(IntEnum):
    """What became of a candidate. Kept in the lake: numbers never change their meaning."""

    LEFT = 0  # allowed, but others stood before it
    SHOWN = 1
    CAPPED = 2  # shown often enough lately
    DISTINCT = 3
    NOT_BLOCKED = 4
    IN_STOCK = 5
    NOT_BOUGHT = 6
    PER_CATEGORY = 7
    DIVERSE = 8
    NOT_REFUSED = 9


def followed(slates: Slates, context: RuleContext) -> tuple[Slates, Codes]:
    """What all rules leave of slates [n, w], and the Fate [n, w] of those that they took."""
    fates = np.zeros(slates.items.shape, np.uint8)
    left = slates
    for rule in RULES:
        after = rule(left, context)
        # Most rules take nothing of most chunks, and counting is cheap.
        lost = np.count_nonzero(after.items, axis=1) < np.count_nonzero(left.items, axis=1)
        if lost.any():
            gone = ~_among(slates.items[lost], after.items[lost]) & (fates[lost] == Fate.LEFT)
            fates[lost] = np.where(gone, Fate[rule.__name__.upper()], fates[lost])
        left = after
    return left, np.where(slates.items == 0, np.uint8(Fate.LEFT), fates)


def settled(
    fates: Codes, slates: Slates, ruled: Slates, chosen: Bools, picks: int, shown: Slates
) -> Codes:
    """Fates of candidates [n, w] once caps and picks are known.

    ruled   what the rules left, in the order of which `chosen` [n, w] is the caps' mask
    shown   the final slates [n, picks]
    """
    capped = ~chosen & (ruled.items != 0) & (np.cumsum(chosen, axis=1) < picks)
    if capped.any():
        over = np.where(capped, ruled.items, 0)
        fates = np.where(_among(slates.items, over), np.uint8(Fate.CAPPED), fates)
    return np.where(_among(slates.items, shown.items), np.uint8(Fate.SHOWN), fates)


def _among(items: npt.NDArray[np.uint64], others: npt.NDArray[np.uint64]) -> Bools:
    """Whether items[i, j] is one of others[i]; never for an empty place."""
    same = items[:, :, None] == others[:, None, :]
    return np.asarray(same.any(axis=2) & (items != 0), np.bool_)
