"""One open SMTP connection, from MAIL to the reply after the final dot.

Takes over the transport of a connected aiosmtplib client (which did EHLO, TLS and login), because
that client parses one reply at a time and rewrites every body with regular expressions. Here MAIL,
RCPT and DATA leave in one write where the server allows it (RFC 2920), and right behind the body of
the mail before; bodies go out as they are.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

REPLY_LIMIT: Final = 65_536  # bytes of one unfinished reply; a real one has a few hundred
START_INPUT: Final = 354
QUICK_ACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)  # only Linux has it

Envelope = tuple[bytes, bytes]  # the MAIL and the RCPT line


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of the server; the lines of a longer one are joined by blanks."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text}".strip()

    @property
    def positive(self) -> bool:
        """2xx."""
        return 200 <= self.code < 300


class Refused(Exception):
    """The server said no. `step` is MAIL, RCPT, DATA or body."""

    def __init__(self, step: str, reply: Reply) -> None:
        super().__init__(step, reply)
        self.step = step
        self.reply = reply


class Lost(Exception):
    """The connection is gone or useless.

    `complete`: the server may have the whole mail. `stale`: it had closed before this mail.
    """

    def __init__(self, why: str, complete: bool, stale: bool) -> None:
        super().__init__(why, complete, stale)
        self.why = why
        self.complete = complete
        self.stale = stale


class Wire(asyncio.Protocol):
    """Sends one mail at a time. After Lost, or when `usable` is false, it must be closed."""

    def __init__(self, transport: asyncio.Transport, extensions: Mapping[str, str]) -> None:
        """Take over a transport whose server has said its `extensions` (lower-case) in EHLO."""
        self.extensions = extensions
        self.sent = 0
        self._transport = transport
        # Over TLS bytes may wait below us unseen, so "written" has to count as "sent" there.
        self._sees_buffer = transport.get_extra_info("ssl_object") is None
        self._socket: socket.socket | None = transport.get_extra_info("socket")
        self._unsent = False  # bytes wait in the transport
        self._body_begun = False
        self._body_left = False  # the kernel has its last byte
        self._announced = False
        self._why_lost = ""
        self._heard = False  # a reply since the mail began
        self._pending = b""
        self._text: list[str] = []
        self._replies: deque[Reply] = deque()
        self._arrived: asyncio.Future[None] | None = None
        # 0: paused means that bytes wait here, resumed that the kernel has every one of them.
        transport.set_write_buffer_limits(high=0)
        transport.set_protocol(self)

    @property
    def pipelines(self) -> bool:
        """Whether the server takes commands before it has answered those before."""
        return "pipelining" in self.extensions

    @property
    def announced(self) -> bool:
        """Whether the server knows the envelope of the next mail, which is to be sent here then."""
        return self._announced and self._open

    @property
    def usable(self) -> bool:
        """Whether any mail may be sent: open, and no reply is waiting or outstanding."""
        return self._open and not (self._replies or self._body_begun or self._announced)

    @property
    def _open(self) -> bool:
        return not self._why_lost and not self._transport.is_closing()

    async def send(
        self, envelope: Envelope, body: bytes, timeout_s: float, following: Envelope | None = None
    ) -> Reply:
        """Send a mail; `body` is dot-stuffed and ends with CRLF.

        `following` is the envelope of the mail that is sent here next, for a server that pipelines:
        it leaves before this one is answered. When this one is refused, it may not have left.
        Raises Refused (the connection stays usable, except after 421) or Lost.
        """
        self._heard = False
        timer = asyncio.get_running_loop().call_later(timeout_s, self._overdue)
        try:
            return await self._transaction(envelope, body, following)
        except asyncio.CancelledError:
            self._give_up("cancelled")
            raise
        finally:
            timer.cancel()

    def _overdue(self) -> None:
        self._heard = True  # it is there, only slow
        self._give_up("the server took too long")

    def abort(self) -> None:
        """Close without a word."""
        self._transport.abort()

    async def quit(self, timeout_s: float = 5.0) -> None:
        """Say good-bye and close; never raises."""
        try:
            async with asyncio.timeout(timeout_s):
                if self.usable:
                    await self._command(b"QUIT\r\n")
        except (TimeoutError, Lost):
            pass
        finally:
            self._transport.abort()

    async def _transaction(
        self, envelope: Envelope, body: bytes, following: Envelope | None
    ) -> Reply:
        if self.pipelines:
            await self._open_pipelined(envelope)
        else:
            await self._open_stepwise(envelope)
        self._give(body)
        # Only when nothing of the body waits here: or nobody could tell whether all of it has left.
        if following is not None and self._body_left:
            self._announce(following)
        reply = await self._reply()
        self._body_begun = False
        self.sent += 1
        if not reply.positive:
            raise self._refused("body", reply)
        return reply

    def _give(self, body: bytes) -> None:
        if not self._open:
            raise self._lost()
        self._body_begun, self._body_left = True, False
        self._transport.writelines([body, b".\r\n"])
        self._body_left = not self._unsent

    def _announce(self, envelope: Envelope) -> None:
        mail, rcpt = envelope
        self._write(mail + rcpt + b"DATA\r\n")
        self._acknowledge_at_once()
        self._announced = True

    def _acknowledge_at_once(self) -> None:
        """Some servers write each reply by itself, and the kernel then holds back the second one
        until ours acknowledges the first, which it likes to do 40 ms later (Nagle's algorithm and
        delayed acknowledgement). It forgets this wish whenever we send."""
        if self._socket is not None and QUICK_ACK is not None:
            # A closed socket is noticed by whoever reads, and a kernel may not know the option.
            with suppress(OSError, ValueError):
                self._socket.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)

    async def _open_pipelined(self, envelope: Envelope) -> None:
        if not self._announced:
            self._announce(envelope)
        self._announced = False
        bad: tuple[str, Reply] | None = None
        for step in ("MAIL", "RCPT", "DATA"):
            reply = await self._reply()
            if reply.code == 421:  # it hangs up, and answers no other command
                raise self._refused(step, reply)
            if not (reply.code == START_INPUT if step == "DATA" else reply.positive):
                bad = bad or (step, reply)
        if bad is None:
            return
        if reply.code == START_INPUT:  # RFC 2920, 3.1: end the unwanted input with nothing in it
            await self._command(b".\r\n")
        raise await self._reset(*bad)

    async def _open_stepwise(self, envelope: Envelope) -> None:
        mail, rcpt = envelope
        for step, command in (("MAIL", mail), ("RCPT", rcpt), ("DATA", b"DATA\r\n")):
            reply = await self._command(command)
            if not (reply.code == START_INPUT if step == "DATA" else reply.positive):
                raise await self._reset(step, reply)

    async def _reset(self, step: str, reply: Reply) -> Refused:
        """End the refused transaction, so that the next mail can use the connection."""
        refused = self._refused(step, reply)
        if not self._why_lost:
            try:
                if not (await self._command(b"RSET\r\n")).positive:
                    self._give_up("the server refused RSET")
            except Lost:
                pass  # the refusal is what the caller needs to know
        return refused

    def _refused(self, step: str, reply: Reply) -> Refused:
        if reply.code == 421 or not 400 <= reply.code < 600:
            self._give_up(f"the server closes: {reply}")
        return Refused(step, reply)

    async def _command(self, line: bytes) -> Reply:
        self._write(line)
        return await self._reply()

    def _write(self, data: bytes) -> None:
        if self._why_lost:
            raise self._lost()
        self._transport.write(data)

    async def _reply(self) -> Reply:
        while not self._replies:
            if self._why_lost:
                raise self._lost()
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        self._heard = True
        return self._replies.popleft()

    def _lost(self) -> Lost:
        complete = self._body_begun and (self._body_left or not self._sees_buffer)
        return Lost(self._why_lost or "the connection closed", complete, stale=not self._heard)

    def _give_up(self, why: str) -> None:
        self._why_lost = self._why_lost or why
        self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def pause_writing(self) -> None:
        """Called by the transport when bytes wait in it."""
        self._unsent = True

    def resume_writing(self) -> None:
        """Called by the transport when the kernel took every byte."""
        # After abort the transport forgets its buffer: that is not the same as having sent it.
        if not self._why_lost:
            self._unsent = False
            self._body_left = self._body_begun

    def data_received(self, data: bytes) -> None:
        """Called by the transport: collect lines into replies."""
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            code, more, text = line[:3], line[3:4] == b"-", line[4:].decode("utf-8", "replace")
            if not code.isdigit():
                self._give_up("the server does not speak SMTP")
                return
            self._text.append(text.strip())
            if not more:
                self._replies.append(Reply(int(code), " ".join(filter(None, self._text))))
                self._text = []
        if len(self._pending) > REPLY_LIMIT or len(self._text) > REPLY_LIMIT // 64:
            self._give_up("the server's reply has no end")
        elif self._replies:
            self._wake()

    def eof_received(self) -> bool:
        """Called by the transport: an SMTP server that hangs up takes nothing more."""
        self._give_up("the server hung up")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport when it is closed, for whatever reason."""
        self._why_lost = self._why_lost or (str(exc) if exc else "the connection closed")
        self._wake()
