"""Sends the mails of one lane: hand off -> SMTP -> settle, group by group.

Takes finished mails of a claim; what was handed off is never sent again from here, whatever comes.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import structlog
from sqlalchemy.exc import SQLAlchemyError

from reco.campaigns.campaign import Campaign
from reco.campaigns.decisions import DecisionLog
from reco.campaigns.delivery import HandOff, Settled, State, recipient_of
from reco.campaigns.ledger import Ledger
from reco.campaigns.operators import MOST_WAIT_S
from reco.campaigns.smtp import SmtpPool
from reco.errors import RecoError
from reco.features.history import day_of
from reco.outcomes.copy_log import CopyLog
from reco.outcomes.returned import Delivered, ReturnedMail
from reco.rules.caps import Caps
from reco.rules.contact import Contacts
from serve.chunks import Assembled, Choice
from serve.metrics import Meters
from serve.outgoing import Lane, Outgoing, held_back
from serve.picking import showing_of
from serve.rows import lines

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds that a chunk of so many recipients spent in a stage."""

    stage: str
    took_ms: float
    recipients: int


@dataclass(slots=True)
class Clock:
    """Timings of one sender, for its driver and for the dashboard."""

    meters: Meters
    timings: list[Timing] = field(default_factory=list)

    def note(self, stage: str, started: float, recipients: int) -> None:
        """A stage that began at `started` of time.perf_counter is over."""
        took_ms = (time.perf_counter() - started) * 1e3
        self.timings.append(Timing(stage, took_ms, recipients))
        self.meters.stage(stage, took_ms, recipients)


