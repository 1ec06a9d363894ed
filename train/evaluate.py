"""The gate: model, champion and simple rivals side by side on labels that none of them saw.

Full ranking, global time split; the difference in NDCG is bootstrapped over the same subscribers.
`reco evaluate` prints the same table for settings, fitted before the last horizon.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco.catalogue import Catalogue
from reco.features.history import Histories
from reco.features.pairs import pairs
from reco.models.metrics import Ranking, paired_bootstrap, rank_metrics
from reco.models.rivals import Rival, rival
from reco.models.scorer import Scorer
from reco.models.simple import most_popular, personal_frequency, popularity
from reco.models.slates import Slates
from reco.terminal import Report
from train.timeline import Timeline

CHUNK: Final = 512
RECENT: Final = (7, 28)
FREQUENCY: Final = "personal-top-frequency"
FITTED: Final = ("collaborative", "content")


class Recommender(Protocol):
    """What can be judged: the Scorer, and the rivals behind its signature."""

    def score(
        self, histories: Histories, as_of: datetime, k: int, *,
        allowed: npt.NDArray[np.bool_] | None = None, novel_only: bool = False,
    ) -> Slates:  # fmt: skip
        """Best k items of each subscriber."""


@dataclass(frozen=True, slots=True)
class Slice:
    """What is judged: the past of each subscriber and what they took after it.

    usable  bool [catalogue]  items that a rival may show: those that the model knows
    cold    bool [catalogue]  of them those first taken in the last horizon before the cut
    """

    past: Histories
    answers: sp.csr_matrix
    seen: sp.csr_matrix
    as_of: datetime
    as_of_day: int
    event_type: int
    catalogue: Catalogue
    usable: npt.NDArray[np.bool_]
    cold: npt.NDArray[np.bool_]
    repeats: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The table of the gate and what follows from it.

    table        metrics by name, of the model and each rival
    differences  model - rival in NDCG@k: mean, 95 % interval
    serves       what may serve: the model, or a simple recommender (train.choice)
    """

    table: dict[str, dict[str, float]]
    differences: dict[str, tuple[float, float, float]]
    passed: bool
    why: str
    users: int
    seconds: float
    serves: str = "model"


def judge_slice(
    histories: Histories,
    catalogue: Catalogue,
    timeline: Timeline,
    event_type: int,
    known: npt.NDArray[np.bool_],
    repeats: bool,
) -> Slice:
    """The slice after the end of a timeline.

    `known` masks the catalogue by what the model can show.
    """
    past = timeline.everything(histories)
    answers = timeline.labels(
        histories, timeline.end_day, event_type, catalogue.index, len(catalogue)
    )
    answers = (answers @ sp.diags(known.astype(np.float32))).tocsr()
    day = 1 if timeline.timeless else timeline.end_day
    p = pairs(past, day, event_type)
    row = catalogue.index.rows(p.item)
    kept = row >= 0
    seen = sp.csr_matrix(
        (np.ones(int(kept.sum()), np.float32), (p.owner[kept], row[kept])), answers.shape
    )
    if not repeats:
        answers = (answers - answers.multiply(seen)).tocsr()
    answers.eliminate_zeros()
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)
    first = np.full(len(catalogue), day, np.int64)
    np.minimum.at(first, row[kept], p.first_day[kept])
    cold = known & (first >= day - timeline.horizon_days) & (not timeline.timeless)
    return Slice(past, answers, seen, when, day, event_type, catalogue, known, cold, repeats)


def judge(scorers: Mapping[str, Scorer], judged: Slice, k: int, progress: Report) -> Verdict:
    """Judge the first scorer against the others and the simple rivals."""
    began = time.perf_counter()
    # By what subscribers take by themselves; what mails earn is for the log of mails to judge.
    plain = {name: scorer.by_probability() for name, scorer in scorers.items()}
    shown = {name: ranked(scorer, judged, k, progress) for name, scorer in plain.items()}
    shown |= rivals(judged, k)
    shown |= {name: ranked(fitted(name, judged), judged, k, progress) for name in FITTED}
    metrics = {
        name: rank_metrics(rows, judged.answers, judged.seen, k, judged.cold)
        for name, rows in shown.items()
    }
    ours, *others = metrics
    return verdict(metrics, ours, others, time.perf_counter() - began)


def verdict(
    metrics: Mapping[str, Ranking], ours: str, others: Sequence[str], seconds: float
) -> Verdict:
    """It passes when the interval of the difference lies above 0 against every rival."""
    differences = {
        name: paired_bootstrap(metrics[ours].ndcg, metrics[name].ndcg) for name in others
    }
    users = len(metrics[ours].ndcg)
    beaten_by = [name for name, (_, low, _) in differences.items() if low <= 0]
    if not users:
        why = "nobody took anything in the validation slice"
    elif beaten_by:
        why = "not surely better in NDCG than " + ", ".join(beaten_by)
    else:
        why = "better in NDCG than every rival, 95 % interval above 0"
    table = {name: ranking.table() for name, ranking in metrics.items()}
    return Verdict(table, differences, bool(users) and not beaten_by, why, users, seconds)


def fitted(name: str, judged: Slice) -> Rival:
    """A rival that learns, fitted on the past of the slice."""
    return rival(
        name, judged.past, judged.catalogue, judged.usable, judged.as_of_day, judged.event_type,
        judged.repeats,
    )  # fmt: skip


def ranked(scorer: Recommender, judged: Slice, k: int, progress: Report) -> npt.NDArray[np.int32]:
    """Rows of the catalogue that a scorer shows each subscriber of the slice."""
    parts, n = [np.zeros((0, k), np.int32)], len(judged.past)
    for start in range(0, n, CHUNK):
        part = judged.past.take(start, min(start + CHUNK, n))
        slates = scorer.score(part, judged.as_of, k, allowed=judged.usable)
        parts.append(judged.catalogue.index.rows(slates.items))
        progress("evaluate", min(start + CHUNK, n), n)
    return np.concatenate(parts)


def rivals(judged: Slice, k: int) -> dict[str, npt.NDArray[np.int32]]:
    """Recent popularity and, where repeats count, personal top-frequency."""
    index, items = judged.catalogue.index, len(judged.catalogue)
    out, popular = {}, np.zeros(items)
    for days in RECENT:
        popular = (
            popularity(judged.past, index, items, judged.as_of_day, judged.event_type, days)
            * judged.usable
        )
        out[f"popular-{days}d"] = (
            most_popular(popular, len(judged.past), k)
            if judged.repeats
            else _unseen(popular, judged.seen, k)
        )
    if judged.repeats:
        out[FREQUENCY] = personal_frequency(
            judged.past, index, popular, judged.as_of_day, judged.event_type, k
        )
    return out


def _unseen(popular: npt.NDArray[np.float64], seen: sp.csr_matrix, k: int) -> npt.NDArray[np.int32]:
    """The most popular rows that each subscriber has not had."""
    order = np.argsort(-popular, kind="stable")
    out = np.full((seen.shape[0], k), -1, np.int32)
    for user in range(seen.shape[0]):
        had = seen.indices[seen.indptr[user] : seen.indptr[user + 1]]
        head = order[: k + len(had)]
        fresh = head[~np.isin(head, had)][:k]
        out[user, : len(fresh)] = fresh
    return out
