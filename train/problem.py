"""A training run as one worker sees it: its subscribers, the model's items, and reference dates.

Takes the worker's histories, gives rows for the heads and bags for the towers. Sums over all
subscribers go through Workers, so that several workers agree on every statistic.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco.catalogue import Catalogue, KeyIndex
from reco.features.history import NO_PROFILING, Histories
from reco.features.pairs import Pairs, pairs
from reco.features.touches import touched
from reco.models.explore import EXPLORE_FEATURES, explore_matrix
from reco.models.item_graph import ItemGraph
from reco.models.item_statistics import ItemStatistics, ItemSums, item_sums
from reco.models.kinds import kinds
from reco.models.lookalike import POPULAR, Lookalike, token_takers
from reco.models.priors import category_priors
from reco.models.repeat import repeat_matrix
from reco.models.retrieval import Retrieval
from reco.models.spectral import Spectrum
from reco.models.taste import Known, Taste
from reco.models.towers import bag_matrix
from train.config import TrainConfig
from train.timeline import Timeline
from train.workers import Workers

Floats = npt.NDArray[np.float32]
CHUNK: Final = 2048  # subscribers whose features are made at once
MIN_TOKEN_MEMBERS: Final = 20  # smaller segments say nothing


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some subscribers at a reference date, as the Scorer sees them."""

    start: int
    stop: int
    pairs: Pairs
    known: Known
    taste: Taste
    tokens: npt.NDArray[np.uint32]


class Problem:
    """What is learned from, on one worker."""

    def __init__(
        self, histories: Histories, catalogue: Catalogue, timeline: Timeline, config: TrainConfig,
        event_type: int, workers: Workers, repeats: bool = True,
        touches: bool = False,
    ) -> None:  # fmt: skip
        self.histories, self.catalogue, self.timeline, self.config = (
            histories,
            catalogue,
            timeline,
            config,
        )
        self.event_type, self.workers, self.repeats = event_type, workers, repeats
        self.evidence = touched(histories, event_type) if touches else histories
        past = timeline.everything(self.evidence)
        row = catalogue.index.rows(past.records["item"])
        mine = (row >= 0) & (past.records["type"] == event_type)
        events = workers.sum(np.bincount(row[mine], past.records["count"][mine], len(catalogue)))
        self.rows = np.flatnonzero(events >= config.min_item_events).astype(np.int32)
        if len(self.rows) < 2 * config.k:  # a tiny shop: every item that was ever taken
            self.rows = np.flatnonzero(events > 0).astype(np.int32)
        self.items = len(self.rows)
        self.kinds = kinds(catalogue)[self.rows]
        self.index = KeyIndex(catalogue.keys[self.rows])
        days = past.records["day"][mine].astype(np.int64)
        self.first_day = int(workers.min(np.array([days.min(initial=timeline.end_day)]))[0])

    @property
    def end(self) -> "Reference":
        """All that may be seen."""
        return Reference(self, self.timeline.end_day, final=True)

    def references(self, count: int, step_days: int) -> list["Reference"]:
        """Reference dates with known labels, ascending."""
        return [
            Reference(self, day) for day in self.timeline.dates(count, step_days, self.first_day)
        ]


