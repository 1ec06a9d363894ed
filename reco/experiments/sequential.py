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
    alpha = 1 - level
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / planned
    spread = (treated.error + control.error) * n
    growth = n * rho2 + 1
    half = math.sqrt(spread * 2 * growth * math.log(math.sqrt(growth) / alpha) / (n * n * rho2))
    return Interval(gap, gap - half, gap + half)


def harmful(treated: Sample, control: Sample, planned: int, level: float = LEVEL) -> bool:
    """Whether a guardrail, of which more is worse, is surely higher in the treated arm.

    One side only, so each side of the sequence gets twice the error. Never true on fewer than
    10 events in both arms together: the sequence is asymptotic.
    """
    events = treated.mean * treated.n + control.mean * control.n
    one_sided = 1 - 2 * (1 - level)
    return events >= 10 and always_valid(treated, control, planned, one_sided).low > 0
