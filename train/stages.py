"""What the loop runs one after the other: the towers date by date, then the two heads.

A stage owns a module and says the loss of its next step; the loop does the rest. The towers go first
and forward in time: the candidates of a date are collected before the towers see its labels, so that
the explore head learns from scores as good as those that it will be given, and no better.
"""

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reco.models.losses import novel_softmax
from reco.models.ranker import Head
from reco.models.towers import Towers
from reco.models.two_tower import Bags, TwoTower, content_tokens
from train.problem import Problem, Reference, profile_tokens
from train.workers import Workers

Floats = npt.NDArray[np.float32]


class Stage(Protocol):
    """One part of the model in training."""

    name: str
    module: nn.Module
    epochs: int
    rate: float  # peak learning rate
    weight_decay: float

    def steps(self) -> int: ...

    def losses(self, epoch: int) -> Iterator[tuple[Tensor, int]]:
        """Loss and examples of each step of an epoch; every worker makes `steps()` of them."""
        ...


class TowerStage:
    """One epoch a reference date, ascending in time."""

    name = "towers"
    weight_decay = 0.0

    def __init__(self, problem: Problem, device: torch.device) -> None:
        self.problem, self.config, self.device = problem, problem.config.tower, device
        ranker = problem.config.ranker
        count = max(self.config.dates, ranker.explore_dates)
        self.references = problem.references(count, problem.config.horizon_days)
        self.epochs = len(self.references)
        self.rate = self.config.learning_rate
        end = problem.end
        content = content_tokens(problem.catalogue, problem.rows)
        self.module = TwoTower(end.spectrum, end.statistics.log_share, content).to(device)
        self.end = end
        users = max((len(r.past) for r in self.references), default=0)
        self._steps = int(problem.workers.max(np.array([math.ceil(users / self.config.batch)]))[0])
        self.rows: list[tuple[Floats, Floats]] = []

    def steps(self) -> int:
        return self._steps

    def losses(self, epoch: int) -> Iterator[tuple[Tensor, int]]:
        reference = self.references[epoch]
        self._rebase(reference)
        self.rows.append(reference.explore_rows(self.towers(reference)))
        if epoch >= self.epochs - self.config.dates:
            yield from self._pass(
                reference, np.random.default_rng((self.problem.config.seed, epoch))
            )

    def finish(self) -> Towers:
        """The towers as of the end."""
        self._rebase(self.end)
        return self.towers(self.end)

    def towers(self, reference: Reference) -> Towers:
        """Folded for serving, on the start of a reference date."""
        return self.module.eval().fold()

    def _rebase(self, reference: Reference) -> None:
        start = reference.spectrum.aligned_to(self.end.spectrum)
        self.module.rebase(start, reference.statistics.log_share)
        self.module.to(self.device)

    def _pass(
        self, reference: Reference, draw: np.random.Generator
    ) -> Iterator[tuple[Tensor, int]]:
        novel, bags, users = reference.novel(), reference.bags, reference.users
        tokens = profile_tokens(reference.past)
        who = np.flatnonzero(np.diff(novel.indptr) > 0)
        order = draw.permutation(who) if len(who) else who
        order = np.resize(order, self._steps * self.config.batch) if len(order) else order
        self.module.train()
        for step in range(self._steps):
            ids = order[step * self.config.batch : (step + 1) * self.config.batch]
            if not len(ids):
                yield sum(p.sum() for p in self.module.parameters()) * 0.0, 0
                continue
            batch = self._bags(bags[ids], tokens[ids], users[ids], draw)
            yield novel_softmax(self.module, batch, novel[ids], bags[ids], self.config), len(ids)

    def _bags(
        self,
        bags: sp.csr_matrix,
        tokens: npt.NDArray[np.uint32],
        users: Floats,
        draw: np.random.Generator,
    ) -> Bags:
        keep = draw.random(len(bags.data)) >= self.config.history_dropout
        return Bags(
            rows=torch.from_numpy(bags.indices.astype(np.int64)).to(self.device),
            weights=torch.from_numpy((bags.data * keep).astype(np.float32)).to(self.device),
            offsets=torch.from_numpy(bags.indptr[:-1].astype(np.int64)).to(self.device),
            tokens=torch.from_numpy(tokens.astype(np.int64)).to(self.device),
            user=torch.from_numpy(users).to(self.device),
        )


