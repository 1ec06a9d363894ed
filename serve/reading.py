"""First stage: who may be written to, and what is known about them.

Takes a Request; one query to PostgreSQL and an MGET or two give a FeatureChunk. Runs without Ray.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import structlog

from reco.campaigns.delivery import recipient_of
from reco.errors import ModelMismatch, ServiceUnavailable
from reco.features.history import Histories, cutoff_day
from reco.features.online import OnlineStore
from reco.models.slates import Slates
from reco.subscribers.interests import interests_of
from reco.subscribers.refusals import refusals_of
from reco.subscribers.store import Subscriber, SubscriberStore
from reco.subscribers.suppression import SuppressionList
from serve.chunks import (
    FeatureChunk,
    Mode,
    Recipients,
    Request,
    Withheld,
    candidates,
)
from serve.contact import Contact
from serve.fresh import Fresh, FreshSlates
from serve.past import Past
from serve.rows import spread
from serve.segments import Segments

log = structlog.get_logger()

Bools = npt.NDArray[np.bool_]
UNKNOWN: Final = "unknown"
NO_ADDRESS: Final = "no_address"
NO_CONSENT: Final = "no_consent"
ADDRESS_AS_ID: Final = "id_is_an_address"  # no link can name them (render.links)
FEATURES_DOWN: Final = "features_unavailable"


class Reader:
    """Reads what the later stages need of a chunk. Threads may share it."""

    def __init__(
        self,
        subscribers: SubscriberStore,
        suppressions: SuppressionList,
        online: OnlineStore,
        fresh: FreshSlates,
        segments: Segments,
        past: Past,
        contact: Contact,
    ) -> None:
        self._subscribers = subscribers
        self._suppressions = suppressions
        self._online = online
        self._fresh = fresh
        self._segments = segments
        self._past = past
        self._contact = contact

    def read(self, request: Request) -> FeatureChunk:
        """Recipients who may be written to, with their histories and fresh slates.

        A store of features that does not answer costs the personal picks, never the mail.
        Raises ServiceUnavailable when the subscribers cannot be read, ConfigError for a replay of a
        time before features or champion (serve.past).
        """
        started = time.perf_counter()
        users = [recipient_of(delivery) for delivery in request.deliveries]
        people = self._subscribers.get(users)
        reasons, waiting = self._contact.sort(request, people, self._reasons(request, people))
        held = {one.delivery for one in waiting}
        kept = [i for i, reason in enumerate(reasons) if not reason]
        audience = _Audience(
            [request.deliveries[i] for i in kept],
            [users[i] for i in kept],
            [request.arms[i] for i in kept],
            [people[i] for i in kept],
        )
        now = request.choice.as_of or datetime.now(UTC)
        personal = audience.personal(request.choice.static)
        histories, fresh, fallback = self._known(request, audience.user_ids, personal)
        segments = self._segments.of(request, audience.people, histories, now)
        return FeatureChunk(
            request=request,
            recipients=audience.recipients(segments, personal),
            withheld=[
                Withheld(delivery, why)
                for delivery, why in zip(request.deliveries, reasons, strict=True)
                if why and delivery not in held
            ],
            personal=personal,
            histories=histories,
            fresh=fresh.slates,
            fresh_version=fresh.version,
            now=now,
            fallback=fallback,
            waiting=waiting,
            took_ms={"features": (time.perf_counter() - started) * 1e3},
        )

    def _reasons(self, request: Request, people: Sequence[Subscriber | None]) -> list[str]:
        """Why each recipient gets no mail, "" for those who do."""
        if request.mode is Mode.RECOMMEND:
            return [""] * len(people)
        reasons = [_reason(person) for person in people]
        emails = [(person and person.email) or "" for person in people]
        return [
            reason or (suppressed.reason.value if suppressed else "")
            for reason, suppressed in zip(reasons, self._suppressions.check(emails), strict=True)
        ]

    def _known(
        self, request: Request, user_ids: Sequence[str], personal: Bools
    ) -> tuple[Histories, Fresh, str]:
        """Histories and fresh slates; nothing is read of those who did not agree to it."""
        choice, n = request.choice, len(user_ids)
        width = candidates(choice, request.mode)
        nothing = Fresh(Slates.empty(n, width))
        try:
            self._past.check(choice.as_of)
            fresh = (
                nothing
                if choice.live
                else self._fresh.fetch(user_ids, personal, width, choice.as_of)
            )
            # Histories also of those with a fresh slate: the Scorer may hold another model.
            read = self._online.fetch([user_ids[i] for i in np.flatnonzero(personal).tolist()])
            histories = spread(read, personal)
        except (ServiceUnavailable, ModelMismatch) as error:
            log.warning("features unavailable", why=str(error))
            return Histories.unpack([None] * n), nothing, FEATURES_DOWN
        if choice.as_of is not None:
            histories = histories.before(cutoff_day(choice.as_of))
        return histories, fresh, ""


@dataclass(frozen=True, slots=True)
class _Audience:
    """Those of a chunk who may be written to."""

    deliveries: list[str]
    user_ids: list[str]
    arms: list[str]
    people: list[Subscriber | None]

    def personal(self, static: frozenset[str]) -> Bools:
        """Who gets picks of their own: consent to profiling, and an arm that the model serves."""
        return np.array(
            [
                arm not in static and (person is None or person.consent_profiling)
                for arm, person in zip(self.arms, self.people, strict=True)
            ],
            np.bool_,
        )

    def recipients(self, segments: list[str], personal: Bools) -> Recipients:
        """As columns; whoever is unknown has an empty profile."""
        return Recipients(
            deliveries=self.deliveries,
            user_ids=self.user_ids,
            arms=self.arms,
            emails=[(p.email or "") if p else "" for p in self.people],
            first_names=[(p.first_name or "") if p else "" for p in self.people],
            languages=[(p.language or "") if p else "" for p in self.people],
            tracked=[p.consent_tracking if p else False for p in self.people],
            segments=segments,
            refused={
                i: refusals
                for i, p in enumerate(self.people)
                if p and p.attributes and (refusals := refusals_of(p))
            },
            timezones=[(p.timezone or "") if p else "" for p in self.people],
            interests=[
                interests_of(p) if p and wanted else ()
                for p, wanted in zip(self.people, personal, strict=True)
            ],
        )


def _reason(person: Subscriber | None) -> str:
    if person is None:
        return UNKNOWN
    if not person.email:
        return NO_ADDRESS
    if "@" in person.user_id:
        return ADDRESS_AS_ID
    return "" if person.consent_mail else NO_CONSENT
