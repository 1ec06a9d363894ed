"""The finished report as plain data: what the page draws and what --json prints."""

from dataclasses import dataclass
from datetime import datetime

from reco.experiments.analysis import Analysis
from reco.experiments.statistics import SampleRatio
from reco.outcomes.exposure import Exposure


@dataclass(frozen=True, slots=True)
class Window:
    """Where purchases were looked for; `start` None means from each mail's own acceptance."""

    start: datetime | None
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
    """Time of one stage over its n calls, milliseconds."""

    stage: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    n: int


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


@dataclass(frozen=True, slots=True)
class Report:
    """A campaign or a plain experiment, measured. `analysis` is None when no mail was accepted."""

    title: str
    replay: bool  # purchases are matched after the fact; no mail was really read
    currency: str
    analysis: Analysis | None
    delivery: Delivery | None
    cautions: tuple[str, ...]

    @property
    def blocked(self) -> bool:
        """Whether a broken split forbids every comparison."""
        ratios = [
            self.analysis.sample_ratio if self.analysis else None,
            self.delivery.assigned_ratio if self.delivery else None,
        ]
        return any(ratio.alarm for ratio in ratios if ratio)
