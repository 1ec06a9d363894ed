"""Addresses judged before anything is sent to them: at signup one by one, in bulk before a send.

Syntax, then the words of the address, then DNS by domain, then a verifier where one is configured.
Only what is certain makes an address invalid.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import idna

from reco.subscribers.flags import is_disposable, is_role, suggestion
from reco.subscribers.hygiene import fault, normalise
from reco.subscribers.mail_domains import DomainVerdict, MailDomains
from reco.subscribers.verifier import Verifier

AT_ONCE: Final = 1_000  # domains that wait for DNS together


class Status(StrEnum):
    """Whether an address may be written to."""

    VALID = "valid"
    INVALID = "invalid"  # no server would take it
    UNKNOWN = "unknown"  # DNS did not answer; ask again later


@dataclass(frozen=True, slots=True)
class Checked:
    """The verdict on one address.

    normalised  the form in which it is kept, None when invalid by syntax
    flags       "role", "disposable": for the shop to decide
    suggestion  what was probably meant
    """

    address: str
    normalised: str | None
    status: Status
    why: str = ""
    flags: tuple[str, ...] = ()
    suggestion: str | None = None


class Validator:
    """Judges addresses. Without `domains` DNS is not asked; for one event loop."""

    def __init__(
        self, domains: MailDomains | None = None, verifier: Verifier | None = None
    ) -> None:
        self._domains = domains
        self._verifier = verifier

    async def check(self, address: str) -> Checked:
        """The verdict on one address."""
        return (await self.check_many([address]))[0]

    async def check_many(
        self, addresses: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> list[Checked]:
        """Verdicts in the order of the addresses; `progress` is told how many domains are done."""
        syntax = [judge(address) for address in addresses]
        domains = {_domain(c.normalised) for c in syntax if c.normalised}
        known = await self._look_up(sorted(domains), progress) if self._domains else {}
        checked = [
            _with_domain(c, known[_domain(c.normalised)]) if known and c.normalised else c
            for c in syntax
        ]
        return await self._verified(checked) if self._verifier else checked

    async def _look_up(
        self, domains: Sequence[str], progress: Callable[[int], None] | None
    ) -> dict[str, DomainVerdict]:
        assert self._domains is not None
        known: dict[str, DomainVerdict] = {}
        for start in range(0, len(domains), AT_ONCE):
            block = domains[start : start + AT_ONCE]
            verdicts = await asyncio.gather(*(self._domains.look_up(domain) for domain in block))
            known.update(zip(block, verdicts, strict=True))
            if progress is not None:
                progress(len(known))
        return known

    async def _verified(self, checked: Iterable[Checked]) -> list[Checked]:
        """The verifier is asked only for what may be written to: each question costs money."""
        return list(await asyncio.gather(*(self._asked(c) for c in checked)))

    async def _asked(self, checked: Checked) -> Checked:
        if self._verifier is None or checked.normalised is None or checked.status is Status.INVALID:
            return checked
        opinion = await self._verifier.verify(checked.normalised)
        if opinion.deliverable is None:
            return checked
        status = Status.VALID if opinion.deliverable else Status.INVALID
        return _decided(checked, status, "" if opinion.deliverable else opinion.why)


def judge(address: str) -> Checked:
    """The verdict by syntax and words alone; pure."""
    normalised = normalise(address)
    if normalised is None:
        why = fault(address) or "not an address"
        return Checked(address, None, Status.INVALID, why, suggestion=suggestion(address))
    found = (("role", is_role(normalised)), ("disposable", is_disposable(_domain(normalised))))
    flags = tuple(name for name, true in found if true)
    return Checked(address, normalised, Status.VALID, "", flags, suggestion(normalised))


def _with_domain(checked: Checked, domain: DomainVerdict) -> Checked:
    if domain.takes_mail is None:
        return _decided(checked, Status.UNKNOWN, domain.why)
    return checked if domain.takes_mail else _decided(checked, Status.INVALID, domain.why)


def _decided(checked: Checked, status: Status, why: str) -> Checked:
    return Checked(
        checked.address, checked.normalised, status, why, checked.flags, checked.suggestion
    )


def _domain(address: str | None) -> str:
    """Domain as DNS knows it; of an international one its ASCII form."""
    domain = (address or "").rpartition("@")[2]
    if domain.isascii():
        return domain.casefold()
    return idna.encode(domain, uts46=True).decode()
