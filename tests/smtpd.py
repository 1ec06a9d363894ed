"""A recording SMTP server with named faults: what a real relay does to a sender on a bad day."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiosmtpd.smtp import SMTP, Envelope, Session

# What is answered, by the step at which it is answered.
REPLIES = {
    "MAIL": {"service_not_available": "421 4.3.2 Service not available"},
    "RCPT": {
        "too_fast": "421 4.7.28 Too fast, try again later",
        "mailbox_busy": "450 4.2.1 Mailbox busy",
        "mailbox_unavailable": "550 5.1.1 No such user",
        "too_many_mails": "452 4.5.3 Too many recipients",
    },
    "DATA": {
        "local_error": "451 4.3.0 Local error in processing",
        "mailbox_full": "552 5.2.2 Mailbox full",
        "rejected": "554 5.7.1 Message rejected",
    },
}
CONNECTION_FAULTS = ("disconnect_in_data", "disconnect_before_reply", "slow_reader")
SLOW_READER_S = 0.5


class Received(NamedTuple):
    """One accepted mail, for one recipient."""

    mail_from: str
    rcpt_to: str
    content: bytes


@dataclass
class Fault:
    """Happens `times` times (None: always), to `recipient` only (None: to everybody)."""

    name: str
    times: int | None = None
    recipient: str | None = None

    def strikes(self, recipients: list[str]) -> bool:
        """Whether it happens now; counts down."""
        if self.times == 0 or (self.recipient is not None and self.recipient not in recipients):
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class SmtpSink:
    """What a test sees of the server. `messages` holds accepted mails only."""

    url: str
    messages: list[Received] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    connections: int = 0

    def fault(self, name: str, times: int | None = None, recipient: str | None = None) -> None:
        """Switch a fault on: a name in REPLIES or in CONNECTION_FAULTS."""
        known = [*CONNECTION_FAULTS, *(n for replies in REPLIES.values() for n in replies)]
        assert name in known, f"no fault {name}; there are {', '.join(known)}"
        self.faults.append(Fault(name, times, recipient))

    def reply(self, step: str, recipients: list[str]) -> str | None:
        """The bad reply due at this step, if any."""
        for fault in self.faults:
            if fault.name in REPLIES[step] and fault.strikes(recipients):
                return REPLIES[step][fault.name]
        return None

    def strikes(self, name: str, recipients: list[str]) -> bool:
        """Whether the fault of the connection `name` is due."""
        return any(fault.name == name and fault.strikes(recipients) for fault in self.faults)


class _Handler:
    def __init__(self, sink: SmtpSink) -> None:
        self.sink = sink

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if reply := self.sink.reply("MAIL", []):
            asyncio.get_running_loop().call_later(0.01, server.transport.close)
            return reply
        envelope.mail_from = address
        return "250 2.1.0 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if reply := self.sink.reply("RCPT", [address]):
            return reply
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if reply := self.sink.reply("DATA", envelope.rcpt_tos):
            return reply
        assert isinstance(envelope.content, bytes)
        for recipient in envelope.rcpt_tos:
            self.sink.messages.append(
                Received(envelope.mail_from or "", recipient, envelope.content)
            )
        if self.sink.strikes("disconnect_before_reply", envelope.rcpt_tos):
            server.transport.abort()
        return "250 2.0.0 OK"


class _Server(SMTP):
    def __init__(self, sink: SmtpSink, **options: Any) -> None:
        super().__init__(_Handler(sink), enable_SMTPUTF8=True, ident="sink", **options)
        self.sink = sink

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.sink.connections += 1
        super().connection_made(transport)

    async def smtp_DATA(self, arg: str) -> None:
        recipients = self.envelope.rcpt_tos
        if recipients and self.sink.strikes("disconnect_in_data", recipients):
            await self.push("354 Go on")
            await self._reader.read(64)
            self.transport.abort()
            return
        if recipients and self.sink.strikes("slow_reader", recipients):
            self.transport.pause_reading()
            await asyncio.sleep(SLOW_READER_S)
            self.transport.resume_reading()
        await super().smtp_DATA(arg)


@contextmanager
def running_sink() -> Iterator[SmtpSink]:
    """A server on a free port of the loopback interface, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="smtp-sink")
    thread.start()
    listener = socket.create_server(("127.0.0.1", 0))
    sink = SmtpSink(f"smtp://127.0.0.1:{listener.getsockname()[1]}")

    async def start() -> asyncio.Server:
        return await loop.create_server(lambda: _Server(sink, loop=loop), sock=listener)

    async def stop(server: asyncio.Server) -> None:
        server.close()
        others = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield sink
    finally:
        asyncio.run_coroutine_threadsafe(stop(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
