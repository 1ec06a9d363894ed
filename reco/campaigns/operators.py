"""How fast each large receiver is written to, and when it is left alone.

An operator takes mail for many domains and judges the sender over all of them. One that says "too
fast" (421, 4.7.x) is halved and left alone for a while; one that refuses us by policy again and
again is left alone for longer. The others go on as if nothing had happened. For one event loop.
"""

import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from reco.campaigns.pacing import TokenBucket

OTHER: Final = "other"
# Domains of addresses, as far as nobody else can have them.
DOMAINS: Final = {
    "gmail": r"(gmail|googlemail)\.com",
    "microsoft": r"(outlook|hotmail|live|msn|passport)\.[a-z.]+",
    "yahoo": r"(yahoo|ymail|rocketmail|aol|aim|verizon)\.[a-z.]+",
    "apple": r"(icloud|me|mac)\.com",
}
# Names of mail servers, for domains that have their mail there.
SERVERS: Final = {
    "gmail": r"(.*\.)?(google|googlemail)\.com",
    "microsoft": r".*\.(outlook|hotmail)\.com",
    "yahoo": r".*\.yahoodns\.net",
    "apple": r".*\.icloud\.com",
}
MOST_WAIT_S: Final = 20.0  # a mail that must wait longer gives its place to others
PAUSES_S: Final = (60.0, 300.0, 900.0, 3600.0)  # after the first, second, ... "too fast" in a row
BREAK_AFTER: Final = 5  # refusals by policy in a row
BREAK_S: Final = 3600.0
LEAST_SHARE: Final = 1 / 16  # of the configured rate, however often it was halved
CLEAN: Final = 100  # accepted mails after which the rate grows by a tenth

_THROTTLED: Final = re.compile(r"(?<!\d)421(?!\d)|(?<![\d.])4\.7\.\d")


@lru_cache(maxsize=65_536)
def operator_of(domain: str, servers: tuple[str, ...] = ()) -> str:
    """Who takes the mail of a domain: by its servers (MX) where they are known, else by name."""
    domain = domain.casefold()
    for name, pattern in DOMAINS.items():
        if re.fullmatch(pattern, domain):
            return name
    for name, pattern in SERVERS.items():
        if any(re.fullmatch(pattern, server) for server in servers):
            return name
    return OTHER


def is_throttled(reply: str) -> bool:
    """Whether a temporary refusal is about the sender's pace, and not about one mailbox."""
    return bool(_THROTTLED.search(reply))


class Pace:
    """The pace towards one operator; `rate_per_s` None is as fast as it takes."""

    def __init__(
        self, rate_per_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = rate_per_s
        self._clock = clock
        self._rate = rate_per_s
        self._bucket = TokenBucket(rate_per_s, 1.0, clock) if rate_per_s else None
        self._paused_until = self._last_turn = 0.0
        self._slowed = self._refused = self._clean = 0

    @property
    def rate_per_s(self) -> float | None:
        """What it is written to now."""
        return self._rate

    def hold_s(self) -> float:
        """Seconds for which it is left alone; 0 when it may be written to."""
        return max(0.0, self._paused_until - self._clock())

    def reserve(self, mails: int = 1) -> float:
        """Take places for so many mails; seconds to wait before using them.

        Beyond MOST_WAIT_S no place is taken; it is the time after which to ask again, one after
        the other.
        """
        if self._bucket is None or self._rate is None:
            return 0.0
        if (wait_s := self._bucket.reserve(mails)) <= MOST_WAIT_S:
            return wait_s
        self._bucket.reserve(-mails)
        now = self._clock()
        self._last_turn = max(self._last_turn, now + MOST_WAIT_S) + mails / self._rate
        return self._last_turn - now

    def accepted(self) -> None:
        """It took a mail: what it held against us is over, and the pace may grow again."""
        self._slowed = self._refused = 0
        self._clean += 1
        if self._limit and self._rate and self._clean >= CLEAN:
            self._set_rate(min(self._limit, self._rate * 1.1))

    def throttled(self) -> float:
        """It said "too fast"; seconds for which it is left alone now."""
        if not self.hold_s():  # those that were under way when it said so count once
            self._pause(PAUSES_S[min(self._slowed, len(PAUSES_S) - 1)])
            self._slowed += 1
            if self._limit and self._rate:
                self._set_rate(max(self._limit * LEAST_SHARE, self._rate / 2))
        return self.hold_s()

    def refused_by_policy(self) -> bool:
        """It refused us; whether it is left alone from now on."""
        self._refused += 1
        if self._refused < BREAK_AFTER:
            return False
        self._refused = 0
        self._pause(BREAK_S)
        return True

    def _pause(self, seconds: float) -> None:
        self._paused_until = self._clock() + seconds

    def _set_rate(self, rate_per_s: float) -> None:
        self._clean = 0
        if rate_per_s != self._rate:
            self._rate = rate_per_s
            self._bucket = TokenBucket(rate_per_s, 1.0, self._clock)


class Paces:
    """The pace towards every operator; `rates` are mails/s, those not named have no limit."""

    def __init__(
        self, rates: Mapping[str, float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rates = rates
        self._clock = clock
        self._known: dict[str, Pace] = {}

    def of(self, address: str, servers: tuple[str, ...] = ()) -> Pace:
        """The pace towards whoever takes mail for an address."""
        operator = operator_of(address.rpartition("@")[2], servers)
        if operator not in self._known:
            self._known[operator] = Pace(self._rates.get(operator), self._clock)
        return self._known[operator]
