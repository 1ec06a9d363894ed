"""Arms compared: per-unit values in, differences and lifts with intervals out.

Every metric becomes one value a unit (`linearise` does it for ratios), so that one formula serves
all. The unit is the subscriber, because subscribers are what assignment draws.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from reco.errors import InputError

Floats = npt.NDArray[np.float64]

LEVEL: Final = 0.95  # of every interval unless told otherwise
SAMPLE_RATIO_ALARM: Final = 0.001  # p below it: the split is broken, no lift is to be believed


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence limits; the limits are NaN where there are too few units."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Sample:
    """What an arm's values come down to. `share` marks values that are all 0 or 1."""

    n: int
    mean: float
    variance: float  # of one unit, with n - 1
    share: bool = False

    @classmethod
    def of(cls, values: npt.ArrayLike, *, share: bool = False) -> "Sample":
        """Sample of one value a unit [n]; an empty arm has a mean of NaN."""
        array = np.asarray(values, np.float64)
        mean = float(array.mean()) if len(array) else math.nan
        variance = float(array.var(ddof=1)) if len(array) > 1 else math.nan
        return cls(len(array), mean, variance, share)

    @property
    def error(self) -> float:
        """Variance of the mean."""
        return self.variance / self.n if self.n > 1 else math.nan

    def interval(self, level: float = LEVEL, df: float | None = None) -> Interval:
        """Student's interval of the mean; Wilson's of a share, which never leaves 0..1."""
        if self.share and self.n:
            tested = stats.binomtest(round(self.mean * self.n), self.n)
            limits = tested.proportion_ci(level, method="wilson")
            return Interval(self.mean, float(limits.low), float(limits.high))
        if self.n < 2:
            return Interval(self.mean, math.nan, math.nan)
        freedom = df or self.n - 1
        half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(self.error)
        return Interval(self.mean, self.mean - half, self.mean + half)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Treated minus control, and treated over control minus 1.

    `lift` is None where the control is not clearly above zero: no ratio can be bounded then.
    """

    difference: Interval
    lift: Interval | None
    p_value: float


def linearise(numerator: Floats, denominator: Floats) -> Floats:
    """Values [n] with the ratio sum(numerator) / sum(denominator) as mean and its delta variance.

    Numerator and denominator are sums of one unit, such as clicks and mails of a subscriber.
    Deng, Knoblich, Lu (2018), "Applying the delta method in metric analytics".
    Raises InputError when the denominators add up to 0.
    """
    total = float(denominator.sum())
    if total == 0:
        raise InputError(
            "A ratio has a denominator of 0.", "No unit has any of it.", "Leave it out."
        )
    ratio = float(numerator.sum()) / total
    values: Floats = ratio + (numerator - ratio * denominator) / (total / len(denominator))
    return values


def winsorise(arms: Mapping[str, Floats], quantile: float = 0.995) -> dict[str, Floats]:
    """Values cut at one cap for all arms: the quantile of the values that are not 0."""
    pooled = np.concatenate(list(arms.values()))
    present = pooled[pooled != 0]
    cap = float(np.quantile(present, quantile)) if len(present) else 0.0
    return {arm: np.minimum(values, cap) for arm, values in arms.items()}


def adjust(arms: Mapping[str, Floats], before: Mapping[str, Floats]) -> dict[str, Floats]:
    """Values less what a covariate from before the start explains (CUPED); the means stay fair.

    Deng, Xu, Kohavi, Walker (2013). The slope is taken within arms, so that it does not swallow
    the effect. `before` [n] is in the order of the values.
    """
    pairs = [
        (values - values.mean(), before[arm] - before[arm].mean()) for arm, values in arms.items()
    ]
    spread = sum(float(x @ x) for _, x in pairs)
    slope = sum(float(y @ x) for y, x in pairs) / spread if spread else 0.0
    centre = float(np.concatenate([before[arm] for arm in arms]).mean())
    return {arm: values - slope * (before[arm] - centre) for arm, values in arms.items()}


def compare(treated: Sample, control: Sample, level: float = LEVEL) -> Comparison:
    """Difference and lift of two arms, both from the arms' own limits (MOVER, Donner & Zou 2012).

    With Student's limits this is Welch's interval and Fieller's ratio; with Wilson's limits it is
    Newcombe's interval (1998, method 10) and its ratio. Either way the two agree: the lift
    excludes 0 exactly when the difference does.
    """
    if min(treated.n, control.n) < 2:
        unknown = Interval(treated.mean - control.mean, math.nan, math.nan)
        return Comparison(unknown, None, math.nan)
    df = _welch_df(treated, control)
    t, c = treated.interval(level, df), control.interval(level, df)
    difference = Interval(
        t.value - c.value,
        t.value - c.value - math.hypot(t.value - t.low, c.high - c.value),
        t.value - c.value + math.hypot(t.high - t.value, c.value - c.low),
    )
    return Comparison(difference, _lift(t, c), _p_value(treated, control, df))


def _lift(t: Interval, c: Interval) -> Interval | None:
    """Ratio less 1: the R at which the limits of t - R c touch 0."""
    if not c.low > 0:
        return None
    spare = c.value**2 - (c.value - c.low) ** 2
    upper = (t.value * c.value + math.sqrt(
        (t.value * (c.value - c.low)) ** 2 + (t.high - t.value) ** 2 * spare
    )) / spare  # fmt: skip
    fall, rise = t.value - t.low, c.high - c.value
    root = math.sqrt((t.value * rise) ** 2 + fall**2 * (c.value**2 - rise**2))
    # The same root as (t c - root) / (c² - rise²), without its division by 0 at rise = c.
    below = t.value * c.value + root
    lower = (t.value**2 - fall**2) / below if below > 0 else 0.0
    return Interval(t.value / c.value - 1, lower - 1, upper - 1)


def _welch_df(a: Sample, b: Sample) -> float:
    """Degrees of freedom by Welch and Satterthwaite."""
    total = a.error + b.error
    parts = a.error**2 / (a.n - 1) + b.error**2 / (b.n - 1)
    return total**2 / parts if parts else float(a.n + b.n - 2)


def _p_value(treated: Sample, control: Sample, df: float) -> float:
    """Two-sided: Welch's t; for shares the pooled score test."""
    gap, error = treated.mean - control.mean, treated.error + control.error
    if treated.share and control.share:
        pooled = (treated.mean * treated.n + control.mean * control.n) / (treated.n + control.n)
        error, df = pooled * (1 - pooled) * (1 / treated.n + 1 / control.n), math.inf
    if error == 0:
        return float(gap == 0)
    return float(2 * stats.t.sf(abs(gap) / math.sqrt(error), df))


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """Whether the arms have the sizes that their weights promised."""

    p_value: float
    alarm: bool


