"""The part of a report that only a campaign has: its window, its ledger, its slots, its times.

Takes the ledger's rows and the outcomes of its mails, gives counts; nothing is estimated here.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from reco.experiments.statistics import SampleRatio
from reco.outcomes.calibration import Calibration
from reco.outcomes.exposure import Exposure
from reco.outcomes.guardrails import Guardrail
from reco.outcomes.responses import Response

# Where a recipient may stay when the campaign has ended; any other state is under way.
END_STATES: Final = ("accepted", "suppressed", "failed", "uncertain", "deferred")


@dataclass(frozen=True, slots=True)
class Window:
    """Where purchases were looked for; `start` None means from each mail's own acceptance."""

    start: datetime | None
    first: datetime | None  # mail of the campaign
    closes: datetime | None  # the window of the last mail
    days: int
    observed_until: datetime | None
    complete: bool  # the whole window lies within the known purchases


@dataclass(frozen=True, slots=True)
class Ledger:
    """Where every recipient of the audience ended."""

    audience: int
    states: dict[str, int]
    by_arm: dict[str, dict[str, int]]
    open: int  # recipients in no final state: the campaign has not finished
    kilobytes_per_mail: float | None
    suppressed: dict[str, int] = field(
        default_factory=dict
    )  # by the reason, the most frequent first

    @property
    def balanced(self) -> bool:
        """Whether every recipient is in exactly one final state."""
        return self.open == 0 and sum(self.states.values()) == self.audience


@dataclass(frozen=True, slots=True)
class Bought:
    """Shown items that were bought, and how many of them the household had bought before."""

    arm: str
    shown: int
    known_shown: int
    bought: int
    repeats: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one stage over its n chunks; p95_mail_ms: of a chunk over its mails."""

    stage: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    n: int
    p95_mail_ms: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """The part of a report that only a campaign has."""

    window: Window
    ledger: Ledger
    assigned_ratio: SampleRatio | None
    bought: tuple[Bought, ...]
    exposures: tuple[Exposure, ...]
    mailable: int  # items of the catalogue that could be mailed
    latencies: tuple[Latency, ...]
    editorial: tuple[str, ...]  # arms whose slate people chose
    calibration: Calibration | None
    responses: tuple[Response, ...]  # none where no reader agreed to be followed
    programs: dict[str, int]  # clicks left out, by every reason that betrayed a program
    guardrails: tuple[Guardrail, ...]


def window_of(
    start: datetime | None, days: int, deliveries: pl.DataFrame, until: datetime | None
) -> Window:
    """The window, and whether the purchases known `until` fill that of every accepted mail."""
    accepted = deliveries.filter(pl.col("state") == "accepted")
    opened = start or accepted["accepted_at"].max()
    end = opened + timedelta(days=days) if isinstance(opened, datetime) else None
    # A shop's last purchase of the last day comes before midnight: a day's grace.
    complete = bool(until and end and until + timedelta(days=1) >= end)
    first = accepted["accepted_at"].min()
    return Window(start, first if isinstance(first, datetime) else None, end, days, until, complete)


def ledger_of(deliveries: pl.DataFrame) -> Ledger:
    """States of all recipients, those of the end first and always named."""
    counts = dict(deliveries.group_by("state").len().sort("state").iter_rows())
    states = {state: counts.pop(state, 0) for state in END_STATES}
    by_arm: dict[str, dict[str, int]] = {}
    for arm, state, n in deliveries.group_by("arm", "state").len().sort("arm", "state").iter_rows():
        by_arm.setdefault(arm, {})[state] = n
    mean = deliveries.filter(pl.col("state") == "accepted")["size_bytes"].mean()
    size = mean / 1024 if isinstance(mean, float) else None
    return Ledger(
        deliveries.height,
        states | counts,
        by_arm,
        sum(counts.values()),
        size,
        _reasons(deliveries.filter(pl.col("state") == "suppressed")),
    )


def _reasons(suppressed: pl.DataFrame) -> dict[str, int]:
    """Why recipients got no mail: unsubscribe, message_cap, no_consent, deadline, ..."""
    if "reply" not in suppressed.columns:
        return {}
    counted = suppressed.group_by("reply").len().sort(["len", "reply"], descending=[True, False])
    return {reason or "": n for reason, n in counted.iter_rows()}


def bought_of(outcomes: pl.DataFrame, arms: list[str]) -> tuple[Bought, ...]:
    """Sums of the outcomes (purchases.match) of each arm, in this order."""
    columns = ("shown", "known_shown", "bought", "repeats")
    sums = {
        row[0]: row[1:] for row in outcomes.group_by("arm").agg(pl.col(columns).sum()).iter_rows()
    }
    return tuple(Bought(arm, *sums[arm]) for arm in arms)


def latencies_of(table: pl.DataFrame | None) -> tuple[Latency, ...]:
    """Rows of the table in their order: stage, p50_ms, p95_ms, p99_ms, n, p95_mail_ms."""
    if table is None:
        return ()
    columns = table.select("stage", "p50_ms", "p95_ms", "p99_ms", "n", "p95_mail_ms")
    return tuple(Latency(*row) for row in columns.iter_rows())
