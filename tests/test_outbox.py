import asyncio
import mailbox
import smtplib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reco.outbox import LINE_LIMIT_BYTES, SIZE_LIMIT_BYTES, Maildir, Session
from reco.processes import free_port, stop
from reco.servers import Outbox, await_ready


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    server = Outbox(tmp_path_factory.mktemp("sink") / "outbox")
    running = server.start(free_port())
    await_ready(server, running)
    yield running.port, server.folder
    stop(running, server.stop_signal)


def mails(folder: Path) -> set[Path]:
    return set((folder / "new").iterdir())


def test_a_mail_arrives_as_it_was_sent_under_its_envelope(box):
    port, folder = box
    before = mails(folder)
    body = "Subject: Grüße\r\n\r\n.first\r\n..second\r\nlast\r\n".encode()

    with smtplib.SMTP("127.0.0.1", port) as client:
        client.sendmail("shop@example.com", ["ann@example.com"], body, ["BODY=8BITMIME"])

    (path,) = mails(folder) - before
    envelope = b"Return-Path: <shop@example.com>\r\nDelivered-To: ann@example.com\r\n"
    assert envelope + body == path.read_bytes()
    assert mailbox.MaildirMessage(path.read_bytes())["Delivered-To"] == "ann@example.com"
    assert list((folder / "tmp").iterdir()) == []


def test_pipelined_mails_each_get_their_reply(box):
    port, folder = box
    before = mails(folder)
    one = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nA: b\r\n\r\n.\r\n"

    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"EHLO here\r\n" + one * 3 + b"QUIT\r\n")
        replies = b""
        while more := connection.recv(65536):
            replies += more

    assert replies.count(b"354 ") == 3
    assert replies.endswith(b"221 2.0.0 Bye\r\n")
    assert len(mails(folder) - before) == 3


def test_a_client_that_dies_in_its_mail_leaves_none(box):
    port, folder = box
    before = mails(folder)

    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(
            b"EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\nSubject: half\r\n"
        )
    with smtplib.SMTP("127.0.0.1", port) as client:
        assert client.noop()[0] == 250

    assert before == mails(folder)


@pytest.mark.parametrize("command", ["RCPT TO:<a@example.com>", "DATA"])
def test_commands_out_of_order_are_refused(box, command):
    with smtplib.SMTP("127.0.0.1", box[0]) as client:
        client.ehlo()

        assert client.docmd(command)[0] == 503


def test_a_mail_over_the_limit_is_refused_and_the_next_one_taken(box):
    port, folder = box
    before = mails(folder)

    with smtplib.SMTP("127.0.0.1", port) as client:
        client.ehlo()
        client.mail("a@example.com")
        client.rcpt("b@example.com")
        code, _ = client.data(b"x" * (SIZE_LIMIT_BYTES + 100))
        client.sendmail("a@example.com", ["b@example.com"], b"Subject: small\r\n\r\n")

    assert code == 552
    assert len(mails(folder) - before) == 1


class Wire(asyncio.Transport):
    """Keeps what a session writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True


def test_an_endless_line_ends_the_conversation(tmp_path):
    session, wire = Session(Maildir(tmp_path)), Wire()
    session.connection_made(wire)

    session.data_received(b"x" * (LINE_LIMIT_BYTES + 1))

    assert b"421 " in wire.written
    assert wire.closed


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(st.binary(max_size=8).filter(lambda line: b"\r" not in line), max_size=6),
    cuts=st.lists(st.integers(1, 40), max_size=30),
)
def test_however_the_bytes_are_cut_the_mail_is_the_same(tmp_path_factory, lines, cuts):
    folder = tmp_path_factory.mktemp("cut")
    session, wire = Session(Maildir(folder)), Wire()
    session.connection_made(wire)
    lines = [line.replace(b"\n", b".") for line in lines]
    stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
    stream = b"MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n" + stuffed + b".\r\nNOOP\r\n"

    for cut in cuts:
        session.data_received(stream[:cut])
        stream = stream[cut:]
    session.data_received(stream)

    (path,) = (folder / "new").iterdir()
    envelope = b"Return-Path: <a@b.c>\r\nDelivered-To: d@e.f\r\n"
    assert envelope + b"".join(line + b"\r\n" for line in lines) == path.read_bytes()
    assert wire.written.count(b"\r\n250") + wire.written.count(b"\r\n354") == 5
