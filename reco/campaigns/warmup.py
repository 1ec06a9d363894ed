"""How many mails a new sending domain may send today: receivers trust who grows slowly.

Counts what all campaigns of this installation sent since midnight (UTC), so two campaigns share a
day's quota.
"""

import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.engine import Engine

from reco.campaigns.delivery import State
from reco.campaigns.timing import WarmUp
from reco.database import DELIVERIES

COUNT_EVERY_S: Final = 5.0  # the count walks today's deliveries
UNDER_WAY: Final = (State.CLAIMED, State.HANDING_OFF)
SENT: Final = (State.ACCEPTED, State.UNCERTAIN, State.FAILED)


def quota(plan: WarmUp, day: date) -> int | None:
    """Mails that may be sent on a day: 0 before the start, None once the plan is over."""
    age = (day - plan.starts_on).days
    if age < 0:
        return 0
    return plan.per_day[age] if age < len(plan.per_day) else None


class Quota:
    """What is left of today's quota. Blocking; call it in a thread."""

    def __init__(
        self,
        plan: WarmUp,
        engine: Engine,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._plan = plan
        self._engine = engine
        self._clock = clock
        self._counted_at = -COUNT_EVERY_S
        self._left: int | None = 0

    def left(self) -> int | None:
        """Mails that may still be claimed today, a few seconds old; None without a limit.

        Half of what is left at a time, so that senders who ask at once hardly pass the limit.
        """
        if time.monotonic() - self._counted_at >= COUNT_EVERY_S:
            self._left = self._count()
            self._counted_at = time.monotonic()
        given = self._left
        if given:
            half = max(1, given // 2)
            self._left = given - half
            return half
        return given

    def _count(self) -> int | None:
        now = self._clock().astimezone(UTC)
        allowed = quota(self._plan, now.date())
        if not allowed:
            return allowed
        c = DELIVERIES.c
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        sent = c.state.in_([s.value for s in SENT]) & (c.settled_at >= midnight)
        under_way = c.state.in_([s.value for s in UNDER_WAY])
        with self._engine.connect() as connection:
            used = connection.execute(
                select(func.count()).select_from(DELIVERIES).where(sent | under_way)
            ).scalar_one()
        return max(allowed - used, 0)
