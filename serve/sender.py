"""Sends the mails of one campaign: claim -> assemble -> hand off -> SMTP -> settle.

Several chunks are under way at once; ledger and Redis are synchronous and run in threads. What was
handed off is never sent again from here: a sender that dies leaves its hand-offs uncertain.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np
import structlog
from sqlalchemy.exc import SQLAlchemyError

from reco.campaigns.campaign import Campaign
from reco.campaigns.delivery import Claim, HandOff, Settled, State, Suppressed, recipient_of
from reco.campaigns.ledger import LEASE_S, Ledger
from reco.campaigns.receivers import Receivers
from reco.campaigns.smtp import SmtpPool
from reco.campaigns.warmup import Quota
from reco.errors import RecoError
from reco.features.history import day_of
from reco.outcomes.copy_learning import CopyLog
from reco.outcomes.returned import Delivered, ReturnedMail
from reco.rules.caps import Caps
from serve.chunks import Assembled, Choice, Request
from serve.leavers import Leavers
from serve.metrics import Meters
from serve.outgoing import Outgoing
from serve.picking import showing_of
from serve.rows import lines

log = structlog.get_logger()

CHUNK: Final = 256  # recipients of a claim
IN_FLIGHT: Final = 3  # chunks: one is assembled, one is sent, one is settled
GROUP: Final = 64  # mails handed off at once: a slow relay gets through them within the lease
CLAIMED_S: Final = 10  # what a sender with a rate claims is sent within so many seconds
IDLE_S: Final = 0.1

Assemble = Callable[[Request], Awaitable[Assembled]]


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds that a chunk of so many recipients spent in a stage."""

    stage: str
    took_ms: float
    recipients: int


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
    ) -> None:
        self._campaign = campaign
        self._spec = campaign.model_dump_json().encode()
        self._choice = Choice.of(campaign)
        self._assemble = assemble
        self._ledger = ledger
        self._pool = pool
        self._caps = caps
        self._meters = meters
        self._outgoing = Outgoing(campaign, pool, rate_per_s, leavers, receivers)
        self._chunk, self._group, self._in_flight = CHUNK, GROUP, IN_FLIGHT
        if rate_per_s is not None:
            self._chunk = max(1, min(CHUNK, int(rate_per_s * CLAIMED_S)))
            self._group = max(1, min(GROUP, int(rate_per_s)))
            self._in_flight = 1
        self._lease_s = lease_s
        self._returned = returned
        self._copy_log = copy_log
        self._quota = quota
        self._stopping = asyncio.Event()
        self.timings: list[Timing] = []

    def stop(self) -> None:
        """Let `run` end once what is handed off is settled; the rest of its claims goes back."""
        self._stopping.set()

    async def run(self) -> None:
        """Send until stopped. Raises ServiceUnavailable when a store or the relay is gone."""
        chunks: set[asyncio.Task[None]] = set()
        try:
            while not self._stopping.is_set():
                if len(chunks) >= self._in_flight:
                    done, chunks = await asyncio.wait(chunks, return_when="FIRST_COMPLETED")
                    _raise_first(done)
                    continue  # who was told to stop meanwhile claims nothing more
                claim = await asyncio.to_thread(self._claim)
                if claim is not None and len(claim):
                    chunks.add(asyncio.create_task(self.send_chunk(claim)))
                else:
                    await asyncio.sleep(IDLE_S)
        finally:
            results = await asyncio.gather(*chunks, return_exceptions=True)
        _raise(results)

    def _claim(self) -> Claim | None:
        """A chunk, as far as today's quota reaches; None when it is used up."""
        left = self._quota.left() if self._quota else None
        limit = self._chunk if left is None else min(self._chunk, left)
        return self._ledger.claim(self._campaign.id, limit, self._lease_s) if limit else None

    async def send_chunk(self, claim: Claim) -> None:
        """Send what a claim holds; every delivery of it ends in a state or goes back."""
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
        self._note("assemble", started, len(claim))
        for stage, took_ms in assembled.took_ms.items():
            self.timings.append(Timing(stage, took_ms, len(claim)))
        await asyncio.to_thread(self._close, claim.fence, assembled)
        await self._hand_off(claim, assembled)

    def _close(self, fence: int, assembled: Assembled) -> None:
        """End the deliveries of those who get no mail."""
        campaign_id = self._campaign.id
        if assembled.withheld:
            rows = [Suppressed(w.delivery, w.reason) for w in assembled.withheld]
            self._ledger.suppress(campaign_id, fence, rows)
        if assembled.broken:
            failed = [Settled(w.delivery, State.FAILED, w.reason) for w in assembled.broken]
            self._ledger.settle(campaign_id, fence, failed)
            self._meters.outcomes(State.FAILED.value for _ in failed)

    async def _hand_off(self, claim: Claim, assembled: Assembled) -> None:
        """Send group by group; who is not handed off when the sender is stopped goes back."""
        mails = hand_offs(assembled)
        attempts = {d.user_id: d.attempts + 1 for d in claim.deliveries}
        outcomes: list[Settled] = []
        await self._outgoing.meet(assembled.addresses)
        released: Sequence[int] = ()
        for start in range(0, len(mails), self._group):
            places = range(start, min(start + self._group, len(mails)))
            if await self._stops_within(self._outgoing.reserve(len(places))):
                released = range(start, len(mails))
                await asyncio.to_thread(self._ledger.release, self._campaign.id, claim.fence)
                break
            ours = await self._make_durable(claim.fence, assembled, mails[start : places.stop])
            mine = [i for i in places if assembled.deliveries[i] in ours]
            outcomes += await self._send(claim.fence, assembled, mine, attempts)
        await self._after(assembled, outcomes, released)

    async def _stops_within(self, wait_s: float) -> bool:
        """Wait; whether the sender was told to stop by then."""
        if wait_s > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_s)
        return self._stopping.is_set()

    async def _make_durable(
        self, fence: int, assembled: Assembled, mails: Sequence[HandOff]
    ) -> set[str]:
        """Write down that these mails are about to be sent; gives whose may be."""
        started = time.perf_counter()
        if self._copy_log is not None and any(assembled.copy):
            chosen = dict(zip(assembled.deliveries, assembled.copy, strict=True))
            copy = {mail.user_id: chosen[mail.user_id] for mail in mails}
            await asyncio.to_thread(self._copy_log.record, self._campaign, copy)
        ours = await asyncio.to_thread(
            self._ledger.hand_off, self._campaign.id, fence, mails, self._lease_s
        )
        self._note("ledger", started, len(mails))
        return ours

    async def _send(
        self, fence: int, assembled: Assembled, mine: Sequence[int], attempts: Mapping[str, int]
    ) -> list[Settled]:
        """Send mails that were handed off and write down what became of them."""
        started = time.perf_counter()
        sends = [self._outgoing.send(assembled, i, attempts[assembled.deliveries[i]]) for i in mine]
        outcomes = await asyncio.gather(*sends)
        await self._settle(fence, outcomes)
        self._note("smtp", started, len(mine))
        return outcomes

    async def _settle(self, fence: int, outcomes: Sequence[Settled]) -> None:
        if outcomes:
            await asyncio.to_thread(self._ledger.settle, self._campaign.id, fence, outcomes)
            self._meters.outcomes(outcome.state.value for outcome in outcomes)

    async def _after(
        self, assembled: Assembled, outcomes: Sequence[Settled], released: Sequence[int]
    ) -> None:
        """Give back the showings of mails not sent; notice a relay that takes nothing more."""
        states = {outcome.user_id: outcome.state for outcome in outcomes}
        failed = [i for i, d in enumerate(assembled.deliveries) if states.get(d) is State.FAILED]
        unsent = [*failed, *released]
        showing = showing_of(self._choice, day_of(self._campaign.now()))
        if unsent and showing is not None:
            users = [recipient_of(assembled.deliveries[i]) for i in unsent]
            items = lines(assembled.slates, unsent).items
            try:
                await asyncio.to_thread(self._caps.release, showing, users, items)
            except RecoError as error:
                log.warning("showings are not given back", why=str(error))
        if self._returned is not None:
            await asyncio.to_thread(self._tell, self._returned, assembled, outcomes)
        counts = Counter(states.values())
        if states and counts[State.DEFERRED] == len(states):
            await self._pool.open()

    def _tell(
        self, returned: ReturnedMail, assembled: Assembled, outcomes: Sequence[Settled]
    ) -> None:
        """A refusal while sending counts like a bounce: the dead address is suppressed."""
        replies = {o.user_id: o.reply for o in outcomes if o.state is State.FAILED}
        for i, delivery in enumerate(assembled.deliveries):
            if delivery in replies:
                mid, address = assembled.message_ids[i], assembled.addresses[i]
                mail = Delivered(self._campaign.id, delivery, mid, address)
                try:
                    returned.refused(mail, replies[delivery])
                except (RecoError, SQLAlchemyError) as error:
                    log.warning("a refusal is not acted on", why=str(error))

    def _note(self, stage: str, started: float, recipients: int) -> None:
        took_ms = (time.perf_counter() - started) * 1e3
        self.timings.append(Timing(stage, took_ms, recipients))
        self._meters.stage(stage, took_ms, recipients)


def hand_offs(assembled: Assembled) -> list[HandOff]:
    """What the ledger keeps of each mail."""
    slates = assembled.slates
    rungs = slates.rungs.max(axis=1, initial=0).tolist()
    shown = slates.items != 0
    return [
        HandOff(
            user_id=delivery,
            message_id=assembled.message_ids[i],
            rung=rungs[i],
            items=assembled.item_ids[i],
            scores=np.round(slates.scores[i][shown[i]].astype(np.float64), 6).tolist(),
            reasons=slates.reasons[i][shown[i]].tolist(),
            size_bytes=len(assembled.messages[i]),
        )
        for i, delivery in enumerate(assembled.deliveries)
    ]


def _raise_first(done: set[asyncio.Task[None]]) -> None:
    for task in done:
        task.result()


def _raise(results: Sequence[BaseException | None]) -> None:
    for result in results:
        if isinstance(result, BaseException):
            raise result