class Reference:
    """A reference date: what is known then, and what came after."""

    def __init__(self, problem: Problem, day: int, final: bool = False) -> None:
        self.problem, self.day = problem, day
        timeline = problem.timeline
        self.past = self._known(problem.evidence, final)
        same = problem.evidence is problem.histories
        self.taken = self.past if same else self._known(problem.histories, final)
        # Records without a time have day 0 and age 0 at any date.
        self.as_of_day = 1 if timeline.timeless else day

    def _known(self, histories: Histories, final: bool) -> Histories:
        timeline = self.problem.timeline
        return timeline.everything(histories) if final else timeline.past(histories, self.day)

    @cached_property
    def labels(self) -> sp.csr_matrix:
        """0/1 [subscribers, items]: what was taken within the horizon."""
        p = self.problem
        return p.timeline.labels(p.histories, self.day, p.event_type, p.index, p.items)

    @cached_property
    def statistics(self) -> ItemStatistics:
        """Item statistics as of the date, over all workers."""
        p = self.problem
        mine = item_sums(self.taken, p.index, p.items, self.as_of_day, p.event_type)
        return ItemStatistics.of(_reduced(mine, p.workers), p.catalogue, p.rows, p.kinds)

    def chunks(self, share: float = 1.0) -> Iterator[Chunk]:
        """All subscribers, some at a time; of each chunk no more than a share."""
        p = self.problem
        for start in range(0, len(self.past), CHUNK):
            stop = start + math.ceil(share * min(CHUNK, len(self.past) - start))
            part = self.past.take(start, stop)
            found = pairs(part, self.as_of_day, p.event_type)
            known = Known.of(found, p.index.rows(found.item), self.as_of_day)
            taste = Taste.of(found, known, stop - start, self.statistics)
            yield Chunk(start, stop, found, known, taste, profile_tokens(part))

    def sample(self) -> Iterator[Chunk]:
        """Subscribers whose rows the heads learn from: all, or `users_a_date` of them."""
        p = self.problem
        everybody = p.workers.sum(np.array([float(len(self.past))]))[0]
        return self.chunks(min(1.0, p.config.ranker.users_a_date / max(everybody, 1.0)))

    @cached_property
    def bags(self) -> sp.csr_matrix:
        """Decayed bags [subscribers, items]."""
        parts = [
            bag_matrix(c.pairs, c.known, c.stop - c.start, self.problem.items)
            for c in self.chunks()
        ]
        return (
            sp.vstack(parts, format="csr")
            if parts
            else sp.csr_matrix((0, self.problem.items), dtype=np.float32)
        )

    @cached_property
    def users(self) -> Floats:
        """USER_COLUMNS of all subscribers."""
        return np.concatenate([c.taste.user for c in self.chunks()])

    @cached_property
    def spectrum(self) -> Spectrum:
        """Start of the towers."""
        p = self.problem
        window = p.config.tower.recent_days
        recent = self.past.records["day"].astype(np.int64) >= self.as_of_day - window
        if p.timeline.timeless:
            recent[:] = True
        row = p.index.rows(self.past.records["item"])
        recent &= (row >= 0) & (self.past.records["type"] == p.event_type)
        ones = np.ones(int(recent.sum()), np.float32)
        buyers = sp.csr_matrix(
            (ones, (self.past.owner[recent], row[recent])), (len(self.past), p.items)
        )
        buyers.data[:] = 1
        return Spectrum.of(self.bags, buyers, p.config.tower.dim, p.config.seed, p.workers.sum)

    def novel(self) -> sp.csr_matrix:
        """Labels of items that were new."""
        seen = self.bags.astype(bool).astype(np.float32)
        fresh = self.labels - self.labels.multiply(seen)
        fresh.eliminate_zeros()
        return fresh.tocsr()

    @cached_property
    def graph(self) -> ItemGraph:
        """What goes with what."""
        p = self.problem
        took = self.bags.astype(bool).astype(np.float32)
        return ItemGraph.of(took, p.config.tower.dim, p.config.seed, p.workers.sum)

    def repeat_rows(self) -> tuple[Floats, Floats]:
        """Features and labels of all pairs of what subscribers of the sample had."""
        features, labels = [], []
        for c in self.sample():
            features.append(repeat_matrix(c.pairs, c.known, c.taste, self.statistics))
            labels.append(cells(self.labels, c.known.owner + c.start, c.known.row))
        return np.concatenate(features), np.concatenate(labels)

    def explore_rows(self, retrieval: Retrieval) -> tuple[Floats, Floats]:
        """Features [n, c, F] and labels [n, c] of the c new candidates of the sample."""
        count = min(self.problem.config.ranker.candidates, self.problem.items)
        features, labels = [], []
        for c in self.sample():
            bags = self.bags[c.start : c.stop]
            found = retrieval.find(bags, c.known, c.taste, c.tokens, count)
            owner = np.repeat(np.arange(c.stop - c.start), count)
            rows = explore_matrix(found, c.taste, self.statistics)
            happened = cells(self.labels, owner + c.start, found.row.ravel()) * found.valid.ravel()
            features.append(rows.reshape(-1, count, len(EXPLORE_FEATURES)))
            labels.append(happened.reshape(-1, count))
        return np.concatenate(features), np.concatenate(labels)

    def lookalike(self) -> Lookalike:
        """Segments of profile tokens over the popular items."""
        p, share = self.problem, self.statistics.share
        rows = np.argsort(-share, kind="stable")[:POPULAR].astype(np.int32)
        took = np.asarray(self.bags[:, rows].todense()) > 0
        active = np.diff(self.bags.indptr) > 0
        profiles = profile_tokens(self.past)[active]
        everywhere = np.concatenate(p.workers.gather(profiles[profiles != 0]))
        tokens, counts = np.unique(everywhere, return_counts=True)
        tokens = tokens[counts >= MIN_TOKEN_MEMBERS]
        takers, members = token_takers(profiles, took[active], tokens)
        users = p.workers.sum(np.array([float(active.sum())]))
        whole = np.maximum(p.workers.sum(took.sum(axis=0)) / np.maximum(users, 1), 1e-9)
        # Segments are counted over all time, where they are large; recent popularity scales them.
        takers = takers / whole * share[rows]
        segments = Lookalike.of(
            p.workers.sum(takers), p.workers.sum(members), tokens, share[rows], rows
        )
        names, category = p.catalogue.category_names, p.catalogue.category[p.rows]
        return segments.with_priors(category_priors(names, category, share), share)


def profile_tokens(histories: Histories) -> npt.NDArray[np.uint32]:
    """Tokens of the profiles, none for those who refuse profiling."""
    refused = (histories.flags & NO_PROFILING)[:, None] > 0
    return np.where(refused, 0, histories.tokens).astype(np.uint32)


def cells(
    matrix: sp.csr_matrix, owner: npt.NDArray[np.int64], row: npt.NDArray[np.int32]
) -> Floats:
    """Entries at (owner, row) of a 0/1 matrix."""
    width = np.int64(matrix.shape[1])
    own = (
        np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr)) * width
        + matrix.indices
    )
    return np.isin(owner * width + row, own).astype(np.float32)


def _reduced(sums: ItemSums, workers: Workers) -> ItemSums:
    """Sums over the subscribers of all workers."""
    ages = {"last_age": workers.min(sums.last_age), "first_age": workers.max(sums.first_age)}
    names = [f.name for f in fields(ItemSums) if f.name not in ages]
    return ItemSums(**{name: workers.sum(getattr(sums, name)) for name in names}, **ages)
