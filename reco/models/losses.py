"""Losses of the towers.

Softmax over the whole catalogue, or over sampled items with corrected logits.

Only items that were new to a subscriber count, as answers and as alternatives: what they had
before has a head of its own. In-batch negatives alone are not offered: they punish popular items.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.nn import functional as F

from reco.models.two_tower import Bags, TwoTower

MASKED: Final = -1e9
LogQ = Literal["none", "classic", "corrected"]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a batch of n subscribers took and had.

    Sparse 0/1 [n, items] each, apart from one another.
    """

    novel: sp.csr_matrix
    seen: sp.csr_matrix


def full_softmax(towers: TwoTower, bags: Bags, answers: Answers, id_dropout: float) -> Tensor:
    """Cross-entropy of the new items that were taken, among all that were new.

    A subscriber with m answers weighs sqrt(m): many count more, but not in full.
    """
    logits = towers.logits(towers.users(bags), towers.items(id_dropout))
    owner, item = _cells(answers.seen, logits.device)
    mask = torch.zeros_like(logits, dtype=torch.bool)
    mask[owner, item] = True
    chances = F.log_softmax(logits.masked_fill(mask, MASKED), dim=1)
    owner, item = _cells(answers.novel, logits.device)
    return weighted_mean(-chances[owner, item], owner, answers.novel)


def sampled_softmax(
    towers: TwoTower, bags: Bags, answers: Answers, draw: "Draw", logq: LogQ, id_dropout: float
) -> Tensor:
    """The same over sampled alternatives; `logq` says how the sampling is undone."""
    device = towers.bias.device
    owner, _ = _cells(answers.novel, device)
    rows = torch.from_numpy(np.concatenate([draw.items, answers.novel.indices])).to(device)
    users, items = towers.users(bags), towers.items_at(rows.long(), id_dropout)
    bias = (towers.prior + towers.bias)[rows.long()]
    logits = towers.scale * users @ items[: len(draw.items)].T + bias[: len(draw.items)]
    own = items[len(draw.items) :]
    target = towers.scale * (users[owner] * own).sum(dim=1) + bias[len(draw.items) :]
    known = torch.from_numpy(_members(draw.items, answers)).to(device)
    negatives = logits.masked_fill(known, MASKED)[owner]
    log_expected = torch.from_numpy(np.log(draw.expected).astype(np.float32)).to(device)
    own_expected = torch.from_numpy(
        np.log(draw.expected_of(answers.novel.indices)).astype(np.float32)
    )
    losses = sampled_loss(target, negatives, log_expected, own_expected.to(device), logq)
    return weighted_mean(losses, owner, answers.novel)


def sampled_loss(
    positive: Tensor,
    negatives: Tensor,
    log_expected: Tensor,
    log_expected_positive: Tensor,
    logq: LogQ,
) -> Tensor:
    """Loss [e] of positives [e] against sampled negatives [e, s].

    log_expected [s]: log of how often each negative was expected in the sample.
    classic (Yi et al. 2019) corrects the positive as if it had been sampled, too. corrected
    (arXiv 2507.09331) knows that the positive is always there: it is not corrected, and its loss is
    weighted by 1 - p(positive), which makes the gradient that of the full softmax.
    """
    if logq == "none":
        return torch.logsumexp(torch.cat([positive[:, None], negatives], dim=1), dim=1) - positive
    corrected = negatives - log_expected
    if logq == "classic":
        target = positive - log_expected_positive
        return torch.logsumexp(torch.cat([target[:, None], corrected], dim=1), dim=1) - target
    rest = torch.logsumexp(corrected, dim=1)
    return torch.sigmoid(rest - positive).detach() * (rest - positive)


@dataclass(frozen=True, slots=True)
class Draw:
    """Sampled negatives: items int64 [s], how often each was expected [s], and of any item."""

    items: npt.NDArray[np.int64]
    expected: npt.NDArray[np.float64]
    _uniform: float
    _batch: npt.NDArray[np.float64] | None

    def expected_of(self, rows: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """Expected number of each row in a sample."""
        out = np.full(len(rows), self._uniform)
        return out if self._batch is None else out + self._batch[rows]


def draw_negatives(
    frequency: npt.NDArray[np.float64], size: int, mixed: bool, random: np.random.Generator
) -> Draw:
    """Half by frequency, as a batch would bring them, and half uniform (mixed); or all uniform.

    frequency [items] sums to 1. Mixing (Yang et al. 2020) lets rare items be seen as well.
    """
    items = len(frequency)
    by_batch = size // 2 if mixed else 0
    rows = np.concatenate(
        [random.choice(items, by_batch, p=frequency), random.integers(0, items, size - by_batch)]
    ).astype(np.int64)
    uniform, batch = (size - by_batch) / items, by_batch * frequency if mixed else None
    draw = Draw(rows, np.empty(0), uniform, batch)
    return Draw(rows, draw.expected_of(rows.astype(np.int32)), uniform, batch)


def weighted_mean(losses: Tensor, owner: Tensor, novel: sp.csr_matrix) -> Tensor:
    """Mean of the answers' losses, so that a subscriber with m answers weighs sqrt(m)."""
    count = torch.from_numpy(np.diff(novel.indptr).astype(np.float32)).to(losses.device)
    return (losses / count[owner].sqrt()).sum() / count.sqrt().sum().clamp(min=1)


def _cells(matrix: sp.csr_matrix, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of each entry, row by row."""
    owner = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return (
        torch.from_numpy(owner.astype(np.int64)).to(device),
        torch.from_numpy(matrix.indices.astype(np.int64)).to(device),
    )


def _members(items: npt.NDArray[np.int64], answers: Answers) -> npt.NDArray[np.bool_]:
    """Whether each subscriber took or had each of the items [n, s]."""
    return np.asarray((answers.novel + answers.seen)[:, items].todense()) > 0
