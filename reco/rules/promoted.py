"""Promoted items: a quota of mails has a place for what the shop wants to sell, and says so.

Put among the candidates before the rules, so blocklists, stock, limits and caps hold for them as
for any other; what they take away is not made up for.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from reco.models.slates import Reason, Rung, Slates
from reco.rules.rules import Bools
from reco.tables import item_keys

_MIX: Final = np.uint64(0x9E3779B97F4A7C15)  # another draw than that of other rules


def promoted_into(
    slates: Slates,
    who: Bools,
    item_ids: Sequence[str],
    first: int,
    slots: int,
    share: float,
    seeds: npt.NDArray[np.uint64],
) -> Slates:
    """Slates [n, w] with `slots` promoted items from place `first` on, in a share of `who` [n].

    The items take turns by `seeds` [n]; one that stands before already keeps its place. Their
    reason is PROMOTED, and they have no score of their own.
    """
    keys = item_keys(item_ids)
    with np.errstate(over="ignore"):
        dice = (seeds * _MIX) >> np.uint64(11)
    chosen = who & (dice < np.uint64(share * 2**53))
    slots = min(slots, len(keys), slates.items.shape[1] - first)
    if slots <= 0 or not chosen.any():
        return slates
    rows = np.flatnonzero(chosen)
    turn = seeds[rows, None] % np.uint64(len(keys)) + np.arange(slots, dtype=np.uint64)
    turn %= np.uint64(len(keys))
    places = np.arange(slates.items.shape[1])
    later = np.where(places < first + slots, -1, places - slots)
    order = np.broadcast_to(places, slates.items.shape).copy()
    order[rows] = np.where(places < first, places, later)
    moved = slates.take(order)
    at = (rows[:, None], first + np.arange(slots))
    for column, value in (
        (moved.items, keys[turn.astype(np.intp)]),
        (moved.reasons, Reason.PROMOTED),
        (moved.rungs, Rung.EDITORIAL),
    ):
        column[at] = value
    return moved
