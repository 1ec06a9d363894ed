"""Intervals that may be looked at after every batch: for guardrails and for stopping on harm."""

import math

from reco.experiments.statistics import LEVEL, Interval, Sample


def always_valid(treated: Sample, control: Sample, planned: int, level: float = LEVEL) -> Interval:
    """Difference with limits that hold at all looks at once, however often one looks.

    Asymptotic confidence sequence with a normal mixture, Waudby-Smith and others (arXiv
    2103.06476). `planned` is the number of units in both arms at which it is to be tightest; there
    it is about 1.5 times as wide as an interval of a fixed horizon.
    """
    n, gap = treated.n + control.n, treated.mean - control.mean
    if min(treated.n, control.n) < 2:
        return Interval(gap, -math.inf, math.inf)
    half = _half((treated.error + control.error) * n, n, planned, 1 - level)
    return Interval(gap, gap - half, gap + half)


def always_above(sample: Sample, limit: float, planned: int, level: float = LEVEL) -> Interval:
    """How far a mean is above a fixed limit: the same sequence for one arm, one side only."""
    gap = sample.mean - limit
    if sample.n < 2:
        return Interval(gap, -math.inf, math.inf)
    return Interval(gap, gap - _half(sample.variance, sample.n, planned, 2 * (1 - level)), math.inf)


def _half(spread: float, n: int, planned: int, alpha: float) -> float:
    """Half the width at n units; `spread` / n is the variance of the estimate."""
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / planned
    growth = n * rho2 + 1
    return math.sqrt(spread * 2 * growth * math.log(math.sqrt(growth) / alpha) / (n * n * rho2))


def harmful(treated: Sample, control: Sample, planned: int, level: float = LEVEL) -> bool:
    """Whether a guardrail, of which more is worse, is surely higher in the treated arm.

    One side only, so each side of the sequence gets twice the error. Never true on fewer than
    10 events in both arms together: the sequence is asymptotic.
    """
    events = treated.mean * treated.n + control.mean * control.n
    one_sided = 1 - 2 * (1 - level)
    return events >= 10 and always_valid(treated, control, planned, one_sided).low > 0
