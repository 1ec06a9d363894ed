"""Whether a domain takes mail, by DNS (RFC 5321 5.1, RFC 7505), each domain asked once.

A server that does not answer, or fails, is no proof: such a domain is unknown, never invalid. The
servers of recipients are never asked (no RCPT probing): it is unreliable, and costs a reputation.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import dns.exception
import dns.rdatatype
from dns.asyncresolver import Resolver
from dns.rdtypes.ANY.MX import MX
from dns.resolver import NXDOMAIN, NoAnswer

AT_ONCE: Final = 64  # questions on their way
TIMEOUT_S: Final = 4.0
KEPT_S: Final = 86_400.0  # an answer
UNKNOWN_KEPT_S: Final = 60.0  # no answer: ask again soon
NO_DOMAIN: Final = "there is no such domain"
MOST_DOMAINS: Final = 200_000  # kept in memory


@dataclass(frozen=True, slots=True)
class DomainVerdict:
    """Whether a domain takes mail (None: nobody knows), why, and its servers, best first."""

    takes_mail: bool | None
    why: str = ""
    servers: tuple[str, ...] = ()


class MailDomains:
    """Answers by domain, with a cache; for one event loop.

    `nameserver` is HOST or HOST:PORT instead of the system's.
    """

    def __init__(
        self,
        nameserver: str | None = None,
        *,
        at_once: int = AT_ONCE,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nameserver = nameserver
        self._timeout_s = timeout_s
        self._free = asyncio.Semaphore(at_once)
        self._clock = clock
        self._known: dict[str, tuple[float, DomainVerdict]] = {}
        self._asking: dict[str, asyncio.Task[DomainVerdict]] = {}
        self._resolver: Resolver | None = None
        self.questions = 0

    async def look_up(self, domain: str) -> DomainVerdict:
        """The verdict on a domain; those who ask at the same time share one question."""
        domain = domain.casefold().rstrip(".")
        until, verdict = self._known.get(domain, (0.0, DomainVerdict(None)))
        if until > self._clock():
            return verdict
        task = self._asking.get(domain)
        if task is None:
            task = self._asking[domain] = asyncio.create_task(self._ask(domain))
            task.add_done_callback(lambda _: self._asking.pop(domain, None))
        return await asyncio.shield(task)

    async def _ask(self, domain: str) -> DomainVerdict:
        async with self._free:
            try:
                verdict = await self._by_dns(domain)
            except (dns.exception.DNSException, OSError) as error:
                verdict = DomainVerdict(None, f"DNS gives no answer ({type(error).__name__})")
        if len(self._known) >= MOST_DOMAINS:
            self._known.clear()
        kept_s = UNKNOWN_KEPT_S if verdict.takes_mail is None else KEPT_S
        self._known[domain] = (self._clock() + kept_s, verdict)
        return verdict

    async def _by_dns(self, domain: str) -> DomainVerdict:
        try:
            answer = await self._resolve(domain, "MX")
        except NXDOMAIN:
            return DomainVerdict(False, NO_DOMAIN)
        except NoAnswer:
            return await self._by_address(domain)
        records = sorted((r for r in answer if isinstance(r, MX)), key=lambda r: r.preference)
        servers = tuple(str(r.exchange).rstrip(".").casefold() for r in records)
        if not any(servers):
            return DomainVerdict(False, "the domain takes no mail (null MX)")
        return DomainVerdict(True, servers=tuple(name for name in servers if name))

    async def _by_address(self, domain: str) -> DomainVerdict:
        """Without MX the domain itself is the server, when it has an address."""
        for kind in ("A", "AAAA"):
            try:
                await self._resolve(domain, kind)
            except NoAnswer:
                continue
            return DomainVerdict(True, servers=(domain,))
        return DomainVerdict(False, "the domain has no mail server")

    async def _resolve(self, domain: str, kind: str) -> list[object]:
        self.questions += 1
        resolver = self._resolver = self._resolver or open_resolver(self._nameserver)
        answer = await resolver.resolve(
            domain, dns.rdatatype.from_text(kind), lifetime=self._timeout_s, search=False
        )
        return list(answer)


def open_resolver(nameserver: str | None) -> Resolver:
    """The system's resolver, or one that asks HOST[:PORT] alone."""
    if nameserver is None:
        return Resolver()
    resolver = Resolver(configure=False)
    host, _, port = nameserver.partition(":")
    resolver.nameservers, resolver.port = [host], int(port or 53)
    return resolver
