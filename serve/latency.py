"""How long chunks took in each stage: collected from the senders, kept in the lake."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import polars as pl

from serve.driving import Timing

SCHEMA: Final = {
    "stage": pl.String,
    "p50_ms": pl.Float64,
    "p95_ms": pl.Float64,
    "p99_ms": pl.Float64,
    "n": pl.Int64,
    "recipients": pl.Int64,
    "mean_recipient_ms": pl.Float64,
    "p95_mail_ms": pl.Float64,
}


def table_name(campaign_id: str) -> str:
    """Name of the lake's table with the latencies of a campaign."""
    return f"campaigns/{campaign_id}/latency"


@dataclass(frozen=True, slots=True)
class Latency:
    """A stage: milliseconds that each of n chunks spent there, and what of it is one mail's.

    p95_mail_ms: 95th percentile over chunks of a chunk's time divided by its recipients.
    """

    stage: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    n: int
    recipients: int
    mean_recipient_ms: float
    p95_mail_ms: float


class Latencies:
    """Adds up timings; keeps two numbers a chunk and stage."""

    def __init__(self) -> None:
        self._took: dict[str, list[float]] = defaultdict(list)
        self._recipients: dict[str, list[int]] = defaultdict(list)

    def add(self, timings: Iterable[Timing]) -> None:
        """Take more timings in."""
        for timing in timings:
            self._took[timing.stage].append(timing.took_ms)
            self._recipients[timing.stage].append(timing.recipients)

    def stages(self) -> list[Latency]:
        """Every stage that was seen, in the order in which it was."""
        return [self._latency(stage) for stage in self._took]

    def frame(self) -> pl.DataFrame:
        """The same as a table for the lake."""
        return pl.DataFrame([asdict(stage) for stage in self.stages()], schema=SCHEMA)

    def _latency(self, stage: str) -> Latency:
        took = np.array(self._took[stage])
        mails = np.maximum(np.array(self._recipients[stage]), 1)
        p50, p95, p99 = np.percentile(took, [50, 95, 99]).tolist()
        mean_ms = float(took.sum() / mails.sum())
        mail_ms = float(np.percentile(took / mails, 95))
        return Latency(stage, p50, p95, p99, len(took), int(mails.sum()), mean_ms, mail_ms)
