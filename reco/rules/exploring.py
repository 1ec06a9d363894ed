"""A draw among the candidates, so that a later model can be judged by what came of it.

Takes slates after the rules, gives the same candidates in a random order with the chance of each to
stand in its place: without chances a log says nothing of another policy (experiments.off_policy).
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from reco.models.slates import Reason, Slates
from reco.rules.rules import Bools

# SplitMix64 (Steele, Lea, Flood 2014): good enough to shuffle, the same in every process.
STEP, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def drawn(
    slates: Slates, who: Bools, seeds: npt.NDArray[np.uint64]
) -> tuple[Slates, npt.NDArray[np.float64]]:
    """Candidates of the recipients `who` [n] in a random order; the chance [n] of each place.

    Every order of c candidates is as likely as any other, so the chance is 1 / c. It is 0 where
    nothing is drawn. `seeds` [n] make the same draw again.
    """
    there = slates.items != 0
    if not who.any():
        return slates, np.zeros(len(slates))
    places = np.arange(slates.items.shape[1], dtype=np.uint64)
    dice = np.where(there, _mixed(seeds[:, None], places), np.iinfo(np.uint64).max)
    order = np.where(who[:, None], np.argsort(dice, axis=1), places.astype(np.intp))
    mixed = slates.take(order)
    reasons = np.where(who[:, None] & (mixed.items != 0), np.uint8(Reason.EXPLORE), mixed.reasons)
    count = there.sum(axis=1)
    chances = np.where(who & (count > 0), 1 / np.maximum(count, 1), 0.0)
    return replace(mixed, reasons=reasons), chances


def _mixed(seeds: npt.NDArray[np.uint64], places: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Random bits of each seed and place."""
    with np.errstate(over="ignore"):
        z = seeds + (places + np.uint64(1)) * np.uint64(STEP)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(FIRST)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(SECOND)
        mixed: npt.NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed
