"""The embedded mail sink: an SMTP server on loopback that writes what it accepts to a Maildir.

Started as `python -m reco.outbox MAILDIR --fd N` with a listening socket. It stands in for a relay
where none is configured, so it must cost next to nothing beside the sender that it serves: one
buffer search a message, no parsing, no line loop, no fsync.
"""

import argparse
import asyncio
import os
import signal
import socket
import time
from itertools import count
from pathlib import Path
from typing import Final

SIZE_LIMIT_BYTES: Final = 32 * 1024 * 1024
LINE_LIMIT_BYTES: Final = 4096  # of a command; RFC 5321 section 4.5.3.1.4 asks for 512
END_OF_DATA: Final = b"\r\n.\r\n"
GREETING: Final = b"220 outbox.localhost ESMTP reco outbox\r\n"
FEATURES: Final = (
    b"250-outbox.localhost\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n"
    + f"250 SIZE {SIZE_LIMIT_BYTES}\r\n".encode()
)
OK: Final = b"250 2.0.0 OK\r\n"
NO_MAIL_YET: Final = b"503 5.5.1 MAIL and RCPT first\r\n"
TOO_BIG: Final = b"552 5.3.4 Message too big\r\n"


class Maildir:
    """Delivers by writing to tmp and renaming to new, so that a reader never sees half a mail."""

    def __init__(self, root: Path) -> None:
        """Make the three folders of a Maildir under `root` when they are missing."""
        for folder in ("tmp", "new", "cur"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        self._tmp, self._new = f"{root}/tmp/", f"{root}/new/"
        self._serial = count()
        self._suffix = f"P{os.getpid()}.reco"

    def deliver(self, message: bytes) -> str:
        """Store `message` and return its file name. Durable against a crash of this process."""
        name = f"{time.time_ns()}.Q{next(self._serial)}{self._suffix}"
        descriptor = os.open(self._tmp + name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            rest = memoryview(message)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)
        os.rename(self._tmp + name, self._new + name)  # noqa: PTH104  a Path costs 10 us a mail
        return name


class Session(asyncio.Protocol):
    """One SMTP conversation (RFC 5321 with PIPELINING, 8BITMIME, SMTPUTF8 and SIZE)."""

    def __init__(self, maildir: Maildir) -> None:
        self._maildir = maildir
        self._buffer = bytearray()
        self._searched = 0  # bytes of the buffer known not to hold the end of the data
        self._in_data = False
        self._discarding = False  # the rest of a message over the limit
        self._sender: bytes | None = None
        self._recipients: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(GREETING)

    def data_received(self, data: bytes) -> None:
        """Answer every complete command and message in the buffer, in one write."""
        self._buffer += data
        replies: list[bytes] = []
        while (reply := self._data() if self._in_data else self._command()) is not None:
            replies.append(reply)
            if reply.startswith((b"221", b"421")):
                break
        if replies:
            self._transport.write(b"".join(replies))
            if replies[-1].startswith((b"221", b"421")):
                self._transport.close()

    def _command(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return b"421 4.7.0 Line too long\r\n" if len(self._buffer) > LINE_LIMIT_BYTES else None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        verb, _, argument = line.partition(b" ")
        match verb.upper():
            case b"MAIL":
                self._sender, self._recipients = _path(argument), []
                return OK
            case b"RCPT" if self._sender is not None:
                self._recipients.append(_path(argument))
                return OK
            case b"DATA" if self._recipients:
                self._in_data, self._searched = True, 0
                return b"354 End with <CR><LF>.<CR><LF>\r\n"
            case b"EHLO" | b"HELO" | b"RSET":
                self._sender, self._recipients = None, []
                return FEATURES if verb.upper() == b"EHLO" else OK
            case b"NOOP":
                return OK
            case b"QUIT":
                return b"221 2.0.0 Bye\r\n"
            case b"RCPT" | b"DATA":
                return NO_MAIL_YET
        return b"502 5.5.2 Command not implemented\r\n"

    def _data(self) -> bytes | None:
        empty = self._buffer.startswith(b".\r\n")  # a message without a single line
        end = -2 if empty else self._buffer.find(END_OF_DATA, self._searched)
        if not empty and end < 0:
            self._discarding = self._discarding or len(self._buffer) > SIZE_LIMIT_BYTES
            if self._discarding:
                del self._buffer[: -len(END_OF_DATA)]
            self._searched = max(0, len(self._buffer) - len(END_OF_DATA))
            return None
        body = bytes(self._buffer[: end + 2])
        del self._buffer[: end + len(END_OF_DATA)]
        too_big = self._discarding or len(body) > SIZE_LIMIT_BYTES
        self._discarding = False
        recipients, sender = self._recipients, self._sender
        self._in_data, self._sender, self._recipients = False, None, []
        if too_big:
            return TOO_BIG
        return self._store(sender or b"", recipients, body)

    def _store(self, sender: bytes, recipients: list[bytes], body: bytes) -> bytes:
        if body.startswith(b".") or b"\r\n." in body:
            body = body.removeprefix(b".").replace(b"\r\n.", b"\r\n")
        envelope = [b"Return-Path: <%b>\r\n" % sender]
        envelope += [b"Delivered-To: %b\r\n" % recipient for recipient in recipients]
        try:
            name = self._maildir.deliver(b"".join([*envelope, body]))
        except OSError as error:
            return f"452 4.3.1 Outbox cannot be written: {error.strerror}\r\n".encode()
        return f"250 2.0.0 OK {name}\r\n".encode()


def _path(argument: bytes) -> bytes:
    """The address in `FROM:<a@b> SIZE=1` or `TO:<a@b>`."""
    return argument.partition(b"<")[2].partition(b">")[0]


async def serve(maildir: Path, listener: socket.socket) -> None:
    """Serve on `listener` until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    box = Maildir(maildir)
    server = await loop.create_server(lambda: Session(box), sock=listener)
    async with server:
        await stopping.wait()


def main() -> None:
    """Entry point of the server process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("maildir", type=Path)
    parser.add_argument("--fd", type=int, required=True, help="a listening socket, inherited")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.maildir, socket.socket(fileno=arguments.fd)))


if __name__ == "__main__":
    main()
