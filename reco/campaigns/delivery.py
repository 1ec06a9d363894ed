"""One mail to one recipient of one campaign: its states and what the ledger is told about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

KEY_MARK: Final = "\x1f"  # between user id and key in the id of a delivery


def delivery_id(user_id: str, key: str = "") -> str:
    """Id of a delivery in the ledger: the user's own, or one more for each idempotency key."""
    return f"{user_id}{KEY_MARK}{key}" if key else user_id


def recipient_of(delivery: str) -> str:
    """User id of a delivery."""
    return delivery.partition(KEY_MARK)[0]


class State(StrEnum):
    """State of a delivery. Every one is in exactly one state; the last four are final.

    But for a mail by event: one that was called off starts anew by a later event (serve.triggers).

    from         to            when
    queued       claimed       a sender takes it: lease, and a fence of its own
    deferred     claimed       next_at has come
    queued       suppressed    the campaign was cancelled, or its deadline is past
    deferred     suppressed    likewise
    claimed      queued        released, or the lease ran out
    claimed      suppressed    opted out or on the suppression list, seen after the claim
    claimed      failed        no mail can be made for it
    claimed      deferred      its receiver is left alone for now, or has no place for it soon
    claimed      handing_off   committed BEFORE the first byte of the mail is sent
    handing_off  accepted      the server said 250
    handing_off  deferred      4xx, or the connection was lost before the body
    handing_off  failed        5xx, or tried for too long
    handing_off  uncertain     lost after the body, or the lease ran out: nobody knows; not resent
    uncertain    accepted      the sender of the same fence was slow, not dead, and does know
    uncertain    failed        likewise
    """

    QUEUED = "queued"
    CLAIMED = "claimed"
    HANDING_OFF = "handing_off"
    DEFERRED = "deferred"
    ACCEPTED = "accepted"
    FAILED = "failed"
    SUPPRESSED = "suppressed"
    UNCERTAIN = "uncertain"


FINAL: Final = frozenset({State.ACCEPTED, State.FAILED, State.SUPPRESSED, State.UNCERTAIN})


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that a sender may work on until the lease ends."""

    user_id: str
    arm: str
    attempts: int  # hand-offs so far


@dataclass(frozen=True, slots=True)
class Claim:
    """What one call of `Ledger.claim` took; `fence` proves the ownership in later calls."""

    fence: int
    deliveries: Sequence[Claimed]

    def __len__(self) -> int:
        return len(self.deliveries)


@dataclass(frozen=True, slots=True)
class HandOff:
    """What is about to be sent: enough to know it again and to judge it later.

    Raises ValueError unless items, scores and reasons are of one length.
    """

    user_id: str
    message_id: str
    rung: int  # the lowest rung of the ladder used (models.slates.Rung)
    items: Sequence[str]  # shown, in their order
    scores: Sequence[float]
    reasons: Sequence[int]  # models.slates.Reason
    size_bytes: int

    def __post_init__(self) -> None:
        if not len(self.items) == len(self.scores) == len(self.reasons):
            raise ValueError("items, scores and reasons must be of one length")


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a hand-off; `next_at` only with DEFERRED."""

    user_id: str
    state: State
    reply: str = ""
    next_at: datetime | None = None
    tried: bool = True  # False: held back before the relay was asked, which is no attempt


@dataclass(frozen=True, slots=True)
class Suppressed:
    """A delivery that must not be sent, and why: unsubscribe, no_consent, no_address, ..."""

    user_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a delivery is: the value of its State, and what the server said last."""

    state: str
    message_id: str | None
    reply: str | None


@dataclass(frozen=True, slots=True)
class Recovered:
    """What `Ledger.recover` found in the hands of the dead."""

    requeued: int
    uncertain: int
