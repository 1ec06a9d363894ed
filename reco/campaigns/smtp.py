"""SMTP: a pool of connections to one relay, and what became of each mail as a type.

Takes an address, an envelope and the finished bytes of a mail; gives the server's reply, or
SendDeferred, SendFailed or SendUncertain. aiosmtplib connects, Wire sends. Logs nothing.
"""

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, cast

import aiosmtplib

from reco.campaigns.dot_stuffing import on_the_wire
from reco.campaigns.relay import Relay
from reco.campaigns.smtp_wire import Envelope, Lost, Refused, Reply, Wire
from reco.errors import (
    SendDeferred,
    SendError,
    SendFailed,
    SendUncertain,
    ServiceUnavailable,
)

UNSAFE_ADDRESS: Final = re.compile(r"[\x00-\x1f\x7f<>]")
REPLY_LENGTH: Final = 300  # characters of a reply that are kept
WHAT: Final = {
    "MAIL": "the sender",
    "RCPT": "the recipient",
    "DATA": "to take a mail",
    "body": "the mail",
}


@dataclass(slots=True, eq=False)
class _Mail:
    """A mail that waits for its turn, and its answer."""

    mail_from: str
    rcpt_to: str
    body: bytes
    last_look: Callable[[], None] | None
    answer: asyncio.Future[str]
    envelope: Envelope = (b"", b"")  # for the connection that takes it
    wire: Wire | None = None  # that carries it now

    def stands(self, wire: Wire) -> bool:
        """Whether it is still to be sent, and can be on this connection; else its answer is set."""
        if self.answer.done():  # nobody listens any more
            return False
        try:
            if self.last_look is not None:
                self.last_look()
            self.envelope = _envelope(wire, self.mail_from, self.rcpt_to, self.body)
        except Exception as error:  # noqa: BLE001 - whoever waits for the mail has to know
            self.answer.set_exception(error)
            return False
        return True

    def refused(self, error: Exception) -> None:
        """It was not sent, or nobody knows."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def sent(self, reply: Reply) -> None:
        """The relay has it."""
        if not self.answer.done():
            self.answer.set_result(_scrubbed(reply, self.rcpt_to))


class SmtpPool:
    """Up to `connections` connections to one relay, made when needed; for one event loop.

    Each takes one waiting mail after the other, and is closed after `messages_per_connection`.
    `timeout_s` bounds connecting, and one whole mail.
    """

    def __init__(
        self,
        url: str,
        connections: int = 8,
        messages_per_connection: int = 100,
        timeout_s: float = 60.0,
        local_hostname: str = "localhost",
    ) -> None:
        """Raises ConfigError when `url` is not smtp://… or smtps://…."""
        self._relay = Relay.of(url)
        self._connections = connections
        self._messages = messages_per_connection
        self._timeout_s = timeout_s
        self._local_hostname = local_hostname
        self._waiting: deque[_Mail] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._idle: list[Wire] = []

    async def __aenter__(self) -> "SmtpPool":
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Make the first connection. Raises ServiceUnavailable when the relay does not answer."""
        if not self._idle and not self._workers:
            self._idle.append(await self._connect())

    async def close(self) -> None:
        """Let go of mails that nobody waits for any more, and quit every connection."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        while (mail := self._next()) is not None:
            mail.answer.cancel()
        idle, self._idle = self._idle, []
        await asyncio.gather(*(wire.quit() for wire in idle))

    async def send(
        self,
        mail_from: str,
        rcpt_to: str,
        data: bytes,
        last_look: Callable[[], None] | None = None,
    ) -> str:
        """Send one mail (CRLF lines, headers and body) and give the server's reply.

        `last_look` is called when a connection is free; what it raises is raised, and nothing sent.
        Raises SendDeferred (4xx, or the server surely has no complete mail), SendFailed (5xx) or
        SendUncertain (the server may have it). Safe to call many at once.
        """
        _check_envelope(mail_from, rcpt_to)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        mail = _Mail(mail_from, rcpt_to, on_the_wire(data), last_look, answer)
        self._waiting.append(mail)
        if len(self._workers) < self._connections:
            self._workers.add(asyncio.create_task(self._work()))
        try:
            return await answer
        finally:
            if mail.wire is not None and answer.cancelled():
                mail.wire.abort()

    async def _work(self) -> None:
        """Send on one connection until no mail waits."""
        wire: Wire | None = None
        mail, following = self._next(), None
        try:
            while mail is not None:
                # Not from the first mail on: the other connections wait for the next one as well.
                following = self._to_announce(wire) if wire is not None else None
                wire = await self._deliver(mail, wire, following)
                mail, following = following or self._next(), None
        finally:
            self._workers.remove(cast(asyncio.Task[None], asyncio.current_task()))
            for left in filter(None, (mail, following)):
                left.answer.cancel()
        if wire is not None:
            self._idle.append(wire)

    def _next(self) -> _Mail | None:
        return self._waiting.popleft() if self._waiting else None

    def _to_announce(self, wire: Wire) -> _Mail | None:
        """The mail whose envelope leaves right behind the body of the one before."""
        last = wire.sent + 1 >= self._messages
        following = None if last or not wire.pipelines else self._next()
        return following if following is not None and following.stands(wire) else None

    async def _deliver(
        self, mail: _Mail, wire: Wire | None, following: _Mail | None
    ) -> Wire | None:
        """Answer one mail; gives the connection for the next one, when it is still of use."""
        try:
            used = wire or self._take()
            if used is not None:
                try:
                    return await self._send_on(used, mail, following)
                except Lost as lost:  # it had closed by now
                    if not lost.stale:
                        raise
            return await self._send_on(await self._connect(), mail, None)
        except Lost as lost:
            mail.refused(_loss(lost))
        except ServiceUnavailable as down:
            mail.refused(SendDeferred(down.what, down.why, down.todo))
        except Exception as error:  # noqa: BLE001 - whoever waits for the mail has to know
            mail.refused(error)
        return None

    async def _send_on(self, wire: Wire, mail: _Mail, following: _Mail | None) -> Wire | None:
        if mail.stands(wire):
            mail.wire = wire
            after = following.envelope if following is not None else None
            try:
                mail.sent(await wire.send(mail.envelope, mail.body, self._timeout_s, after))
            except Refused as refused:
                mail.refused(_refusal(refused, mail.rcpt_to))
        elif wire.announced:  # the relay waits for a mail that does not come
            wire.abort()
        if (wire.usable or wire.announced) and wire.sent < self._messages:
            return wire
        await wire.quit()
        return None

    def _take(self) -> Wire | None:
        while self._idle:
            wire = self._idle.pop()
            if wire.usable:
                return wire
            wire.abort()
        return None

    async def _connect(self) -> Wire:
        client = self._relay.client(self._local_hostname, self._timeout_s)
        try:
            await client.connect()
            if client.is_ehlo_or_helo_needed:
                await client.ehlo()
        except (aiosmtplib.SMTPException, OSError, ssl.SSLError) as error:
            client.close()
            raise self._relay.unavailable(error) from error
        return Wire(cast(asyncio.Transport, client.transport), dict(client.esmtp_extensions))


