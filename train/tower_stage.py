"""Stage 1 of a training run: one epoch a reference date, forward in time.

The candidates of a date are collected before the towers see its labels, so that the explore head
learns from scores as good as those that it will be given, and no better. Ways to retrieve compete
on these dates: the towers, their own start, and, where nothing repeats, the graph of items. What
found most is what serves.
"""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import structlog
import torch
from torch import Tensor, nn

from reco.models.item_graph import ItemGraph
from reco.models.item_tokens import content_tokens
from reco.models.losses import Answers, draw_negatives, full_softmax, sampled_softmax
from reco.models.retrieval import Retrieval
from reco.models.towers import Towers
from reco.models.two_tower import Bags, TwoTower
from train.problem import Problem, Reference, profile_tokens

Floats = npt.NDArray[np.float32]
Rows = tuple[
    Floats, Floats
]  # features [subscribers, candidates, F], labels [subscribers, candidates]
START, LEARNED, GRAPH = WAYS = ("start", "learned", "graph")
log = structlog.get_logger()


class TowerStage:
    """Trains the towers and collects the rows of the explore head, for each way to retrieve.

    `way` is the only one where an earlier fit has found the best, "" lets all compete.
    """

    name = "towers"
    weight_decay = 0.0

    def __init__(self, problem: Problem, device: torch.device, way: str = "") -> None:
        self._way = way
        self.problem, self.config, self.device = problem, problem.config.tower, device
        dates = max(self.config.dates, problem.config.ranker.explore_dates)
        self.references = problem.references(dates, problem.config.horizon_days)
        self.end = problem.end
        self.epochs, self.rate = len(self.references), self.config.learning_rate
        self.passes = min(self.config.dates, self.epochs) if way in ("", LEARNED) else 0
        content = content_tokens(problem.catalogue, problem.rows)
        self._module = TwoTower(self.end.spectrum, self.end.statistics.log_share, content).to(
            device
        )
        users = problem.workers.max(np.array([float(len(problem.histories))]))[0]
        self._steps = max(math.ceil(users / self.config.batch), 1)
        self.rows: dict[str, list[Rows]] = {way: [] for way in WAYS}
        self.full = self.config.loss == "full" or (
            self.config.loss == "auto" and problem.items <= self.config.full_softmax_items
        )
        if not self.full and self.config.negatives == "in_batch":
            log.warning("in-batch negatives alone punish popular items: mixed ones are used")

    @property
    def module(self) -> nn.Module:
        """The towers."""
        return self._module

    def steps(self) -> int:
        """Steps of an epoch, the same on every worker."""
        return self._steps

    def losses(self, epoch: int) -> Iterator[tuple[Tensor, int]]:
        """Collect the rows of a date, then learn from it."""
        reference = self.references[epoch]
        start = self._start(reference)
        if self._way == GRAPH or not (self._way or self.problem.repeats):
            graphed = reference.explore_rows(Retrieval.of(start, reference.graph))
            self.rows[GRAPH].append(graphed)
        if not self._way and epoch and not self.rows[LEARNED]:
            return  # the graph led on the first date
        if self._way in ("", START):
            self.rows[START].append(reference.explore_rows(Retrieval.of(start, None)))
        if self._way in (START, GRAPH) or self.best() == GRAPH:
            return
        learned = Retrieval.of(self._towers(reference), None)
        self.rows[LEARNED].append(reference.explore_rows(learned))
        if epoch >= self.epochs - self.config.dates:
            seed = (self.problem.config.seed, epoch, self.problem.workers.rank)
            yield from self._pass(reference, np.random.default_rng(seed))

    def finish(self) -> tuple[Towers, ItemGraph | None, list[Rows]]:
        """Towers and graph as of the end, and the rows that go with them."""
        best = self.best()
        log.info("what retrieves new items", best=best)
        towers = self._towers(self.end) if best == LEARNED else self._start(self.end)
        return towers, self.end.graph if best == GRAPH else None, self.rows[best]

    def best(self) -> str:
        """The way that found most on dates not yet learned from; of equal ones the simplest."""
        if self._way:
            return self._way
        found = np.array([sum(hits(rows) for rows in self.rows[way]) for way in WAYS])
        dates = np.array([len(self.rows[way]) for way in WAYS])
        total = self.problem.workers.sum(found.astype(np.float64))
        total[dates < dates.max()] = -1  # it did not compete on every date
        return WAYS[int(np.argmax(total))]

    def _towers(self, reference: Reference) -> Towers:
        start = reference.spectrum.aligned_to(self.end.spectrum)
        self._module.rebase(start, reference.statistics.log_share)
        return self._module.to(self.device).eval().fold()

    def _start(self, reference: Reference) -> Towers:
        spectrum = reference.spectrum.aligned_to(self.end.spectrum)
        content = np.zeros((self.problem.items, 1), np.int64)
        return TwoTower(spectrum, reference.statistics.log_share, content).eval().fold()

    def _pass(
        self, reference: Reference, draw: np.random.Generator
    ) -> Iterator[tuple[Tensor, int]]:
        novel, bags, users = reference.novel(), reference.bags, reference.users
        tokens = profile_tokens(reference.past)
        who = draw.permutation(np.flatnonzero(np.diff(novel.indptr) > 0))
        if 0 < len(who) < self._steps:
            who = np.resize(who, self._steps)
        frequency = np.asarray(novel.sum(axis=0), np.float64).ravel()
        frequency = self.problem.workers.sum(frequency) + 1e-3
        for ids in np.array_split(who, self._steps):
            if not len(ids):  # this worker has nobody to learn from
                yield torch.stack([p.sum() for p in self._module.parameters()]).sum() * 0.0, 0
                continue
            self._module.train()
            batch = self._bags(bags[ids], tokens[ids], users[ids], draw)
            yield self._loss(batch, Answers(novel[ids], bags[ids]), frequency, draw), len(ids)

    def _loss(
        self, batch: Bags, answers: Answers, frequency: npt.NDArray[np.float64],
        draw: np.random.Generator,
    ) -> Tensor:  # fmt: skip
        if self.full:
            return full_softmax(self._module, batch, answers, self.config.id_dropout)
        mixed = self.config.negatives != "uniform"
        negatives = draw_negatives(frequency / frequency.sum(), self.config.sampled, mixed, draw)
        return sampled_softmax(
            self._module, batch, answers, negatives, self.config.logq, self.config.id_dropout
        )

    def _bags(
        self, bags: sp.csr_matrix, tokens: npt.NDArray[np.uint32], users: Floats,
        draw: np.random.Generator,
    ) -> Bags:  # fmt: skip
        keep = draw.random(len(bags.data)) >= self.config.history_dropout
        return Bags(
            rows=torch.from_numpy(bags.indices.astype(np.int64)).to(self.device),
            weights=torch.from_numpy((bags.data * keep).astype(np.float32)).to(self.device),
            offsets=torch.from_numpy(bags.indptr[:-1].astype(np.int64)).to(self.device),
            tokens=torch.from_numpy(tokens.astype(np.int64)).to(self.device),
            user=torch.from_numpy(users).to(self.device),
        )


def hits(rows: Rows, k: int = 20) -> float:
    """Discounted hits of the first k candidates, as stage 1 ordered them."""
    found = rows[1][:, :k]
    return float((found / np.log2(np.arange(2, found.shape[1] + 2))).sum())
