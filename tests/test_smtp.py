"""The SMTP pool against a real recording server and its faults."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope
from hypothesis import given
from hypothesis import strategies as st

from reco.campaigns.dot_stuffing import on_the_wire
from reco.campaigns.relay import Relay
from reco.campaigns.smtp import SmtpPool
from reco.errors import (
    ConfigError,
    SendDeferred,
    SendError,
    SendFailed,
    SendUncertain,
    ServiceUnavailable,
)
from tests.smtpd import SmtpSink

MAIL = b"From: a@example.com\r\nTo: b@example.com\r\nSubject: x\r\n\r\nHello\r\n"
FROM, TO = "news@example.com", "ann@example.com"


Run = Callable[[Coroutine[None, None, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop])
def run(request: pytest.FixtureRequest) -> Run:
    """Both loops: whether bytes have left is asked of their transports."""

    def run_it(work: Coroutine[None, None, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(work)

    return run_it


async def expect(error: type[SendError], url: str, data: bytes, timeout_s: float = 60) -> None:
    """Send one mail and see the error."""
    async with SmtpPool(url, timeout_s=timeout_s) as pool:
        with pytest.raises(error):
            await pool.send(FROM, TO, data)


@pytest.mark.parametrize(
    "body",
    [
        b"plain\r\n",
        b".\r\n..\r\n.leading dots\r\n\r\n.\r\n",
        (b"x" * 998 + b"\r\n") * 700,
        "8 bit: Grüße\r\n".encode(),
        b"",
    ],
)
async def test_bytes_arrive_as_they_were(smtp_sink: SmtpSink, body: bytes) -> None:
    data = MAIL.replace(b"Hello\r\n", body)
    async with SmtpPool(smtp_sink.url) as pool:
        reply = await pool.send(FROM, TO, data)

    assert reply.startswith("250")
    assert smtp_sink.messages == [(FROM, TO, data)]


class _Stubborn(asyncio.Protocol):
    """Says 354, then neither reads nor answers."""

    def __init__(self, seen: list[asyncio.Transport]) -> None:
        self.seen = seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.seen.append(self.transport)
        self.transport.write(b"220 stubborn\r\n")

    def data_received(self, data: bytes) -> None:
        for line in data.splitlines():
            if line == b"DATA":
                self.transport.pause_reading()
                self.transport.write(b"354 go on\r\n")
            else:
                self.transport.write(b"250 OK\r\n")


@pytest.fixture
def stubborn() -> Iterator[str]:
    """Address of a server that stops reading after DATA."""
    loop, seen = asyncio.new_event_loop(), list[asyncio.Transport]()
    opening = loop.create_server(lambda: _Stubborn(seen), "127.0.0.1", 0)
    server = loop.run_until_complete(opening)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    server.close()
    for transport in seen:
        transport.abort()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@given(st.binary(max_size=60), st.sampled_from([b"", b"\n", b"\r\n.\r\n", b"\r.\n.", b".\n"]))
def test_no_body_can_end_the_mail_early(junk: bytes, middle: bytes) -> None:
    wire = on_the_wire(junk + middle + junk)

    assert wire.endswith(b"\r\n")
    assert b"\r\n.\r\n" not in b"\r\n" + wire
    assert wire.count(b"\r") == wire.count(b"\n") == wire.count(b"\r\n")


@given(st.lists(st.text("ab. ", max_size=8)))
def test_lines_come_out_of_dot_stuffing_unchanged(lines: list[str]) -> None:
    data = "".join(line + "\r\n" for line in lines).encode()
    received = on_the_wire(data).split(b"\r\n")[:-1]

    unstuffed = [line[1:] if line[:1] == b"." else line for line in received]
    assert unstuffed == ([line.encode() for line in lines] or [b""])


async def test_many_mails_share_few_connections(smtp_sink: SmtpSink) -> None:
    async with SmtpPool(smtp_sink.url, connections=3) as pool:
        await asyncio.gather(
            *(pool.send(FROM, f"u{i}@example.com", MAIL + b"%d\r\n" % i) for i in range(60))
        )

    assert smtp_sink.connections <= 3
    assert {(m.rcpt_to, m.content) for m in smtp_sink.messages} == {
        (f"u{i}@example.com", MAIL + b"%d\r\n" % i) for i in range(60)
    }


async def test_a_connection_is_renewed_after_its_share_of_mails(smtp_sink: SmtpSink) -> None:
    async with SmtpPool(smtp_sink.url, connections=1, messages_per_connection=4) as pool:
        for _ in range(9):
            await pool.send(FROM, TO, MAIL)

    assert smtp_sink.connections == 3


@pytest.mark.parametrize(
    ("fault", "error", "arrived"),
    [
        ("service_not_available", SendDeferred, 0),
        ("mailbox_busy", SendDeferred, 0),
        ("too_many_mails", SendDeferred, 0),
        ("mailbox_unavailable", SendFailed, 0),
        ("local_error", SendDeferred, 0),
        ("mailbox_full", SendFailed, 0),
        ("rejected", SendFailed, 0),
        ("disconnect_before_reply", SendUncertain, 1),
    ],
)
async def test_each_fault_is_its_own_error_and_the_next_mail_goes_out(
    smtp_sink: SmtpSink, fault: str, error: type[SendError], arrived: int
) -> None:
    smtp_sink.fault(fault, times=1)
    async with SmtpPool(smtp_sink.url, connections=1) as pool:
        with pytest.raises(error):
            await pool.send(FROM, TO, MAIL)
        assert len(smtp_sink.messages) == arrived
        await pool.send(FROM, TO, MAIL)

    assert len(smtp_sink.messages) == arrived + 1


def test_a_disconnect_amid_a_body_still_in_our_hands_is_deferred(
    run: Run, smtp_sink: SmtpSink
) -> None:
    smtp_sink.fault("disconnect_in_data", times=1)
    large = MAIL + (b"x" * 998 + b"\r\n") * 20_000  # more than kernel and server buffers hold
    run(expect(SendDeferred, smtp_sink.url, large))

    assert smtp_sink.messages == []


def test_a_disconnect_after_the_last_byte_left_is_uncertain(run: Run, smtp_sink: SmtpSink) -> None:
    smtp_sink.fault("disconnect_in_data", times=1)
    run(expect(SendUncertain, smtp_sink.url, MAIL))

    smtp_sink.fault("disconnect_before_reply", times=1)
    run(expect(SendUncertain, smtp_sink.url, MAIL))


def test_a_body_that_a_slow_reader_did_not_take_in_time_is_deferred(
    run: Run, stubborn: str
) -> None:
    large = MAIL + (b"x" * 998 + b"\r\n") * 20_000
    run(expect(SendDeferred, stubborn, large, timeout_s=0.3))


def test_a_mail_without_a_reply_in_time_is_uncertain(run: Run, stubborn: str) -> None:
    run(expect(SendUncertain, stubborn, MAIL, timeout_s=0.3))


async def test_a_slow_reader_is_waited_for(smtp_sink: SmtpSink) -> None:
    smtp_sink.fault("slow_reader", times=1)
    async with SmtpPool(smtp_sink.url) as pool:
        await pool.send(FROM, TO, MAIL)

    assert len(smtp_sink.messages) == 1


async def test_a_connection_that_closed_while_idle_costs_no_mail(smtp_sink: SmtpSink) -> None:
    async with SmtpPool(smtp_sink.url, connections=1) as pool:
        await pool.send(FROM, TO, MAIL)
        smtp_sink.fault("service_not_available", times=1)
        with pytest.raises(SendDeferred):
            await pool.send(FROM, TO, MAIL)
        await asyncio.sleep(0.05)
        await pool.send(FROM, TO, MAIL)

    assert len(smtp_sink.messages) == 2


async def test_one_recipients_fault_is_nobody_elses(smtp_sink: SmtpSink) -> None:
    smtp_sink.fault("mailbox_unavailable", recipient="u3@example.com")
    async with SmtpPool(smtp_sink.url, connections=2) as pool:
        results = await asyncio.gather(
            *(pool.send(FROM, f"u{i}@example.com", MAIL) for i in range(8)), return_exceptions=True
        )

    assert [type(r) for r in results] == [SendFailed if i == 3 else str for i in range(8)]


async def test_errors_do_not_repeat_the_address(smtp_sink: SmtpSink) -> None:
    smtp_sink.fault("mailbox_unavailable")
    async with SmtpPool(smtp_sink.url) as pool:
        with pytest.raises(SendFailed) as caught:
            await pool.send(FROM, TO, MAIL)

    assert "ann" not in str(caught.value)


@pytest.mark.parametrize("address", ["a@b.example>\r\nRCPT TO:<x@y.example", "a\x00@b.example"])
async def test_an_address_cannot_smuggle_a_command(smtp_sink: SmtpSink, address: str) -> None:
    async with SmtpPool(smtp_sink.url) as pool:
        with pytest.raises(SendFailed):
            await pool.send(FROM, address, MAIL)

    assert smtp_sink.messages == []


async def test_international_addresses_are_sent_as_such(smtp_sink: SmtpSink) -> None:
    async with SmtpPool(smtp_sink.url) as pool:
        await pool.send(FROM, "jörg@bücher.example", MAIL)

    assert smtp_sink.messages[0].rcpt_to == "jörg@bücher.example"


async def test_a_relay_that_is_not_there_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pool = SmtpPool(f"smtp://user:secret@127.0.0.1:{port}")
    with pytest.raises(ServiceUnavailable, match=f"127.0.0.1:{port}") as caught:
        await pool.open()
    with pytest.raises(SendDeferred):
        await pool.send(FROM, TO, MAIL)

    assert "secret" not in str(caught.value)


async def test_a_cancelled_send_leaves_no_half_used_connection(smtp_sink: SmtpSink) -> None:
    smtp_sink.fault("slow_reader", times=1)
    async with SmtpPool(smtp_sink.url, connections=1) as pool:
        sending = asyncio.create_task(pool.send(FROM, TO, MAIL))
        await asyncio.sleep(0.1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await pool.send(FROM, "bob@example.com", MAIL)

    assert [m.rcpt_to for m in smtp_sink.messages] == ["bob@example.com"]


class _Collector:
    """Says that it takes commands in groups, as relays do and aiosmtpd does not."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []
        self.faults: dict[str, str] = {}  # reply to the body for a recipient, "" hangs up

    async def handle_EHLO(  # noqa: N802 - the name is aiosmtpd's
        self, server: Any, session: Any, envelope: Envelope, hostname: str, lines: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [*lines[:-1], "250-PIPELINING", lines[-1]]

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("nobody"):
            return "550 5.1.1 <nobody@example.com> is unknown"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: Any, session: Any, envelope: Envelope
    ) -> str:
        fault = self.faults.pop(envelope.rcpt_tos[0], "250 OK")
        if fault[:1] in ("", "2"):
            self.mails.append(cast(bytes, envelope.content))
        if not fault:
            server.transport.abort()
        return fault or "250 OK"


@pytest.fixture
def pipelining() -> Iterator[tuple[str, _Collector]]:
    """A server that advertises PIPELINING."""
    collector = _Collector()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(collector, hostname="127.0.0.1", port=port)
    controller.start()
    yield f"smtp://127.0.0.1:{port}", collector
    controller.stop()


async def test_pipelined_mails_arrive_and_a_refusal_spoils_no_other(
    pipelining: tuple[str, _Collector],
) -> None:
    url, collector = pipelining
    async with SmtpPool(url, connections=1) as pool:
        for i in range(6):
            if i % 2:
                with pytest.raises(SendFailed, match=r"550 5\.1\.1 <recipient>"):
                    await pool.send(FROM, "nobody@example.com", MAIL)
            else:
                await pool.send(FROM, f"u{i}@example.com", MAIL + b"%d\r\n" % i)

    assert collector.mails == [MAIL + b"%d\r\n" % i for i in (0, 2, 4)]


@pytest.mark.parametrize(
    ("fault", "error", "arrives"),
    [
        ("250 OK", None, True),
        ("451 later", SendDeferred, False),
        ("552 full", SendFailed, False),
        ("421 bye", SendDeferred, False),
        ("", SendUncertain, True),
    ],
)
async def test_an_announced_mail_is_sent_once_whatever_becomes_of_the_one_before(
    pipelining: tuple[str, _Collector], fault: str, error: type[SendError] | None, arrives: bool
) -> None:
    url, collector = pipelining
    collector.faults["u3@example.com"] = fault
    async with SmtpPool(url, connections=1, messages_per_connection=7) as pool:
        results = await asyncio.gather(
            *(pool.send(FROM, f"u{i}@example.com", MAIL + b"%d\r\n" % i) for i in range(20)),
            return_exceptions=True,
        )

    failed = {i: type(result) for i, result in enumerate(results) if not isinstance(result, str)}
    assert failed == ({3: error} if error else {})
    arrived = [i for i in range(20) if arrives or i != 3]
    assert sorted(collector.mails) == sorted(MAIL + b"%d\r\n" % i for i in arrived)


