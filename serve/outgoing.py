"""One mail on its way: the pace of its receiver, the relay, and the state that it is in then.

Raises nothing: whatever happens to a mail is the state of its delivery.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import structlog

from reco.campaigns.campaign import Campaign
from reco.campaigns.delivery import Settled, State, recipient_of
from reco.campaigns.operators import Pace, Paces, is_throttled
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


GROUP: Final = 64  # mails handed off at once: what a slow relay gets through in some seconds
GROUPS_PER_S: Final = 4  # to a receiver with a rate: it gets small bursts, not one a second


@dataclass(frozen=True, slots=True)
class Lane:
    """Mails that wait for nobody but each other.

    pace   of the receiver that they are for; None: of all those who are written to at any speed
    group  how many of them are handed off at once
    """

    pace: Pace | None
    mails: Assembled
    group: int

    def turns(self) -> list[tuple[range, float]]:
        """The places of each group, and the seconds after which it may be handed off.

        Beyond MOST_WAIT_S its receiver has no place for it: it is to come back then.
        """
        starts = range(0, len(self.mails), self.group)
        groups = [range(at, min(at + self.group, len(self.mails))) for at in starts]
        return [(one, self.pace.reserve(len(one)) if self.pace else 0.0) for one in groups]


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
        self._group = max(1, min(GROUP, int(rate_per_s))) if rate_per_s else GROUP

    def lanes(self, mails: Assembled) -> list[Lane]:
        """The mails of a chunk by who may hold them up; the lane without a pace comes first."""
        at: dict[Pace | None, list[int]] = defaultdict(list)
        for i, address in enumerate(mails.addresses):
            pace = self._pace(address)
            at[pace if pace.rate_per_s is not None else None].append(i)
        if at.keys() == {None}:
            return [Lane(None, mails, self._group)]
        everybody = [Lane(None, mails.part(at.pop(None, [])), self._group)]
        return everybody + [Lane(pace, mails.part(at[pace]), self._group_of(pace)) for pace in at]

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
        pace = self._pace(address)
        if (hold_s := pace.hold_s()) > 0:
            return held_back(delivery, hold_s, "the receiver said it was too fast")
        mail_from = return_path(assembled.message_ids[i], self._domain)
        user = recipient_of(delivery)
        last_look = partial(self._leavers.check, address, user) if self._leavers else None
        try:
            reply = await self._pool.send(mail_from, address, assembled.messages[i], last_look)
        except Left:
            return held_back(delivery, 0.0, "the reader left meanwhile")
        except SendError as error:
            return self._refused(delivery, error, attempt, pace)
        except Exception as error:
            log.exception("an unknown error while sending", delivery_state=State.UNCERTAIN.value)
            return Settled(delivery, State.UNCERTAIN, type(error).__name__)
        pace.accepted()
        return Settled(delivery, State.ACCEPTED, reply)

    def _pace(self, address: str) -> Pace:
        servers = self._receivers.servers(address) if self._receivers else ()
        return self._paces.of(address, servers)

    def _group_of(self, pace: Pace | None) -> int:
        rate = (pace and pace.rate_per_s) or self._group
        return max(1, min(self._group, int(rate / GROUPS_PER_S)))

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


def held_back(delivery: str, wait_s: float, why: str) -> Settled:
    """Nothing was tried, so it is no attempt: it may be held back as often as it takes."""
    again = datetime.now(UTC) + timedelta(seconds=wait_s)
    return Settled(delivery, State.DEFERRED, f"Held back: {why}", again, tried=False)
