"""Every metric that reco adds to Ray's: what the dashboard and the alert rules are written against.

Ray exports them with the prefix `ray_`, counters with the suffix `_total`.
"""

from collections import Counter as Counts
from collections.abc import Iterable
from typing import Final

from ray.util.metrics import Counter, Histogram

from reco.models.slates import Rung, Slates

STAGE_MS: Final = "reco_stage_latency_ms"  # of a chunk, by stage
CHUNK_SIZE: Final = "reco_chunk_recipients"  # recipients in a chunk, by stage
ASSEMBLED: Final = "reco_mails_assembled"
PICKS: Final = "reco_picks"  # by rung of the fallback ladder
FALLBACKS: Final = "reco_fallbacks"  # recipients whose stage fell back, by reason
WITHHELD: Final = "reco_mails_suppressed"  # by reason
OUTCOMES: Final = "reco_mails_settled"  # by state: accepted, deferred, failed, uncertain
PUBLIC: Final = "reco_public_requests"  # click, open, unsubscribe

MILLISECONDS: Final = (1, 2, 5, 10, 20, 35, 50, 75, 100, 150, 200, 350, 500, 1000, 2000, 5000)
RECIPIENTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Meters:
    """The metrics of one process; made where Ray runs, cheap to call from any thread."""

    def __init__(self) -> None:
        self._stage = Histogram(
            STAGE_MS, "Time of a chunk in a stage", [*map(float, MILLISECONDS)], ("stage",)
        )
        self._size = Histogram(
            CHUNK_SIZE, "Recipients in a chunk", [*map(float, RECIPIENTS)], ("stage",)
        )
        self._assembled = Counter(ASSEMBLED, "Mails made")
        self._picks = Counter(PICKS, "Items shown, by rung of the ladder", ("rung",))
        self._fallbacks = Counter(FALLBACKS, "Recipients served by a fallback", ("reason",))
        self._withheld = Counter(WITHHELD, "Recipients without a mail", ("reason",))
        self._outcomes = Counter(OUTCOMES, "Deliveries that reached a state", ("state",))
        self._public = Counter(PUBLIC, "Requests of mail readers", ("kind",))

    def stage(self, stage: str, took_ms: float, recipients: int) -> None:
        """One chunk went through a stage."""
        self._stage.observe(max(took_ms, 0.001), {"stage": stage})  # Ray refuses 0
        self._size.observe(max(recipients, 1), {"stage": stage})

    def picks(self, slates: Slates) -> None:
        """Items that are about to be shown."""
        for rung in Rung:
            if rung is not Rung.NONE and (count := int((slates.rungs == rung).sum())):
                self._picks.inc(count, {"rung": rung.name.lower()})

    def fallback(self, reason: str, recipients: int) -> None:
        """A chunk lost its model picks."""
        if reason and recipients:
            self._fallbacks.inc(recipients, {"reason": reason})

    def assembled(self, mails: int) -> None:
        """Mails that are ready to be sent."""
        if mails:
            self._assembled.inc(mails)

    def withheld(self, reasons: Iterable[str]) -> None:
        """Recipients who get no mail, each with the reason."""
        for reason, count in Counts(reasons).items():
            self._withheld.inc(count, {"reason": reason})

    def outcomes(self, states: Iterable[str]) -> None:
        """Deliveries that reached a state, each with it."""
        for state, count in Counts(states).items():
            self._outcomes.inc(count, {"state": state})

    def public(self, kind: str) -> None:
        """A click, an open or an unsubscription."""
        self._public.inc(1, {"kind": kind})