class _Closing(asyncio.Protocol):
    """Takes commands in groups, says 421 to one of them and hangs up."""

    def __init__(self, at: bytes) -> None:
        self.at = at

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(b"220 closing\r\n")

    def data_received(self, data: bytes) -> None:
        for line in data.splitlines():
            if line.startswith(self.at):
                self.transport.write(b"421 4.7.28 Too \0 fast\r\n")
                self.transport.close()
                return
            self.transport.write(
                b"250-x\r\n250 PIPELINING\r\n" if b"EHLO" in line else b"250 OK\r\n"
            )


@pytest.mark.parametrize("at", [b"MAIL", b"RCPT", b"DATA"])
async def test_what_a_server_says_as_it_hangs_up_is_heard(at: bytes) -> None:
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: _Closing(at), "127.0.0.1", 0) as server:
        url = f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with SmtpPool(url, connections=1) as pool:
            with pytest.raises(SendDeferred) as caught:
                await pool.send(FROM, TO, MAIL)

    assert caught.value.why == "421 4.7.28 Too  fast"  # without what no ledger can hold


async def test_who_leaves_after_the_mail_was_announced_gets_none(
    pipelining: tuple[str, _Collector],
) -> None:
    url, collector = pipelining
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:  # the first one was when it was announced
            raise SendFailed("gone")

    async with SmtpPool(url, connections=1) as pool:
        sends = [
            pool.send(FROM, f"u{i}@example.com", MAIL + b"%d\r\n" % i, look if i == 3 else None)
            for i in range(6)
        ]
        results = await asyncio.gather(*sends, return_exceptions=True)

    assert looks == 2
    assert [isinstance(result, str) for result in results] == [i != 3 for i in range(6)]
    assert sorted(collector.mails) == [MAIL + b"%d\r\n" % i for i in range(6) if i != 3]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example", ("smtp", "mail.example", 25, None, None, None, True)),
        ("smtp://127.0.0.1:2525", ("smtp", "127.0.0.1", 2525, None, None, False, True)),
        (
            "smtp://u%40x:p%3Aw@mail.example:587?starttls=always&verify=no",
            ("smtp", "mail.example", 587, "u@x", "p:w", True, False),
        ),
        ("smtps://u:p@mail.example", ("smtps", "mail.example", 465, "u", "p", False, True)),
    ],
)
def test_an_address_says_where_and_how(url: str, expected: tuple[object, ...]) -> None:
    relay = Relay.of(url)

    assert expected == (
        relay.scheme,
        relay.host,
        relay.port,
        relay.username,
        relay.password,
        relay.starttls,
        relay.verify,
    )


