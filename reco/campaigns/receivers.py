"""Where the mail of recipients' domains is taken: who judges our pace, for domains of any name.

Asked of DNS by the chunk, before its mails go out; what is not known in time counts as "other".
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from reco.campaigns.operators import OTHER, operator_of
from reco.subscribers.mail_domains import DomainVerdict, MailDomains

PATIENCE_S: Final = 1.0  # of a chunk that waits for answers; the late ones serve the next
SILENCE_S: Final = 60.0  # while nothing was ever answered: there may be no DNS here


class Receivers:
    """Mail servers by domain, with the cache of `domains`; for one event loop."""

    def __init__(
        self,
        domains: MailDomains,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._domains = domains
        self._patience_s = patience_s
        self._clock = clock
        self._quiet_until = 0.0
        self._servers: dict[str, tuple[str, ...]] = {}
        self._asking: dict[str, asyncio.Task[DomainVerdict]] = {}

    def servers(self, address: str) -> tuple[str, ...]:
        """Mail servers of an address, best first; empty when they are not known (yet)."""
        return self._servers.get(_domain(address), ())

    async def ask(self, addresses: Iterable[str]) -> None:
        """Find out the servers of domains whose operator their name does not tell."""
        if self._clock() < self._quiet_until:
            return
        wanted = {_domain(address) for address in addresses} - self._servers.keys()
        wanted = {domain for domain in wanted if operator_of(domain) == OTHER}
        for domain in wanted - self._asking.keys():
            self._asking[domain] = asyncio.create_task(self._domains.look_up(domain))
        if not wanted:
            return
        await asyncio.wait([self._asking[domain] for domain in wanted], timeout=self._patience_s)
        # Chunks wait side by side: whichever is first takes all answers in, also the late ones.
        for domain in [domain for domain, task in self._asking.items() if task.done()]:
            verdict = self._asking.pop(domain).result()
            if verdict.takes_mail is not None:
                self._servers[domain] = verdict.servers
        if not self._servers:
            self._quiet_until = self._clock() + SILENCE_S


def _domain(address: str) -> str:
    return address.rpartition("@")[2].casefold()
