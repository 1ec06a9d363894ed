"""What a sender's domain says in DNS, before a mail is sent in its name.

Mailbox providers refuse mail in bulk without SPF (RFC 7208), DKIM (RFC 6376) and DMARC (RFC 7489);
bounces need a mail server (RFC 5321). A name server that does not answer proves nothing: a note.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import dns.exception
import dns.rdatatype
from dns.resolver import NXDOMAIN, NoAnswer

from reco.subscribers.mail_domains import TIMEOUT_S, MailDomains, open_resolver

_DMARC: Final = re.compile(r"v\s*=\s*DMARC1\s*(;|$)", re.IGNORECASE)
_POLICY: Final = re.compile(r";\s*p\s*=\s*(none|quarantine|reject)\b", re.IGNORECASE)
_SPF: Final = re.compile(r"v=spf1( |$)", re.IGNORECASE)
_KEY: Final = re.compile(r"(?:^|;)\s*p\s*=\s*([A-Za-z0-9+/=\s]*)")


@dataclass(frozen=True, slots=True)
class Judged:
    """What is wrong, and what could not be found out."""

    problems: tuple[str, ...]
    notes: tuple[str, ...]


class SenderDomain:
    """Judges a domain by its records. `nameserver` is HOST or HOST:PORT instead of the system's."""

    def __init__(self, nameserver: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._nameserver = nameserver
        self._timeout_s = timeout_s

    def judge(self, domain: str, dkim: tuple[str, str] | None = None) -> Judged:
        """The verdict; `dkim` is name and content of the record of the key that we sign with."""
        return asyncio.run(self._judge(domain, dkim))

    async def _judge(self, domain: str, dkim: tuple[str, str] | None) -> Judged:
        self._resolver = open_resolver(self._nameserver)
        asked = (self._spf(domain), self._dmarc(domain), self._dkim(dkim), self._bounces(domain))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        problems = [answer for answer in answers if isinstance(answer, str) and answer]
        notes = [] if dkim else ["DKIM is left to the relay: a mail to yourself shows if it signs."]
        for what, answer in zip(("SPF", "DMARC", "DKIM", "MX"), answers, strict=True):
            if isinstance(answer, dns.exception.DNSException | OSError):
                notes.append(f"{what} of {domain}: DNS gives no answer ({type(answer).__name__}).")
            elif isinstance(answer, BaseException):
                raise answer
        return Judged(tuple(problems), tuple(notes))

    async def _spf(self, domain: str) -> str:
        found = [text for text in await self._texts(domain) if _SPF.match(text)]
        if len(found) != 1:
            return f"{domain} has {_number(found)} SPF record, and needs one (TXT v=spf1 …)."
        everybody = re.search(r"(^| )\+?all\b", found[0], re.IGNORECASE)
        return f"The SPF record of {domain} lets everybody send in its name." if everybody else ""

    async def _dmarc(self, domain: str) -> str:
        """Its own record, else that of the nearest domain above."""
        labels = domain.split(".")
        for start in range(len(labels) - 1):
            above = ".".join(labels[start:])
            found = [t for t in await self._texts(f"_dmarc.{above}") if _DMARC.match(t)]
            if len(found) > 1:
                return f"_dmarc.{above} has {_number(found)} DMARC record, and needs one."
            if found:
                known = _POLICY.search(found[0])
                return "" if known else f"The DMARC record of {above} names no policy (p=)."
        return f"{domain} has no DMARC record (TXT of _dmarc.{domain}: v=DMARC1; p=none)."

    async def _dkim(self, dkim: tuple[str, str] | None) -> str:
        if dkim is None:
            return ""
        name, content = dkim
        texts = await self._texts(name)
        published = [re.sub(r"\s", "", m[1]) for t in texts if (m := _KEY.search(t))]
        if not any(published):
            return f"There is no DKIM key at {name}; publish TXT {content}"
        ours = _KEY.search(content)
        same = ours is not None and re.sub(r"\s", "", ours[1]) in published
        return "" if same else f"The DKIM key at {name} is not the one that signs the mails."

    async def _bounces(self, domain: str) -> str:
        verdict = await MailDomains(self._nameserver, timeout_s=self._timeout_s).look_up(domain)
        if verdict.takes_mail is None:
            raise dns.exception.Timeout
        return "" if verdict.takes_mail else f"No bounce comes back to {domain}: {verdict.why}."

    async def _texts(self, name: str) -> list[str]:
        """TXT records, each in one piece; empty where there are none."""
        try:
            answer = await self._resolver.resolve(
                name, dns.rdatatype.TXT, lifetime=self._timeout_s, search=False
            )
        except (NXDOMAIN, NoAnswer):
            return []
        return [b"".join(record.strings).decode("utf-8", "replace") for record in answer]


def _number(found: Sequence[str]) -> str:
    return "no" if not found else f"more than one ({len(found)})"
