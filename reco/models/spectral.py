"""The start of the towers.

A truncated SVD of the decayed histories, in a second, without gradients.

A subscriber is the decayed bag of what they took, projected on the first 128 directions; an item
is the sum of its recent buyers. Training adds learned corrections to these vectors, and both are
recomputed as of any day, so they never grow stale.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Floats = npt.NDArray[np.float32]
Reduce = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]

FIRST_DAMPING: Final = 0.5  # of the first direction, which is little more than activity
OVERSAMPLE: Final = 16
POWER_ITERATIONS: Final = 4


def alone(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The sum over one worker."""
    return x


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Vectors of n items.

    taken  float32 [n, d]  what having taken an item adds to a subscriber's vector
    item   float32 [n, d]  unit vector of an item as a candidate, 0 for one without recent buyers
    """

    taken: Floats
    item: Floats

    @classmethod
    def of(
        cls, bags: sp.csr_matrix, recent: sp.csr_matrix, dim: int,
        seed: int = 0, reduce: Reduce = alone,
    ) -> "Spectrum":  # fmt: skip
        """From bags [users, n] (see `bag_weights`) and the 0/1 matrix of recent buyers [users, n].

        `reduce` adds an array up over all workers, each of which holds some of the users.
        """
        norm = np.sqrt(reduce(np.asarray(bags.multiply(bags).sum(axis=0)).ravel()))
        column = np.where(norm > 0, 1 / np.sqrt(np.maximum(norm, 1e-9)), 0).astype(np.float32)
        scaled = unit_rows(bags @ sp.diags(column))
        directions = right_vectors(scaled, dim, seed, reduce)
        directions[:, 0] *= FIRST_DAMPING
        taken = (column[:, None] * directions).astype(np.float32)
        users = unit(bags @ taken)
        return cls(taken, unit(reduce(recent.T @ users)))

    def aligned_to(self, other: "Spectrum") -> "Spectrum":
        """The same vectors in the frame of another spectrum of the same items (Procrustes)."""
        left, _, right = np.linalg.svd(self.taken.T @ other.taken)
        turn = (left @ right).astype(np.float32)
        return Spectrum(self.taken @ turn, self.item @ turn)


def unit(x: Floats) -> Floats:
    """Rows scaled to length 1; rows of length 0 stay."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    scaled: Floats = (x / np.maximum(length, 1e-9)).astype(np.float32)
    return scaled


def unit_rows(x: sp.csr_matrix) -> sp.csr_matrix:
    """Sparse rows scaled to length 1."""
    length = np.sqrt(np.asarray(x.multiply(x).sum(axis=1)).ravel())
    return (sp.diags((1 / np.maximum(length, 1e-9)).astype(np.float32)) @ x).tocsr()


def bag_weights(decayed: Floats) -> Floats:
    """Weight of an item in a subscriber's bag, from its decayed count with half-life 120 days."""
    return np.log1p(4 * decayed).astype(np.float32)


def right_vectors(x: sp.csr_matrix, dim: int, seed: int, reduce: Reduce) -> Floats:
    """First `dim` right singular vectors [n, dim].

    By randomised subspace iteration (Halko et al. 2011).

    Only products of x.T x are needed, which add up over workers that hold different subscribers.
    """
    n = x.shape[1]
    width = min(dim + OVERSAMPLE, n)
    basis = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    for _ in range(POWER_ITERATIONS):
        basis, _ = np.linalg.qr(reduce(x.T @ (x @ basis)))
    small = reduce((x @ basis).T @ (x @ basis))
    _, turn = np.linalg.eigh(small)
    found = basis @ turn[:, ::-1][:, :dim]
    # The sign of a singular vector is arbitrary: fix it, so that equal data give equal bytes.
    sign = np.where(found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])] < 0, -1, 1)
    out = np.zeros((n, dim), np.float32)
    out[:, : found.shape[1]] = found * sign
    return out
