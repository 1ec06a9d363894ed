"""Single sends: mails that somebody asks for one by one, gathered at the door, sent by the chunk.

They go through the ledger like a campaign's: a delivery is sent once, and asking again tells how it
ended. Nobody but who asks again has one sent that was deferred, once it is due, or whose replica
died before it. Takes a group of asks, gives a state for each.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from reco.campaigns.campaign import Campaign
from reco.campaigns.delivery import Claim, Outcome, delivery_id
from reco.campaigns.ledger import Ledger
from serve.audience import assigned_arms
from serve.sender import Sender

RECOVER_S: Final = 5.0  # between two looks for what dead replicas left of a campaign


@dataclass(frozen=True, slots=True)
class Ask:
    """One mail to one subscriber; `key` names the event behind it.

    campaign  id of one that is stored, or the configuration itself
    """

    campaign: Campaign | str
    user_id: str
    key: str = ""

    @property
    def delivery(self) -> str:
        """Id of the delivery in the ledger."""
        return delivery_id(self.user_id, self.key)


@dataclass(frozen=True, slots=True)
class Sent:
    """Where the mail of an ask is."""

    campaign_id: str
    user_id: str
    outcome: Outcome


def by_campaign(asks: Sequence[Ask]) -> list[list[int]]:
    """Places of the asks of each campaign; two configurations of one id do not share a group."""
    groups: dict[str, list[list[int]]] = defaultdict(list)
    for i, ask in enumerate(asks):
        campaign = ask.campaign
        alike = groups[campaign if isinstance(campaign, str) else campaign.id]
        for places in alike:
            if asks[places[0]].campaign == campaign:
                places.append(i)
                break
        else:
            alike.append([i])
    return [places for alike in groups.values() for places in alike]


class SingleSends:
    """Sends groups of asks of one campaign."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._recovered_at: dict[str, float] = {}  # by campaign

    async def send(self, sender: Sender, campaign: Campaign, asks: Sequence[Ask]) -> list[Sent]:
        """Send what was not sent before; gives the outcome of each ask, in order.

        Raises ServiceUnavailable when a store is gone; whatever was handed off stays known.
        """
        deliveries = [ask.delivery for ask in asks]
        users = [ask.user_id for ask in asks]
        arms = dict(zip(deliveries, assigned_arms(campaign, users), strict=True))
        claim = await asyncio.to_thread(self._take, campaign.id, list(arms.items()))
        if len(claim):
            await sender.send_chunk(claim)
            sender.take_timings()  # nobody else does, and they would pile up
        found = await asyncio.to_thread(self._ledger.outcomes, campaign.id, deliveries)
        return [
            Sent(campaign.id, ask.user_id, found[delivery])
            for ask, delivery in zip(asks, deliveries, strict=True)
        ]

    def _take(self, campaign_id: str, rows: Sequence[tuple[str, str]]) -> Claim:
        """Claim what was not sent before, also when it is a dead replica's; most have no driver."""
        now = time.monotonic()
        if now - self._recovered_at.get(campaign_id, -math.inf) >= RECOVER_S:
            self._recovered_at[campaign_id] = now
            self._ledger.recover(campaign_id)
        return self._ledger.take(campaign_id, rows)
