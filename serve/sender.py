"""Sends the mails of one campaign: claim -> assemble -> hand off -> SMTP -> settle.

Several chunks are under way at once; ledger and Redis are synchronous and run in threads. What was
handed off is never sent again from here: a sender that dies leaves its hand-offs uncertain.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

from reco.campaigns.campaign import Campaign
from reco.campaigns.decisions import DecisionLog
from reco.campaigns.delivery import Claim, Settled, State, Suppressed
from reco.campaigns.ledger import LEASE_S, Ledger
from reco.campaigns.receivers import Receivers
from reco.campaigns.smtp import SmtpPool
from reco.campaigns.warmup import Quota
from reco.outcomes.copy_log import CopyLog
from reco.outcomes.returned import ReturnedMail
from reco.rules.caps import Caps
from reco.rules.contact import Contacts
from serve.chunks import Assembled, Choice, Request
from serve.driving import Clock, Driving, Timing
from serve.leases import Leases
from serve.leavers import Leavers
from serve.metrics import Meters
from serve.outgoing import Lane, Outgoing

CHUNK: Final = 256  # recipients of a claim
IN_FLIGHT: Final = 3  # chunks: one is assembled, one is sent, one is settled
CLAIMED_S: Final = 10  # what a sender with a rate claims is sent within so many seconds
IDLE_S: Final = 0.1
QUIET: Final = "quiet_hours"

Assemble = Callable[[Request], Awaitable[Assembled]]


class Sender:
    """One sender of one campaign; lives in one event loop."""

    def __init__(
        self,
        campaign: Campaign,
        assemble: Assemble,
        ledger: Ledger,
        pool: SmtpPool,
        caps: Caps,
        meters: Meters,
        *,
        rate_per_s: float | None = None,
        lease_s: float = LEASE_S,
        returned: ReturnedMail | None = None,
        copy_log: CopyLog | None = None,
        quota: Quota | None = None,
        leavers: Leavers | None = None,
        receivers: Receivers | None = None,
        contacts: Contacts | None = None,
        decisions: DecisionLog | None = None,
        closes_at: datetime | None = None,
    ) -> None:
        self._campaign = campaign
        self._spec = campaign.model_dump_json().encode()
        self._choice = Choice.of(campaign)
        self._assemble = assemble
        self._ledger = ledger
        self._meters = meters
        self._outgoing = Outgoing(campaign, pool, rate_per_s, leavers, receivers)
        self._chunk, self._in_flight = CHUNK, IN_FLIGHT
        if rate_per_s is not None:
            self._chunk = max(1, min(CHUNK, int(rate_per_s * CLAIMED_S)))
            self._in_flight = 1
        self._lease_s = lease_s
        self._leases = Leases(ledger, campaign.id, lease_s)
        self._quota = quota
        self._stopping = asyncio.Event()
        self._clock = Clock(meters)
        self._driving = Driving(
            campaign=campaign,
            ledger=ledger,
            outgoing=self._outgoing,
            pool=pool,
            caps=caps,
            clock=self._clock,
            stopping=self._stopping,
            lease_s=lease_s,
            returned=returned,
            copy_log=copy_log,
            contacts=contacts,
            decisions=decisions,
            closes_at=closes_at,
        )

    def take_timings(self) -> list[Timing]:
        """What was measured since the last call."""
        taken, self._clock.timings = self._clock.timings, []
        return taken

    def stop(self) -> None:
        """Let `run` end once what is handed off is settled; the rest of its claims goes back."""
        self._stopping.set()

    async def run(self) -> None:
        """Send until stopped. Raises ServiceUnavailable when a store or the relay is gone."""
        loop = asyncio.get_running_loop()
        chunks: dict[asyncio.Task[None], asyncio.Future[None]] = {}
        try:
            while not self._stopping.is_set():
                for task in [task for task in chunks if task.done()]:
                    del chunks[task]
                    task.result()
                busy = [free for free in chunks.values() if not free.done()]
                if len(busy) >= self._in_flight:
                    await asyncio.wait([*chunks, *busy], return_when="FIRST_COMPLETED")
                    continue  # who was told to stop meanwhile claims nothing more
                claim = await asyncio.to_thread(self._claim)
                if claim is not None and len(claim):
                    free = loop.create_future()
                    chunks[asyncio.create_task(self.send_chunk(claim, free))] = free
                else:
                    await asyncio.sleep(IDLE_S)
        finally:
            results = await asyncio.gather(*chunks, return_exceptions=True)
        _raise(results)

    def _claim(self) -> Claim | None:
        """A chunk, as far as today's quota reaches; None when that is used up, or it is over."""
        if self._driving.over:
            return None
        left = self._quota.left() if self._quota else None
        limit = self._chunk if left is None else min(self._chunk, left)
        return self._ledger.claim(self._campaign.id, limit, self._lease_s) if limit else None

    async def send_chunk(self, claim: Claim, free: asyncio.Future[None] | None = None) -> None:
        """Send what a claim holds; every delivery of it ends in a state or goes back.

        `free` is done when nothing is left but mails that wait for the pace of their receiver.
        """
        async with self._leases.held(claim.fence):
            attempts = {d.user_id: d.attempts + 1 for d in claim.deliveries}
            first, *others = await self._lanes(claim)
            drive = self._driving.drive
            slow = [asyncio.create_task(drive(claim.fence, one, attempts)) for one in others]
            del others  # a lane that is through is forgotten while another one still waits
            try:
                await drive(claim.fence, first, attempts)
            finally:
                del first
                if free is not None:
                    free.set_result(None)
                results = await asyncio.gather(*slow, return_exceptions=True)
            _raise(results)

    async def _lanes(self, claim: Claim) -> list[Lane]:
        """The mails of a claim by who may hold them up; who gets none is written down."""
        assembled = await self._assembled(claim)
        await asyncio.to_thread(self._close, claim.fence, assembled)
        await self._outgoing.meet(assembled.addresses)
        return self._outgoing.lanes(assembled)

    async def _assembled(self, claim: Claim) -> Assembled:
        started = time.perf_counter()
        request = Request(
            choice=self._choice,
            deliveries=[d.user_id for d in claim.deliveries],
            arms=[d.arm for d in claim.deliveries],
            campaign=self._spec,
        )
        try:
            assembled = await self._assemble(request)
        except BaseException:
            await asyncio.to_thread(self._ledger.release, self._campaign.id, claim.fence)
            raise
        self._clock.note("assemble", started, len(claim))
        for stage, took_ms in assembled.took_ms.items():
            self._clock.timings.append(Timing(stage, took_ms, len(claim)))
        return assembled

    def _close(self, fence: int, assembled: Assembled) -> None:
        """End the deliveries of those who get no mail, and put off those of whom it is night."""
        campaign_id = self._campaign.id
        if assembled.waiting:
            late = [
                Settled(w.delivery, State.DEFERRED, QUIET, w.until, tried=False)
                for w in assembled.waiting
            ]
            self._ledger.settle(campaign_id, fence, late)
        if assembled.withheld:
            rows = [Suppressed(w.delivery, w.reason) for w in assembled.withheld]
            self._ledger.suppress(campaign_id, fence, rows)
        if assembled.broken:
            failed = [Settled(w.delivery, State.FAILED, w.reason) for w in assembled.broken]
            self._ledger.settle(campaign_id, fence, failed)
            self._driving.give_back([w.delivery for w in assembled.broken])
            self._meters.outcomes(State.FAILED.value for _ in failed)


def _raise(results: Sequence[BaseException | None]) -> None:
    for result in results:
        if isinstance(result, BaseException):
            raise result