class RepeatStage:
    """Binary cross-entropy over (subscriber, item they had), labels from the time after each date."""

    name = "repeat"

    def __init__(self, problem: Problem, device: torch.device) -> None:
        self.config, self.seed, self.device = problem.config.ranker, problem.config.seed, device
        self.epochs, self.rate, self.weight_decay = (
            self.config.epochs,
            self.config.learning_rate,
            self.config.weight_decay,
        )
        parts = [
            r.repeat_rows()
            for r in problem.references(self.config.repeat_dates, self.config.step_days)
        ]
        self.x = torch.from_numpy(np.concatenate([x for x, _ in parts]))
        self.y = torch.from_numpy(np.concatenate([y for _, y in parts]))
        self.module = Head(self.x.shape[1], self.config.hidden)
        self.module.standardise(*moments(self.x, problem.workers))
        self.module.to(device)
        rows = problem.workers.max(np.array([len(self.x)]))[0]
        self._steps = max(math.ceil(int(rows) / self.config.batch), 1)

    def steps(self) -> int:
        return self._steps

    def losses(self, epoch: int) -> Iterator[tuple[Tensor, int]]:
        for at in batches(len(self.x), self.config.batch, self._steps, (self.seed, epoch)):
            x, y = self.x[at].to(self.device), self.y[at].to(self.device)
            yield F.binary_cross_entropy_with_logits(self.module(x), y), len(at)


class ExploreStage:
    """Softmax over each subscriber's candidates: which of the new ones did they take?"""

    name = "explore"

    def __init__(
        self, problem: Problem, rows: list[tuple[Floats, Floats]], device: torch.device
    ) -> None:
        self.config, self.seed, self.device = problem.config.ranker, problem.config.seed, device
        self.epochs, self.rate, self.weight_decay = (
            self.config.epochs,
            self.config.learning_rate,
            self.config.weight_decay,
        )
        chosen = rows[-self.config.explore_dates :]
        x, y = np.concatenate([x for x, _ in chosen]), np.concatenate([y for _, y in chosen])
        some = y.any(axis=1)
        self.x, self.y = torch.from_numpy(x[some]), torch.from_numpy(y[some])
        self.module = Head(x.shape[2], self.config.hidden)
        self.module.standardise(
            *moments(torch.from_numpy(x.reshape(-1, x.shape[2])), problem.workers)
        )
        self.module.start_from(0)
        self.module.to(device)
        self._batch = max(self.config.batch // max(x.shape[1], 1), 1)
        rows_here = problem.workers.max(np.array([len(self.x)]))[0]
        self._steps = max(math.ceil(int(rows_here) / self._batch), 1)

    def steps(self) -> int:
        return self._steps

    def losses(self, epoch: int) -> Iterator[tuple[Tensor, int]]:
        for at in batches(len(self.x), self._batch, self._steps, (self.seed, epoch, 1)):
            x, y = self.x[at].to(self.device), self.y[at].to(self.device)
            chosen = F.log_softmax(self.module(x), dim=1) * y
            weight = y.sum(dim=1).clamp(min=1).rsqrt()  # many purchases count, but not in full
            yield -(chosen.sum(dim=1) * weight).sum() / max(len(at), 1), len(at)


def batches(rows: int, size: int, steps: int, seed: tuple[int, ...]) -> Iterator[Tensor]:
    """`steps` batches of row numbers in a random order, starting over where rows run out."""
    order = np.random.default_rng(seed).permutation(rows)
    if 0 < rows <= (steps - 1) * size:  # fewer rows than another worker has
        order = np.resize(order, steps * size)
    for step in range(steps):
        yield torch.from_numpy(order[step * size : (step + 1) * size].astype(np.int64))


def moments(x: Tensor, workers: Workers) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column over the rows of all workers."""
    total = workers.sum(np.stack([x.double().sum(0).numpy(), x.double().square().sum(0).numpy()]))
    rows = max(float(workers.sum(np.array([float(len(x))]))[0]), 1.0)
    mean = total[0] / rows
    scale = np.sqrt(np.maximum(total[1] / rows - mean**2, 0))
    return torch.from_numpy(mean).float(), torch.from_numpy(scale).float()
