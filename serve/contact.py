"""Whether now is the time to write to somebody: message cap, and quiet hours where they live."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from reco.campaigns.campaign import Campaign
from reco.campaigns.delivery import recipient_of
from reco.errors import RecoError
from reco.rules.contact import Contacts
from reco.subscribers.store import Subscriber
from serve.chunks import Mode, Request, Waiting
from serve.segments import campaign_of

log = structlog.get_logger()

MESSAGE_CAP = "message_cap"


@dataclass(frozen=True, slots=True)
class Contact:
    """Looks at the recipients of a chunk whom nothing else keeps from a mail. Threads share it."""

    contacts: Contacts

    def sort(
        self, request: Request, people: Sequence[Subscriber | None], reasons: list[str]
    ) -> tuple[list[str], list[Waiting]]:
        """`reasons` [n] with "message_cap" for who had enough, and who waits for their morning.

        Who waits is not counted, and has "waiting" for a reason. Without Redis nobody is held back.
        """
        if request.mode is Mode.RECOMMEND or not request.campaign:
            return reasons, []
        campaign, now = campaign_of(request.campaign), datetime.now(UTC)
        reasons, waiting = list(reasons), list[Waiting]()
        if request.mode is Mode.SEND and campaign.quiet_hours is not None:
            for i, person in enumerate(people):
                zone = (person and person.timezone) or ""
                until = None if reasons[i] else campaign.quiet_hours.until(now, zone)
                if until is not None:
                    waiting.append(Waiting(request.deliveries[i], until))
                    reasons[i] = "waiting"
        places = [i for i, reason in enumerate(reasons) if not reason]
        for i, may in zip(places, self._may(request, campaign, places, now), strict=True):
            reasons[i] = "" if may else MESSAGE_CAP
        return reasons, waiting

    def _may(
        self, request: Request, campaign: Campaign, places: Sequence[int], now: datetime
    ) -> list[bool]:
        deliveries = [request.deliveries[i] for i in places]
        cap = campaign.message_cap
        if cap is None and request.mode is not Mode.SEND:
            return [True] * len(places)
        try:
            return self.contacts.may_write(
                campaign.id,
                [recipient_of(delivery) for delivery in deliveries],
                deliveries,
                now,
                (cap.times, cap.days) if cap else None,
                reserve=request.mode is Mode.SEND,
            )
        except RecoError as error:
            log.warning("the message cap is not checked", why=str(error))
            return [True] * len(places)
