"""How good ranked lists are: full ranking, binary gain, means over the users who have an answer.

Takes item rows [n, k] (-1 where a place is empty) and the answers as a sparse matrix; gives one
number a user, so that two models can be compared on the same users (paired bootstrap).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int32]
RESAMPLES = 1000
COLD_ITEMS = 5  # different items from which on a user is no longer new


@dataclass(frozen=True, slots=True)
class Ranking:
    """Metrics at k: one number a judged user, and of the whole.

    ndcg, recall, hit           float64 [judged]; recall is hits / answers, the ideal DCG is cut
                                at min(k, answers)
    repeat_recall               over the users with an answer that they had before; NaN: nobody
    explore_recall              the same for answers that were new to them
    coverage                    distinct items shown / items in the catalogue
    gini                        of the exposures over the catalogue, 0 even, 1 one item
    cold_user_ndcg              over the users who had fewer than COLD_ITEMS items; NaN: nobody
    cold_item_recall            of the answers that are cold items, over the users with such ones
    """

    ndcg: Floats
    recall: Floats
    hit: Floats
    repeat_recall: float
    explore_recall: float
    coverage: float
    gini: float
    cold_user_ndcg: float
    cold_item_recall: float

    def table(self) -> dict[str, float]:
        """Means by name."""
        return {
            "ndcg": _mean(self.ndcg),
            "recall": _mean(self.recall),
            "hit_rate": _mean(self.hit),
            "repeat_recall": self.repeat_recall,
            "explore_recall": self.explore_recall,
            "coverage": self.coverage,
            "gini": self.gini,
            "cold_user_ndcg": self.cold_user_ndcg,
            "cold_item_recall": self.cold_item_recall,
        }


def rank_metrics(
    shown: Rows, answers: sp.csr_matrix, seen: sp.csr_matrix, k: int,
    cold: npt.NDArray[np.bool_] | None = None,
) -> Ranking:  # fmt: skip
    """Metrics of `shown` [n, >= k] against `answers` [n, items].

    `seen` holds what each user had before, `cold` [items] marks items that are new to the shop.

    Users without an answer are left out; a user without recommendations scores 0.
    """
    judged = np.flatnonzero(np.diff(answers.indptr))
    shown, answers, seen = shown[judged, :k], answers[judged], seen[judged]
    hit, old = _members(shown, answers), _members(shown, seen)
    total = np.diff(answers.indptr)
    known = np.asarray(answers.astype(bool).multiply(seen.astype(bool)).sum(axis=1)).ravel()
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)[np.minimum(k, total) - 1]
    exposure = np.bincount(shown[shown >= 0], minlength=answers.shape[1])
    ndcg = (hit * discount[: hit.shape[1]]).sum(axis=1) / ideal
    new = np.zeros(answers.shape[1], bool) if cold is None else cold
    return Ranking(
        ndcg=ndcg,
        recall=hit.sum(axis=1) / total,
        hit=np.asarray(hit.any(axis=1), np.float64),
        repeat_recall=_share((hit & old).sum(axis=1), known),
        explore_recall=_share((hit & ~old).sum(axis=1), total - known),
        coverage=float((exposure > 0).mean()),
        gini=gini(exposure),
        cold_user_ndcg=_mean(ndcg[np.diff(seen.indptr) < COLD_ITEMS]),
        cold_item_recall=_share(
            (hit & new[shown]).sum(axis=1), np.asarray(answers @ new.astype(np.float32)).ravel()
        ),
    )


def gini(exposure: npt.NDArray[np.int64]) -> float:
    """Gini coefficient of non-negative counts: 0 when all are equal, towards 1 when one has all."""
    ordered = np.sort(exposure).astype(np.float64)
    n, total = len(ordered), ordered.sum()
    if not total:
        return 0.0
    return float((2 * (np.arange(1, n + 1) * ordered).sum() / total - (n + 1)) / n)


def paired_bootstrap(ours: Floats, theirs: Floats, seed: int = 0) -> tuple[float, float, float]:
    """Mean of ours - theirs over users with its 95 % percentile interval.

    Users are resampled in pairs.
    """
    difference = ours - theirs
    if not len(difference):
        return 0.0, 0.0, 0.0
    draw = np.random.default_rng(seed)
    n = len(difference)
    means = [difference[draw.integers(0, n, n)].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(difference.mean()), float(low), float(high)


def calibration_error(probability: Floats, happened: Floats, bins: int = 10) -> float:
    """Expected calibration error.

    Mean gap between probability and frequency over equally full bins.
    """
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    gaps = [abs(probability[p].mean() - happened[p].mean()) * len(p) for p in parts]
    return float(sum(gaps) / max(len(order), 1))


def _members(shown: Rows, of: sp.csr_matrix) -> npt.NDArray[np.bool_]:
    """Whether shown[i, j] is among the entries of row i."""
    items = np.int64(of.shape[1])
    owner = np.repeat(np.arange(of.shape[0], dtype=np.int64), np.diff(of.indptr))
    keys = np.arange(len(shown), dtype=np.int64)[:, None] * items + shown
    return np.isin(keys, owner * items + of.indices) & (shown >= 0)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _share(hits: npt.NDArray[np.int64], of: npt.NDArray[np.int64]) -> float:
    """Mean of hits / of over the users where `of` is not 0."""
    some = of > 0
    return _mean(hits[some] / of[some])