def _check_envelope(mail_from: str, rcpt_to: str) -> None:
    if UNSAFE_ADDRESS.search(mail_from) or UNSAFE_ADDRESS.search(rcpt_to):
        raise SendFailed("The envelope cannot be written.", "An address has a control character.")


def _envelope(wire: Wire, mail_from: str, rcpt_to: str, body: bytes) -> Envelope:
    """The MAIL and the RCPT line, with the extensions that this mail needs and the server has."""
    options = ""
    if "size" in wire.extensions:
        options += f" SIZE={len(body)}"
    if not (mail_from.isascii() and rcpt_to.isascii()):
        if "smtputf8" not in wire.extensions:
            raise SendFailed("The relay cannot deliver to international addresses (SMTPUTF8).")
        options += " BODY=8BITMIME SMTPUTF8"
    elif not body.isascii() and "8bitmime" in wire.extensions:
        options += " BODY=8BITMIME"
    return f"MAIL FROM:<{mail_from}>{options}\r\n".encode(), f"RCPT TO:<{rcpt_to}>\r\n".encode()


def _refusal(refused: Refused, rcpt_to: str) -> SendError:
    kind: Callable[[str, str], SendError]
    reply, permanent = _scrubbed(refused.reply, rcpt_to), 500 <= refused.reply.code < 600
    kind = SendFailed if permanent else SendDeferred
    if refused.step == "body" and not 400 <= refused.reply.code < 600:
        kind = SendUncertain
    return kind(f"The relay refused {WHAT[refused.step]}.", reply)


def _loss(lost: Lost) -> SendError:
    if lost.complete:
        return SendUncertain("The connection was lost after the whole mail was sent.", lost.why)
    return SendDeferred("The connection was lost before the mail was complete.", lost.why)


def _scrubbed(reply: Reply, rcpt_to: str) -> str:
    """A reply fit for the ledger: servers like to repeat the recipient's address."""
    text = str(reply).replace("\0", "")  # which no text of PostgreSQL may hold
    if rcpt_to.casefold() in text.casefold():  # a pattern of each address is dear to compile
        text = re.sub(re.escape(rcpt_to), "recipient", text, flags=re.IGNORECASE)
    return text[:REPLY_LENGTH]
