"""Some recipients of a chunk on their own, and results put back in their places."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from reco.features.history import Histories
from reco.models.slates import Slates
from reco.rules.rules import cut

Bools = npt.NDArray[np.bool_]


def some(histories: Histories, mask: Bools) -> Histories:
    """Histories of the subscribers for whom `mask` [n] holds."""
    records = histories.records[mask[histories.owner]]
    counts = np.diff(histories.offsets)[mask]
    return Histories(records, _offsets(counts), histories.tokens[mask], histories.flags[mask])


def spread(histories: Histories, mask: Bools) -> Histories:
    """The reverse: histories of all n, empty ones where `mask` does not hold."""
    counts = np.zeros(len(mask), np.int64)
    counts[mask] = np.diff(histories.offsets)
    tokens = np.zeros((len(mask), histories.tokens.shape[1]), np.uint32)
    tokens[mask] = histories.tokens
    flags = np.zeros(len(mask), np.uint16)
    flags[mask] = histories.flags
    return Histories(histories.records, _offsets(counts), tokens, flags)


def lines(slates: Slates, rows: Sequence[int]) -> Slates:
    """Slates of the recipients at these positions."""
    at = np.array(rows, np.intp)
    why = None if slates.because is None else slates.because[at]
    return Slates(slates.items[at], slates.scores[at], slates.reasons[at], slates.rungs[at], why)


def placed(slates: Slates, mask: Bools, others: Slates) -> Slates:
    """Slates [n, w] with the rows of `mask` taken from `others`, cut or widened to w."""
    others = cut(others, slates.items.shape[1])
    columns = []
    for name in ("items", "scores", "reasons", "rungs"):
        column = getattr(slates, name).copy()
        column[mask] = getattr(others, name)
        columns.append(column)
    out = Slates(*columns)
    if slates.because is None and others.because is None:
        return out
    because = _because(slates).copy()
    because[mask] = 0 if others.because is None else others.because
    return replace(out, because=because)


def beside(slates: Slates, others: Slates) -> Slates:
    """Slates [n, w + v]: first the places of the one, behind them those of the other."""
    because = None
    if slates.because is not None or others.because is not None:
        because = np.concatenate([_because(slates), _because(others)], axis=1)
    return Slates(
        np.concatenate([slates.items, others.items], axis=1),
        np.concatenate([slates.scores, others.scores], axis=1),
        np.concatenate([slates.reasons, others.reasons], axis=1),
        np.concatenate([slates.rungs, others.rungs], axis=1),
        because,
    )


def _because(slates: Slates) -> npt.NDArray[np.uint64]:
    return np.zeros_like(slates.items) if slates.because is None else slates.because


def _offsets(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
