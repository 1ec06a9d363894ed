"""Senders as Ray actors. Never retried by Ray: the ledger alone decides what may be sent again."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

import ray

from reco.campaigns.campaign import Campaign
from reco.campaigns.decisions import DecisionLog
from reco.campaigns.ledger import Ledger
from reco.campaigns.receivers import Receivers
from reco.campaigns.smtp import SmtpPool
from reco.campaigns.warmup import Quota
from reco.outcomes.copy_log import CopyLog
from reco.rules.caps import Caps
from reco.rules.contact import Contacts
from reco.subscribers.mail_domains import MailDomains
from reco.subscribers.suppression import SuppressionList
from serve.driving import Timing
from serve.graph import Graph, Hurry
from serve.inbound import returned_mail_of
from serve.leavers import Leavers
from serve.metrics import Meters
from serve.sender import Sender
from serve.stores import Stores


@dataclass(frozen=True, slots=True)
class SenderOrder:
    """What a sender actor is told."""

    home: str
    smtp_url: str = field(repr=False)  # may hold a password
    spec: bytes  # JSON of the Campaign
    scorer_budget_s: float
    rate_per_s: float | None
    lease_s: float
    closes_at: datetime | None = None  # nothing is handed off after it


@asynccontextmanager
async def open_sender(
    campaign: Campaign,
    order: SenderOrder,
    stores: Stores,
    graph: Graph,
    meters: Meters,
    *,
    waits: bool = False,
) -> AsyncIterator[Sender]:
    """A sender with its connections; whose mails may wait for long hears of withdrawn consent too.

    Raises ServiceUnavailable when the relay does not answer.
    """
    pool = SmtpPool(order.smtp_url, campaign.connections, campaign.messages_per_connection)
    suppressions = SuppressionList(stores.engine, stores.services.link_key)
    leavers = Leavers(suppressions, stores.services.database_url if waits else None)
    decisions = DecisionLog(stores.lake, campaign.id)
    with Ledger(stores.services.database_url) as ledger:
        async with pool, leavers.watching(), decisions.watching():
            yield Sender(
                campaign,
                graph.assemble,
                ledger,
                pool,
                Caps(stores.redis),
                meters,
                rate_per_s=order.rate_per_s,
                lease_s=order.lease_s,
                returned=returned_mail_of(stores),
                quota=Quota(campaign.warm_up, stores.engine) if campaign.warm_up else None,
                copy_log=CopyLog(stores.engine),
                leavers=leavers,
                receivers=None if stores.services.outbox else Receivers(MailDomains()),
                contacts=Contacts(stores.redis),
                decisions=decisions,
                closes_at=order.closes_at,
            )


class SenderActor:
    """One sender in a process of its own; after a kill it starts again and claims anew."""

    def __init__(self, order: SenderOrder) -> None:
        self._order = order
        self._campaign = Campaign.model_validate_json(order.spec)
        self._stores = Stores(order.home)
        self._meters = Meters()
        self._sender: Sender | None = None
        self._stopped = False
        self._hurry = Hurry()

    async def work(self) -> None:
        """Send until `stop`. Raises ServiceUnavailable when a store or the relay is gone."""
        graph = await asyncio.to_thread(Graph.of_app, self._order.scorer_budget_s)
        graph = replace(graph, hurry=self._hurry)
        async with open_sender(
            self._campaign, self._order, self._stores, graph, self._meters, waits=True
        ) as sender:
            self._sender = sender
            if not self._stopped:
                await sender.run()

    async def stop(self) -> None:
        """Let `work` end once what is handed off is settled."""
        self._stopped = True
        if self._sender is not None:
            self._sender.stop()

    async def hurry(self, on: bool) -> None:
        """Leave the model out of what is assembled from now on, or ask it again."""
        self._hurry.on = on

    async def take_timings(self) -> tuple[str, list[Timing]]:
        """The node that this runs on, and what was measured since the last call."""
        node: str = ray.get_runtime_context().get_node_id()
        return node, self._sender.take_timings() if self._sender is not None else []

    async def pid(self) -> int:
        """Process id, for operators and for the tests that kill it."""
        return os.getpid()
