"""SMTP: a pool of connections to one relay, and what became of each mail as a type.

Takes an address, an envelope and the finished bytes of a mail; gives the server's reply, or
SendDeferred, SendFailed or SendUncertain. aiosmtplib connects, Wire sends. Logs nothing.
"""

import asyncio
import re
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Final, cast

import aiosmtplib
import numpy as np

from reco.campaigns.relay import Relay
from reco.campaigns.smtp_wire import Lost, Refused, Reply, Wire
from reco.errors import (
    SendDeferred,
    SendError,
    SendFailed,
    SendUncertain,
    ServiceUnavailable,
)

CR: Final = 13
LF: Final = 10
DOT: Final = 46
UNSAFE_ADDRESS: Final = re.compile(r"[\x00-\x1f\x7f<>]")
REPLY_LENGTH: Final = 300  # characters of a reply that are kept
WHAT: Final = {
    "MAIL": "the sender",
    "RCPT": "the recipient",
    "DATA": "to take a mail",
    "body": "the mail",
}


class SmtpPool:
    """Up to `connections` connections to one relay, made when needed; for one event loop.

    A connection is closed after `messages_per_connection` mails. `timeout_s` bounds connecting,
    and one whole mail.
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
        self._messages = messages_per_connection
        self._timeout_s = timeout_s
        self._local_hostname = local_hostname
        self._slots = asyncio.Semaphore(connections)
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
        if not self._idle:
            self._idle.append(await self._connect())

    async def close(self) -> None:
        """Quit every idle connection."""
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
        body = on_the_wire(data)
        async with self._slots:
            if last_look is not None:
                last_look()
            try:
                reply = await self._send_once(mail_from, rcpt_to, body)
            except Refused as refused:
                raise _refusal(refused, rcpt_to) from None
            except Lost as lost:
                raise _loss(lost) from None
            except ServiceUnavailable as down:
                raise SendDeferred(down.what, down.why, down.todo) from down
        return _scrubbed(reply, rcpt_to)

    async def _send_once(self, mail_from: str, rcpt_to: str, body: bytes) -> Reply:
        """Send on an idle connection, or on a new one when that turns out to be closed by now."""
        wire = self._take()
        if wire is not None:
            try:
                return await self._send_on(wire, mail_from, rcpt_to, body)
            except Lost as lost:
                if not lost.stale:
                    raise
        return await self._send_on(await self._connect(), mail_from, rcpt_to, body)

    async def _send_on(self, wire: Wire, mail_from: str, rcpt_to: str, body: bytes) -> Reply:
        try:
            envelope = _envelope(wire, mail_from, rcpt_to, body)
            return await wire.send(envelope, body, self._timeout_s)
        finally:
            if wire.usable and wire.sent < self._messages:
                self._idle.append(wire)
            else:
                await wire.quit()

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


def on_the_wire(data: bytes) -> bytes:
    """A mail as DATA carries it, without the final dot: CRLF lines, leading dots doubled.

    A finished mail passes through; only what needs it is rewritten. RFC 5321, 2.3.8 and 4.5.2.
    """
    if not _is_ready(data):
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        data = (b"\r\n" + data).replace(b"\r\n.", b"\r\n..")[2:]
    return data if data.endswith(b"\r\n") else data + b"\r\n"


def _is_ready(data: bytes) -> bool:
    """Whether every line ends with CRLF, no CR or LF stands alone, and no line starts with a dot.

    One pass of numpy for each sign: a search for two bytes costs several times as much.
    """
    signs = np.frombuffer(b"\n" + data, np.uint8)
    ends = np.flatnonzero(signs == LF)
    if data.count(b"\r") != len(ends) - 1 or not (signs[ends[1:] - 1] == CR).all():
        return False
    starts = ends if ends[-1] < len(data) else ends[:-1]
    return not (signs[starts + 1] == DOT).any()


def _check_envelope(mail_from: str, rcpt_to: str) -> None:
    if UNSAFE_ADDRESS.search(mail_from) or UNSAFE_ADDRESS.search(rcpt_to):
        raise SendFailed("The envelope cannot be written.", "An address has a control character.")


def _envelope(wire: Wire, mail_from: str, rcpt_to: str, body: bytes) -> tuple[bytes, bytes]:
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
    text = str(reply)
    if rcpt_to.casefold() in text.casefold():  # a pattern of each address is dear to compile
        text = re.sub(re.escape(rcpt_to), "recipient", text, flags=re.IGNORECASE)
    return text[:REPLY_LENGTH]
