"""What a new policy would have earned, from the log of an old one: a gate before it takes traffic.

Takes, of every logged decision, the reward, the probability with which the old policy made it
(its propensity) and that with which the new one would; gives estimates with intervals, or says
why the log cannot tell. Decisions in several slots of one mail are rows of one unit.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from reco.errors import InputError
from reco.experiments.statistics import LEVEL, Floats, Interval

DRAWS: Final = 400  # of the bootstrap
ENOUGH: Final = 100.0  # effective units; with fewer no number is given
ENOUGH_SHARE: Final = 0.005  # of all units, that must be effective
COVERED: Final = 0.9  # of the new policy's decisions, that the old one could have made


@dataclass(frozen=True, slots=True)
class Policy:
    """The new policy on n logged decisions. Without a reward model there is no doubly robust."""

    propensity: Floats  # [n] of the logged decision, under the new policy
    predicted: Floats | None = None  # [n] reward that a model expects of the logged decision
    expected: Floats | None = None  # [n] the same of the new policy's decisions, on average


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much of the log speaks of the new policy. `warning` is empty where it is enough."""

    units: int
    effective: float  # (sum of weights)² / sum of squares, Kong (1992)
    covered: float  # mean weight: 1 where the old policy makes all that the new one would
    largest: float  # share of the weight of all units that lies on one of them
    warning: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean reward of the new policy by one estimator, and its gain over the logged policy."""

    method: str  # ips, snips, dr
    value: Interval
    standard_error: float
    gain: Interval


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Estimates, none where the overlap is too thin. `logged` is what the old policy earned."""

    logged: Interval
    overlap: Overlap
    estimates: tuple[Estimate, ...]

    def passes(self, tolerance: float = 0.0) -> bool:
        """Whether the new policy may take traffic: the last estimate surely loses no more."""
        return bool(self.estimates) and self.estimates[-1].gain.low >= -tolerance


def evaluate(
    reward: Floats,
    logged: Floats,
    policy: Policy,
    *,
    units: npt.ArrayLike | None = None,
    clip: float = math.inf,
    level: float = LEVEL,
    seed: int = 0,
) -> Evaluation:
    """Value of `policy` from n decisions with these rewards and propensities `logged`.

    units [n]: whose decisions belong together (default: each is its own); they are drawn together.
    clip: largest weight; it trades variance for a bias towards 0 in ips and dr. Raises InputError
    when a propensity is not within 0..1, is 0 where it was logged, or lengths differ.
    """
    _check(reward, logged, policy)
    weight = np.minimum(policy.propensity / logged, clip)
    rows = [np.ones_like(weight), reward, weight, weight * reward]
    if policy.predicted is not None and policy.expected is not None:
        rows.append(policy.expected + weight * (reward - policy.predicted))
    sums = _by_unit(np.stack(rows), units)
    overlap = _overlap(sums[2], sums[0])
    draws = _draws(sums, seed)
    tail = (1 - level) / 2

    def interval(value: Callable[[Floats], Floats]) -> Interval:
        low, high = np.quantile(value(draws), [tail, 1 - tail]).tolist()
        return Interval(float(value(sums.sum(axis=1))), low, high)

    def estimate(method: str, value: Callable[[Floats], Floats]) -> Estimate:
        error = float(value(draws).std(ddof=1))
        return Estimate(method, interval(value), error, interval(lambda s: value(s) - s[1] / s[0]))

    methods: dict[str, Callable[[Floats], Floats]] = {
        "ips": lambda s: s[3] / s[0],
        "snips": lambda s: s[3] / s[2],
        "dr": lambda s: s[4] / s[0],
    }
    wanted = [] if overlap.warning else list(methods)[: len(rows) - 2]
    return Evaluation(
        interval(lambda s: s[1] / s[0]),
        overlap,
        tuple(estimate(name, methods[name]) for name in wanted),
    )


def _by_unit(rows: Floats, units: npt.ArrayLike | None) -> Floats:
    """Sums [k, units] of rows [k, n]."""
    if units is None:
        return rows
    _, place = np.unique(np.asarray(units), return_inverse=True)
    return np.stack([np.bincount(place, row) for row in rows])


def _draws(sums: Floats, seed: int) -> Floats:
    """Sums [k, DRAWS] of units drawn again and again (Poisson bootstrap)."""
    rng = np.random.default_rng(seed)
    counts = (np.asarray(rng.poisson(1.0, sums.shape[1]), np.float64) for _ in range(DRAWS))
    drawn = [sums @ count for count in counts]
    return np.stack(drawn, axis=1)


def _overlap(weight: Floats, decisions: Floats) -> Overlap:
    """Overlap of units with these sums of weights and counts of decisions."""
    total, squares = float(weight.sum()), float(weight @ weight)
    effective = total**2 / squares if squares else 0.0
    covered = total / float(decisions.sum())
    error = float((weight - covered * decisions).std()) * math.sqrt(len(weight))
    error /= float(decisions.sum())
    needed = max(ENOUGH, ENOUGH_SHARE * len(weight))
    warning = ""
    if effective < needed:
        warning = (
            f"Only {effective:.0f} of {len(weight)} units speak of the new policy, and "
            f"{needed:.0f} are needed: it seldom does what was logged."
        )
    elif covered + 4 * error < COVERED or covered - 4 * error > 2 - COVERED:
        warning = (
            f"The weights average {covered:.2f} and not 1: the new policy does what the old one "
            "never did, or the propensities are wrong."
        )
    largest = float(weight.max()) / total if total else 0.0
    return Overlap(len(weight), effective, covered, largest, warning)


def _check(reward: Floats, logged: Floats, policy: Policy) -> None:
    columns = [reward, logged, policy.propensity, policy.predicted, policy.expected]
    lengths = {len(column) for column in columns if column is not None}
    if lengths == {0} or len(lengths) != 1:
        raise InputError(
            "The columns of the log do not fit together.",
            f"They have {', '.join(map(str, sorted(lengths)))} rows.",
            "Give one value a decision in each, and at least one decision.",
        )
    if (
        not ((logged > 0) & (logged <= 1)).all()
        or not ((policy.propensity >= 0) & (policy.propensity <= 1)).all()
    ):
        raise InputError(
            "A propensity is not a probability.",
            "What was logged happened, so its propensity is above 0 and at most 1.",
            "Log with every decision the probability with which it was drawn.",
        )
