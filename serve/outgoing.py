"""One mail on its way: the pace of its receiver, the relay, and the state that it is in then.

Raises nothing: whatever happens to a mail is the state of its delivery.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import structlog

from reco.campaigns.campaign import Campaign
from reco.campaigns.delivery import Settled, State
from reco.campaigns.operators import MOST_WAIT_S, Pace, Paces, is_throttled
from reco.campaigns.pacing import TokenBucket, next_attempt
from reco.campaigns.receivers import Receivers
from reco.campaigns.smtp import SmtpPool
from reco.errors import SendDeferred, SendError, SendFailed, SendUncertain
from reco.outcomes.verdicts import Kind, Refusal, judge
from render.message import return_path
from serve.chunks import Assembled
from serve.leavers import Leavers, Left
from serve.letterhead import domain_of

log = structlog.get_logger()

STATES: Final[Mapping[type[SendError], State]] = {
    SendDeferred: State.DEFERRED,
    SendFailed: State.FAILED,
    SendUncertain: State.UNCERTAIN,
}


class Outgoing:
    """Sends the mails of one campaign through one pool; lives in one event loop."""

    def __init__(
        self,
        campaign: Campaign,
        pool: SmtpPool,
        rate_per_s: float | None,
        leavers: Leavers | None = None,
        receivers: Receivers | None = None,
    ) -> None:
        self._pool = pool
        self._receivers = receivers
        self._leavers = leavers
        self._domain = domain_of(campaign)
        self._paces = Paces({str(name): rate for name, rate in campaign.operator_rates.items()})
        self._rate = TokenBucket(rate_per_s) if rate_per_s else None

    def reserve(self, mails: int) -> float:
        """Take places at the campaign's rate; seconds to wait before these mails are handed off."""
        return self._rate.reserve(mails) if self._rate is not None else 0.0

    async def meet(self, addresses: Sequence[str]) -> None:
        """Learn who takes the mail of these addresses, as far as their domains do not tell."""
        if self._receivers is not None:
            await self._receivers.ask(addresses)

    async def send(self, assembled: Assembled, i: int, attempt: int) -> Settled:
        """One mail, and the state that its delivery is in now."""
        delivery = assembled.deliveries[i]
        address = assembled.addresses[i]
        servers = self._receivers.servers(address) if self._receivers else ()
        pace = self._paces.of(address, servers)
        if held := await self._held_back(delivery, pace):
            return held
        mail_from = return_path(assembled.message_ids[i], self._domain)
        last_look = partial(self._leavers.check, address) if self._leavers else None
        try:
            reply = await self._pool.send(mail_from, address, assembled.messages[i], last_look)
        except Left:
            return _held(delivery, 0.0, "Held back: the reader left meanwhile")
        except SendError as error:
            return self._refused(delivery, error, attempt, pace)
        except Exception as error:
            log.exception("an unknown error while sending", delivery_state=State.UNCERTAIN.value)
            return Settled(delivery, State.UNCERTAIN, type(error).__name__)
        pace.accepted()
        return Settled(delivery, State.ACCEPTED, reply)

    async def _held_back(self, delivery: str, pace: Pace) -> Settled | None:
        """Wait for a place; a mail to an operator that is left alone comes back later."""
        if (hold_s := pace.hold_s()) > 0:
            return _held(delivery, hold_s, "Held back: the receiver said it was too fast")
        if (wait_s := pace.reserve()) > MOST_WAIT_S:
            return _held(delivery, wait_s, "Held back: the pace to this receiver")
        await asyncio.sleep(wait_s)
        return None

    def _refused(self, delivery: str, error: SendError, attempt: int, pace: Pace) -> Settled:
        reply = f"{error.what} {error.why}".strip()
        state = STATES[type(error)]
        ours = state is State.FAILED and judge(Refusal.of(error.why)) is Kind.POLICY
        if ours and pace.refused_by_policy():
            log.warning("a receiver refuses us by policy and is left alone", why=error.why)
        if state is not State.DEFERRED:
            return Settled(delivery, state, reply)
        now = datetime.now(UTC)
        hold_s = pace.throttled() if is_throttled(error.why) else 0.0
        again = next_attempt(attempt, now)
        if again is None:
            return Settled(delivery, State.FAILED, f"Given up: {reply}")
        return Settled(delivery, State.DEFERRED, reply, max(again, now + timedelta(seconds=hold_s)))


def _held(delivery: str, wait_s: float, why: str) -> Settled:
    """Nothing was tried, so it is no attempt: it may be held back as often as it takes."""
    again = datetime.now(UTC) + timedelta(seconds=wait_s)
    return Settled(delivery, State.DEFERRED, why, again, tried=False)
