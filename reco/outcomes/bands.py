"""The bands in which the numbers of a campaign should stay: one set for the report, the guard of a
running campaign and the alert rules. See configs/alerts/bands.yaml for each key."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from reco.campaigns.yaml_config import read_config
from reco.outcomes.delivery import Delivery
from reco.outcomes.wording import milliseconds, share

Share = Annotated[float, Field(gt=0, lt=1)]


class Bands(BaseModel):
    """Limits; a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    latency_p95_ms: float = Field(200, gt=0)
    coverage_floor: Share = 0.01
    fallback_ceiling: Share = 0.5
    uncertain_ceiling: Share = 0.01
    calibration_ceiling: Share = 0.5
    unsubscribe_ceiling: Share = 0.01
    complaint_ceiling: Share = 0.003
    bounce_ceiling: Share = 0.05

    @property
    def harm(self) -> dict[str, float]:
        """Ceiling of each rate that pauses a running campaign."""
        return {
            "unsubscribe": self.unsubscribe_ceiling,
            "complaint": self.complaint_ceiling,
            "bounce": self.bounce_ceiling,
        }


@dataclass(frozen=True, slots=True)
class Alert:
    """A number outside its band."""

    name: str
    value: float
    limit: float
    text: str


def read_bands(path: Path | None = None) -> Bands:
    """The bands in a file, or the defaults. Raises ConfigError with every mistake."""
    return read_config(path, Bands) if path else Bands()


def alerts_of(delivery: Delivery, bands: Bands) -> tuple[Alert, ...]:
    """Every number of a campaign that has left its band."""
    found = [
        Alert(
            f"latency of {s.stage}",
            s.p95_mail_ms,
            bands.latency_p95_ms,
            f"The p95 of {s.stage} is {milliseconds(s.p95_mail_ms)} a mail, over "
            f"{milliseconds(bands.latency_p95_ms)}.",
        )
        for s in delivery.latencies
        if s.p95_mail_ms > bands.latency_p95_ms
    ]
    if delivery.exposures and delivery.exposures[0].coverage < bands.coverage_floor:
        shown = delivery.exposures[0].coverage
        found.append(
            Alert(
                "coverage", shown, bands.coverage_floor,
                f"Only {share(shown, 2)} of the mailable catalogue was shown, under "
                f"{share(bands.coverage_floor)}.",
            )
        )  # fmt: skip
    handed = delivery.ledger.states["accepted"] + delivery.ledger.states["uncertain"]
    lost = delivery.ledger.states["uncertain"] / handed if handed else 0.0
    if lost > bands.uncertain_ceiling:
        found.append(
            Alert(
                "uncertain", lost, bands.uncertain_ceiling,
                f"Of {share(lost)} of the mails nobody knows whether they arrived, over "
                f"{share(bands.uncertain_ceiling)}.",
            )
        )  # fmt: skip
    return (*found, *_miscalibrated(delivery, bands), *_fallbacks(delivery, bands))


def _miscalibrated(delivery: Delivery, bands: Bands) -> list[Alert]:
    """Scores that are not the probabilities that they claim to be, in a window seen whole."""
    found = delivery.calibration
    if not found or not delivery.window.complete or found.gap <= bands.calibration_ceiling:
        return []
    text = (
        f"Scores promised {share(found.expected, 2)} of the slots to be bought and "
        f"{share(found.seen, 2)} were; group by group they miss by {share(found.gap)} of that."
    )
    return [Alert("calibration", found.gap, bands.calibration_ceiling, text)]


def _fallbacks(delivery: Delivery, bands: Bands) -> list[Alert]:
    """Arms whose mails the model did not fill; an editorial arm is not meant to be its."""
    found = []
    for exposure in delivery.exposures[1:]:
        below = sum(exposure.rungs.get(rung, 0.0) for rung in ("popular", "editorial", "random"))
        if bands.fallback_ceiling < below and exposure.arm not in delivery.editorial:
            found.append(
                Alert(
                    f"fallback of {exposure.arm}", below, bands.fallback_ceiling,
                    f"{share(below)} of the mails of {exposure.arm} needed a rung below the "
                    f"model's, over {share(bands.fallback_ceiling)}.",
                )
            )  # fmt: skip
    return found
