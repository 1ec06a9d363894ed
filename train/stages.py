"""What the loop runs one after the other: the towers (train.tower_stage), then the two heads.

A stage owns a module and says the loss of its next step; the loop does the rest.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reco.models.explore import EXPLORE_FEATURES
from reco.models.ranker import Head
from reco.models.repeat import REPEAT_FEATURES
from train.config import RankerConfig
from train.problem import Problem
from train.workers import Workers

Floats = npt.NDArray[np.float32]
STEPS: Final = 150  # fewest steps of an epoch: a small shop gets smaller batches
SMALLEST: Final = 256  # rows of a batch
MOMENT_ROWS: Final = 100_000  # rows at once, which bounds the memory


class Stage(Protocol):
    """One part of the model in training; `rate` is its peak learning rate.

    `passes` of the epochs take steps, the last ones.
    """

    name: str
    epochs: int
    passes: int
    rate: float
    weight_decay: float

    @property
    def module(self) -> nn.Module:
        """What is trained."""

    def steps(self) -> int:
        """Steps of an epoch, the same on every worker."""

    def losses(self, epoch: int) -> Iterator[tuple[Tensor, int]]:
        """Loss and number of examples of each step of an epoch."""


class HeadStage:
    """A head of the ranker over rows x and labels y; the first axis is shuffled into batches."""

    def __init__(
        self, name: str, head: Head, rows: tuple[Tensor, Tensor], batch: int,
        loss: Callable[[Tensor, Tensor], Tensor], problem: Problem, device: torch.device,
    ) -> None:  # fmt: skip
        config: RankerConfig = problem.config.ranker
        self.name, self.epochs, self.passes = name, config.epochs, config.epochs
        self.rate, self.weight_decay = config.learning_rate, config.weight_decay
        self.head, self._rows, self._loss = head.to(device), rows, loss
        self._device, self._seed = device, (problem.config.seed, problem.workers.rank)
        most = int(problem.workers.max(np.array([float(len(rows[0]))]))[0])
        self._batch = max(batch // problem.workers.count, 1)
        self._steps = max(math.ceil(most / self._batch), 1)

    @property
    def module(self) -> nn.Module:
        """The head."""
        return self.head

    def steps(self) -> int:
        """Steps of an epoch, the same on every worker."""
        return self._steps

    def losses(self, epoch: int) -> Iterator[tuple[Tensor, int]]:
        """One pass over the rows; a worker with fewer of them goes through some again."""
        order = np.random.default_rng((*self._seed, epoch)).permutation(len(self._rows[0]))
        if 0 < len(order) < self._steps:
            order = np.resize(order, self._steps)
        for at in np.array_split(order, self._steps):
            x, y = (part[torch.from_numpy(at)].to(self._device) for part in self._rows)
            yield self._loss(self.head(x), y), len(at)


def repeat_stage(problem: Problem, device: torch.device) -> HeadStage:
    """Cross-entropy over (subscriber, item they had), labels from the time after each date."""
    config = problem.config.ranker
    dates = problem.references(config.repeat_dates, config.step_days)
    parts = [reference.repeat_rows() for reference in dates]
    x, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    torch.manual_seed(problem.config.seed)  # so that a resumed run starts from the same weights
    head = Head(len(REPEAT_FEATURES), config.hidden)
    head.standardise(*moments(x, problem.workers))
    taken, rows = problem.workers.sum(np.array([float(y.sum()), float(len(y))]))
    # It begins as personal frequency, the best simple rule, at the right overall level.
    head.start_from(REPEAT_FEATURES.index("log_decayed120"), math.log((taken + 1) / (rows + 1)) - 1)
    batch = max(min(int(rows) // STEPS, config.batch), min(SMALLEST, config.batch))
    tensors = torch.from_numpy(x), torch.from_numpy(y)
    return HeadStage("repeat", head, tensors, batch, taken_again, problem, device)


def explore_stage(
    problem: Problem, rows: Sequence[tuple[Floats, Floats]], device: torch.device
) -> HeadStage:
    """Softmax over each subscriber's candidates: which of the new ones did they take?"""
    config = problem.config.ranker
    x, y = (np.concatenate(part) for part in zip(*rows[-config.explore_dates :], strict=True))
    torch.manual_seed(problem.config.seed)
    head = Head(len(EXPLORE_FEATURES), config.hidden)
    head.standardise(*moments(x.reshape(-1, x.shape[2]), problem.workers))
    head.start_from(EXPLORE_FEATURES.index("retrieval"), 0.0)
    some = y.any(axis=1)
    users = int(problem.workers.sum(np.array([float(some.sum())]))[0])
    full = max(config.batch // x.shape[1], 1)
    batch = max(min(users // STEPS, full), min(SMALLEST // x.shape[1] + 1, full))
    tensors = torch.from_numpy(x[some]), torch.from_numpy(y[some])
    return HeadStage("explore", head, tensors, batch, chosen_first, problem, device)


def taken_again(logits: Tensor, y: Tensor) -> Tensor:
    """Mean binary cross-entropy; 0 for a worker without rows."""
    total = F.binary_cross_entropy_with_logits(logits, y, reduction="sum")
    return total / max(len(y), 1)


def chosen_first(logits: Tensor, y: Tensor) -> Tensor:
    """Softmax cross-entropy [n, c]; a subscriber with m answers weighs sqrt(m)."""
    chosen = (F.log_softmax(logits, dim=1) * y).sum(dim=1)
    weight = y.sum(dim=1).clamp(min=1).rsqrt()
    return -(chosen * weight).sum() / max(len(y), 1)


def moments(x: Floats, workers: Workers) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column over the rows of all workers."""
    total = np.zeros((2, x.shape[1]))
    for start in range(0, len(x), MOMENT_ROWS):
        part = x[start : start + MOMENT_ROWS].astype(np.float64)
        total += np.stack([part.sum(axis=0), np.square(part).sum(axis=0)])
    rows = max(float(workers.sum(np.array([float(len(x))]))[0]), 1.0)
    mean, square = workers.sum(total) / rows
    scale = np.sqrt(np.maximum(square - mean**2, 0))
    return torch.from_numpy(mean).float(), torch.from_numpy(scale).float()
