"""The recording server behaves as badly as its faults promise; other tests build on that."""

import smtplib

import pytest

from tests.smtpd import REPLIES, Received

MAIL = b"Subject: hello\r\n\r\nBody\r\n"


def send(url: str, recipient: str = "ann@example.com") -> None:
    host, port = url.removeprefix("smtp://").split(":")
    with smtplib.SMTP(host, int(port), timeout=10) as client:
        client.sendmail("shop@example.com", [recipient], MAIL)


def test_what_is_accepted_is_recorded(smtp_sink):
    send(smtp_sink.url)

    assert [Received("shop@example.com", "ann@example.com", MAIL)] == smtp_sink.messages
    assert 1 == smtp_sink.connections


@pytest.mark.parametrize("name", [name for replies in REPLIES.values() for name in replies])
def test_a_bad_reply_has_the_code_of_its_fault(smtp_sink, name):
    smtp_sink.fault(name)
    (reply,) = [replies[name] for replies in REPLIES.values() if name in replies]

    with pytest.raises(smtplib.SMTPException) as caught:
        send(smtp_sink.url)

    assert reply[:3] in str(caught.value)
    assert [] == smtp_sink.messages


@pytest.mark.smtp_fault("disconnect_in_data")
def test_a_connection_lost_in_the_mail_records_nothing(smtp_sink):
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        send(smtp_sink.url)

    assert [] == smtp_sink.messages


@pytest.mark.smtp_fault("disconnect_before_reply")
def test_a_connection_lost_after_the_mail_has_recorded_it(smtp_sink):
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        send(smtp_sink.url)

    assert 1 == len(smtp_sink.messages)


@pytest.mark.smtp_fault("slow_reader")
def test_a_slow_reader_takes_the_mail_in_the_end(smtp_sink):
    send(smtp_sink.url)

    assert 1 == len(smtp_sink.messages)


@pytest.mark.smtp_fault("mailbox_busy", times=1, recipient="bob@example.com")
def test_a_fault_may_strike_one_recipient_once(smtp_sink):
    send(smtp_sink.url, "ann@example.com")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(smtp_sink.url, "bob@example.com")
    send(smtp_sink.url, "bob@example.com")

    received = [message.rcpt_to for message in smtp_sink.messages]
    assert ["ann@example.com", "bob@example.com"] == received
