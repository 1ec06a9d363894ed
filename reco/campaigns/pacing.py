"""When to send: the retries of a deferred mail, and a rate that a relay is not asked beyond.

Pure but for the clock that the caller may give.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

# Of marketing mail; RFC 5321 would go on for days, but an offer is stale by then.
RETRY_AFTER: Final = (
    timedelta(minutes=15),
    timedelta(hours=1),
    timedelta(hours=4),
    timedelta(hours=12),
)


def next_attempt(attempts: int, now: datetime) -> datetime | None:
    """When to try again after `attempts` refused ones (from 1); None: never, the mail has failed.

    15 minutes, 1, 4 and 12 hours after the one before; so the fifth attempt, 17 hours after the
    first at the earliest, is the last.
    """
    return now + RETRY_AFTER[attempts - 1] if 1 <= attempts <= len(RETRY_AFTER) else None


class TokenBucket:
    """A rate limit: `rate_per_s` on average, `burst` at once. For one event loop."""

    def __init__(
        self,
        rate_per_s: float,
        burst: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`burst` is a second's worth, and at least 1, unless given. Raises ValueError."""
        if rate_per_s <= 0 or (burst is not None and burst < 1):
            raise ValueError("rate_per_s must be above 0 and burst at least 1")
        self._rate = rate_per_s
        self._burst = max(rate_per_s, 1.0) if burst is None else burst
        self._clock = clock
        self._tokens = self._burst
        self._filled_at = clock()

    def reserve(self, tokens: float = 1.0) -> float:
        """Take tokens now, on credit if need be; gives the seconds to wait before using them."""
        now = self._clock()
        grown = self._tokens + (now - self._filled_at) * self._rate
        self._tokens = min(grown, self._burst) - tokens
        self._filled_at = now
        return max(0.0, -self._tokens / self._rate)

    async def take(self, tokens: float = 1.0) -> None:
        """Wait until the tokens are there; callers are served in their order."""
        if (wait_s := self.reserve(tokens)) > 0:
            await asyncio.sleep(wait_s)