def sample_ratio(counts: Mapping[str, int], weights: Mapping[str, float]) -> SampleRatio:
    """Chi-square of units per arm against the weights; an alarm blocks every result.

    Raises InputError when an arm has units but no weight.
    """
    strangers = sorted(arm for arm, n in counts.items() if n and not weights.get(arm))
    if strangers:
        raise InputError(
            f"There are units in arms without weight: {', '.join(strangers)}.",
            f"The weights name {', '.join(weights)}.",
            "Give the weights of every arm of the experiment.",
        )
    drawn = [arm for arm, weight in weights.items() if weight > 0]
    observed = np.array([counts.get(arm, 0) for arm in drawn], np.float64)
    if len(drawn) < 2 or not observed.sum():
        return SampleRatio(1.0, alarm=False)
    shares = np.array([weights[arm] for arm in drawn])
    p_value = float(stats.chisquare(observed, shares / shares.sum() * observed.sum()).pvalue)
    return SampleRatio(p_value, p_value < SAMPLE_RATIO_ALARM)


def false_discovery(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p of the secondary metrics; NaN stays NaN."""
    known = [p for p in p_values if not math.isnan(p)]
    adjusted = iter(stats.false_discovery_control(known).tolist() if known else [])
    return [p if math.isnan(p) else float(next(adjusted)) for p in p_values]


def sample_size(variance: float, difference: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Units an arm that show a difference with the given power, two arms of one size."""
    z = float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))
    return math.ceil(2 * variance * (z / difference) ** 2)


def detectable(sample: Sample, other: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Difference that this arm and one of `other` such units show with the given power."""
    z = float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))
    return z * math.sqrt(sample.variance * (1 / sample.n + 1 / other))
