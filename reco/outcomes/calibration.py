"""Whether scores are the probabilities that they claim to be: expected beside seen, by score.

Takes accepted mails and purchases. Scores promise a purchase within the window of the report.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import polars as pl

from reco.experiments.statistics import Interval, Sample
from reco.outcomes.purchases import bought_slots

GROUPS: Final = 8  # of about as many slots each


@dataclass(frozen=True, slots=True)
class Group:
    """Slots of similar score: the mean score, and the share that was bought."""

    slots: int
    expected: float
    seen: Interval


@dataclass(frozen=True, slots=True)
class Calibration:
    """All scored slots. `gap` is the mean distance between expected and seen, over expected."""

    groups: tuple[Group, ...]
    expected: float
    seen: float
    gap: float


def calibration(
    deliveries: pl.DataFrame, purchases: pl.LazyFrame, start: datetime | None, days: int
) -> Calibration | None:
    """Calibration of the slots that a model scored; None where there is none."""
    slots = bought_slots(deliveries, purchases, start, days)
    slots = slots.filter(pl.col("score").is_not_null() & (pl.col("score") > 0)).sort("score")
    if slots.is_empty():
        return None
    size = max(-(-slots.height // GROUPS), 1)
    parts = [slots.slice(i, size) for i in range(0, slots.height, size)]
    groups = tuple(
        Group(
            part.height,
            float(part["score"].sum()) / part.height,
            Sample.of(part["bought"].cast(pl.Float64).to_numpy(), share=True).interval(),
        )
        for part in parts
    )
    expected, seen = float(slots["score"].sum()), int(slots["bought"].sum())
    distance = sum(g.slots * abs(g.expected - g.seen.value) for g in groups)
    n = slots.height
    return Calibration(groups, expected / n, seen / n, distance / expected)