@pytest.mark.parametrize(
    "url", ["http://u:secret@x", "smtp://", "smtp://x:port", "smtp://u:secret@x?starttls=maybe"]
)
def test_a_wrong_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Relay.of(url)

    assert "secret" not in str(caught.value)


OPENSSL = shutil.which("openssl")


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[tuple[str, str, _Collector]]:
    """Addresses of a server behind TLS and of one that asks for STARTTLS and a login."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = f"{OPENSSL} req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=sink"
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    collector, login = _Collector(), AuthResult(success=True)
    wrong = AuthResult(success=False, handled=False)

    def authenticator(server: Any, session: Any, envelope: Any, how: str, who: Any) -> AuthResult:
        return login if who.password == b"s:cret" else wrong

    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], two.getsockname()[1]
    servers = [
        Controller(collector, hostname="127.0.0.1", port=ports[0], ssl_context=context),
        Controller(
            collector,
            hostname="127.0.0.1",
            port=ports[1],
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=authenticator,
        ),
    ]
    for server in servers:
        server.start()
    yield f"smtps://127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", collector
    for server in servers:
        server.stop()


@pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificate")
async def test_mail_goes_over_tls_and_after_a_login(secured: tuple[str, str, _Collector]) -> None:
    tls, host, collector = secured
    large = MAIL + (b"x" * 998 + b"\r\n") * 2_000
    async with SmtpPool(f"{tls}?verify=no") as pool:
        await pool.send(FROM, TO, large)
    login = f"smtp://ann:s%3Acret@{host}?starttls=always&verify=no"
    async with SmtpPool(login) as pool:
        await pool.send(FROM, TO, MAIL)

    assert collector.mails == [large, MAIL]
    with pytest.raises(ServiceUnavailable, match="certificate"):
        await SmtpPool(tls).open()
    with pytest.raises(ServiceUnavailable, match="refuses to log in"):
        await SmtpPool(login.replace("s%3Acret", "guess")).open()
