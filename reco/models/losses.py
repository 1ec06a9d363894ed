"""Losses of the towers: softmax over the whole catalogue, or over sampled items with corrected logits."""

from typing import Protocol

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.nn import functional as F

from reco.models.two_tower import Bags, TwoTower

MASKED = -1e9


class SoftmaxConfig(Protocol):
    """What the losses read of the configuration."""

    @property
    def id_dropout(self) -> float: ...


def novel_softmax(
    towers: TwoTower, bags: Bags, novel: sp.csr_matrix, seen: sp.csr_matrix, config: SoftmaxConfig
) -> Tensor:
    """Cross-entropy of the new items that n subscribers took, among all that were new to them.

    novel, seen: [n, items]. A subscriber with m answers weighs sqrt(m): many count more, but not in full.
    """
    logits = towers.logits(towers.users(bags), towers.items(config.id_dropout))
    hidden = seen.tocoo()
    mask = torch.zeros_like(logits, dtype=torch.bool)
    mask[_long(hidden.row, logits), _long(hidden.col, logits)] = True
    chances = F.log_softmax(logits.masked_fill(mask, MASKED), dim=1)
    answers = novel.tocoo()
    count = torch.from_numpy(np.diff(novel.indptr).astype(np.float32)).to(logits.device)
    owner = _long(answers.row, logits)
    taken = chances[owner, _long(answers.col, logits)]
    return -(taken / count[owner].sqrt()).sum() / count.sqrt().sum()


def _long(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(like.device)
