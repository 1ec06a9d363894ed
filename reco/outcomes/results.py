"""The finished report as plain data: what the page draws and what --json prints."""

from dataclasses import dataclass

from reco.experiments.analysis import Analysis
from reco.outcomes.bands import Alert
from reco.outcomes.delivery import Delivery


@dataclass(frozen=True, slots=True)
class Report:
    """A campaign or a plain experiment, measured. `analysis` is None when no mail was accepted."""

    title: str
    replay: bool  # purchases are matched after the fact; no mail was really read
    currency: str
    analysis: Analysis | None
    delivery: Delivery | None
    cautions: tuple[str, ...]
    alerts: tuple[Alert, ...] = ()  # numbers outside their band

    @property
    def blocked(self) -> bool:
        """Whether a broken split forbids every comparison."""
        ratios = [
            self.analysis.sample_ratio if self.analysis else None,
            self.delivery.assigned_ratio if self.delivery else None,
        ]
        return any(ratio.alarm for ratio in ratios if ratio)