@dataclass(frozen=True, slots=True)
class Driving:
    """Everything that sending a lane needs; `stopping` or `closes_at` ends it before a group."""

    campaign: Campaign
    ledger: Ledger
    outgoing: Outgoing
    pool: SmtpPool
    caps: Caps
    clock: Clock
    stopping: asyncio.Event
    lease_s: float
    returned: ReturnedMail | None = None
    copy_log: CopyLog | None = None
    contacts: Contacts | None = None
    decisions: DecisionLog | None = None
    closes_at: datetime | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more is handed off: the sender is told to stop, or its window is over."""
        closed = self.closes_at is not None and datetime.now(UTC) >= self.closes_at
        return closed or self.stopping.is_set()

    async def drive(self, fence: int, lane: Lane, attempts: Mapping[str, int]) -> None:
        """Send group by group; who is not handed off when it is over goes back."""
        mails, turns, begun = lane.mails, lane.turns(), time.monotonic()
        outcomes = await self._put_off(fence, mails, turns)
        released: Sequence[int] = ()
        try:
            for places, turn_s in turns:
                if turn_s > MOST_WAIT_S:
                    continue
                wait_s = max(begun + turn_s - time.monotonic(), self.outgoing.reserve(len(places)))
                if await self._over_in(wait_s):
                    put_off = {outcome.user_id for outcome in outcomes if not outcome.tried}
                    rest = range(places.start, len(mails))
                    released = [i for i in rest if mails.deliveries[i] not in put_off]
                    break
                ours = await self._make_durable(fence, mails, places)
                mine = [i for i in places if mails.deliveries[i] in ours]
                await self._send(fence, mails, mine, attempts, outcomes)
        finally:  # the relay has taken what it has, whatever breaks then
            await self._after(fence, mails, outcomes, released)

    async def _put_off(
        self, fence: int, mails: Assembled, turns: Sequence[tuple[range, float]]
    ) -> list[Settled]:
        """Mails that their receiver has no place for soon come back later."""
        late = [
            held_back(mails.deliveries[i], turn_s, "the pace to this receiver")
            for places, turn_s in turns
            if turn_s > MOST_WAIT_S
            for i in places
        ]
        await self._settle(fence, late)
        return late

    async def _over_in(self, wait_s: float) -> bool:
        """Wait; whether it is over by then."""
        if wait_s > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), wait_s)
        return self.over

    async def _make_durable(self, fence: int, mails: Assembled, places: Sequence[int]) -> set[str]:
        """Write down that these mails are about to be sent; gives whose may be."""
        started = time.perf_counter()
        if self.copy_log is not None and any(mails.copy):
            copy = {mails.deliveries[i]: mails.copy[i] for i in places}
            await asyncio.to_thread(self.copy_log.record, self.campaign, copy)
        ours = await asyncio.to_thread(
            self.ledger.hand_off, self.campaign.id, fence, hand_offs(mails, places), self.lease_s
        )
        self.clock.note("ledger", started, len(places))
        return ours

    async def _send(
        self,
        fence: int,
        assembled: Assembled,
        mine: Sequence[int],
        attempts: Mapping[str, int],
        outcomes: list[Settled],
    ) -> None:
        """Send mails that were handed off; add what became of them, and write it down."""
        started = time.perf_counter()
        sends = [self.outgoing.send(assembled, i, attempts[assembled.deliveries[i]]) for i in mine]
        sent = await asyncio.gather(*sends)
        outcomes += sent
        await self._settle(fence, sent)
        self.clock.note("smtp", started, len(mine))

    async def _settle(self, fence: int, outcomes: Sequence[Settled]) -> None:
        if outcomes:
            await asyncio.to_thread(self.ledger.settle, self.campaign.id, fence, outcomes)
            self.clock.meters.outcomes(outcome.state.value for outcome in outcomes)

    def give_back(self, deliveries: Sequence[str]) -> None:
        """These mails are not sent: they count for no message cap and for no item cap."""
        showing = showing_of(Choice.of(self.campaign), day_of(self.campaign.now()))
        try:
            if self.contacts is not None:
                users = [recipient_of(delivery) for delivery in deliveries]
                self.contacts.release(self.campaign.id, users, deliveries)
            if showing is not None:
                self.caps.forget(showing, deliveries)
        except RecoError as error:
            log.warning("what was counted for mails not sent is not given back", why=str(error))

    def _record(self, fence: int, assembled: Assembled, outcomes: Sequence[Settled]) -> None:
        """Keep why the mails that were handed to the relay are as they are."""
        tried = {outcome.user_id for outcome in outcomes if outcome.tried}
        places = [i for i, delivery in enumerate(assembled.deliveries) if delivery in tried]
        if self.decisions is not None and assembled.records is not None and places:
            self.decisions.add(assembled.records, places, fence)

    async def _after(
        self,
        fence: int,
        assembled: Assembled,
        outcomes: Sequence[Settled],
        released: Sequence[int],
    ) -> None:
        """Give back what was counted for mails not sent; notice a relay that takes nothing more."""
        await asyncio.to_thread(self._record, fence, assembled, outcomes)
        states = {outcome.user_id: outcome.state for outcome in outcomes}
        failed = [i for i, d in enumerate(assembled.deliveries) if states.get(d) is State.FAILED]
        unsent = [*failed, *released]
        if unsent:
            await asyncio.to_thread(self.give_back, [assembled.deliveries[i] for i in unsent])
        if released:  # only now, or whoever claims them next would have theirs taken back
            await asyncio.to_thread(self.ledger.release, self.campaign.id, fence)
        if self.returned is not None:
            await asyncio.to_thread(self._tell, self.returned, assembled, outcomes)
        counts = Counter(states.values())
        if states and counts[State.DEFERRED] == len(states):
            await self.pool.open()

    def _tell(
        self, returned: ReturnedMail, assembled: Assembled, outcomes: Sequence[Settled]
    ) -> None:
        """A refusal while sending counts like a bounce: the dead address is suppressed."""
        replies = {o.user_id: o.reply for o in outcomes if o.state is State.FAILED}
        for i, delivery in enumerate(assembled.deliveries):
            if delivery in replies:
                mid, address = assembled.message_ids[i], assembled.addresses[i]
                mail = Delivered(self.campaign.id, delivery, mid, address)
                try:
                    returned.refused(mail, replies[delivery])
                except (RecoError, SQLAlchemyError) as error:
                    log.warning("a refusal is not acted on", why=str(error))


def hand_offs(mails: Assembled, places: Sequence[int]) -> list[HandOff]:
    """What the ledger keeps of each mail at these places."""
    slates = lines(mails.slates, places)
    rungs = slates.rungs.max(axis=1, initial=0).tolist()
    shown, scores = slates.items != 0, np.round(slates.scores.astype(np.float64), 6)
    return [
        HandOff(
            user_id=mails.deliveries[i],
            message_id=mails.message_ids[i],
            rung=rungs[row],
            items=mails.item_ids[i],
            scores=scores[row][shown[row]].tolist(),
            reasons=slates.reasons[row][shown[row]].tolist(),
            size_bytes=len(mails.messages[i]),
        )
        for row, i in enumerate(places)
    ]
