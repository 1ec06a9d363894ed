"""Rendered mails become MIME bytes, ready for SMTP: CRLF, 7 bit, no line over 998 bytes.

The headers that all mails of a campaign share are written once by the standard library; the rest
is filled in as bytes, many times faster than an EmailMessage (tests/bench/bench_render.py).
"""

import hashlib
import re
from base64 import b32encode
from binascii import b2a_qp
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import lru_cache
from typing import Final

import numpy as np
from pybase64 import b64encode

from reco.errors import ConfigError
from reco.mac import Mac
from render.headers import address, clean, display_name, unstructured
from render.views import RecipientView, Rendered

_LINE: Final = 76  # of base64, RFC 2045 6.8
_WRAPPED: Final = np.dtype([("line", f"V{_LINE}"), ("end", "V2")])  # copied whole, not by byte
_MESSAGE_ID: Final = re.compile(r"<[\x21-\x3b\x3d\x3f-\x7e]+@[\x21-\x3b\x3d\x3f-\x7e]+>")


@dataclass(frozen=True, slots=True)
class Sender:
    """What all mails of a campaign have in common.

    list_id        "Corner Market digest <digest.shop.example>" (RFC 2919)
    feedback_id    "campaign:list:type:sender" for Gmail's aggregate complaint figures
    unsubscribe_email   takes unsubscriptions by mail, for clients without one-click
    """

    from_name: str
    from_email: str
    reply_to: str = ""
    list_id: str = ""
    feedback_id: str = ""
    unsubscribe_email: str = ""


class Assembler:
    """Assembles the mails of one campaign. Raises ConfigError when a header cannot be written."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        head = EmailMessage(policy=SMTP)
        head["From"] = _mailbox(sender.from_name, sender.from_email)
        if sender.reply_to:
            head["Reply-To"] = _mailbox("", sender.reply_to)
        for name, value in (("List-ID", sender.list_id), ("Feedback-ID", sender.feedback_id)):
            if value:
                head[name] = clean(name, value)
        head["MIME-Version"] = "1.0"
        self._shared = bytes(head).removesuffix(b"\r\n")
        self._unsubscribe_email = sender.unsubscribe_email and address(sender.unsubscribe_email)

    def assemble(
        self,
        recipient: RecipientView,
        rendered: Rendered,
        message_id: str,
        unsubscribe_url: str,
        date: datetime,
    ) -> bytes:
        """The whole message. The same arguments give the same bytes: a retry is the same mail.

        Raises ConfigError for a header value with control characters in it, or a bad address.
        """
        if not _MESSAGE_ID.fullmatch(message_id):
            raise ConfigError(f"{message_id!r} is no Message-ID", todo="use message_id()")
        boundary = "=_" + hashlib.sha256(message_id.encode()).hexdigest()[:32]
        name = display_name(recipient.first_name)
        to = address(recipient.email)
        head = (
            f"To: {name}<{to}>\r\n" if name else f"To: {to}\r\n",
            f"Subject: {unstructured('Subject', rendered.subject)}\r\n",
            f"Date: {_date(date, date.utcoffset())}\r\n",
            f"Message-ID: {message_id}\r\n",
            self._unsubscribe(unsubscribe_url),
            f'Content-Type: multipart/alternative;\r\n boundary="{boundary}"\r\n\r\n',
            _part(boundary, "plain", "quoted-printable"),
        )
        return b"".join(
            (
                self._shared,
                "".join(head).encode("ascii"),
                quoted_printable(rendered.text),
                f"\r\n{_part(boundary, 'html', 'base64')}".encode("ascii"),
                *base64_lines(rendered.html),
                f"\r\n--{boundary}--\r\n".encode("ascii"),
            )
        )

    def _unsubscribe(self, url: str) -> str:
        """One-click by RFC 8058 (providers ask for https), and by mail for older clients."""
        if not url.isascii() or re.search(r"[\s<>,]", url) or not url.startswith("http"):
            raise ConfigError(f"{url!r} cannot stand in List-Unsubscribe", "it is no plain URL")
        targets = f"<{url}>"
        if self._unsubscribe_email:
            token = url.rsplit("/", 1)[-1]
            targets += f",\r\n <mailto:{self._unsubscribe_email}?subject={token}>"
        one_click = "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
        return f"List-Unsubscribe: {targets}\r\n{one_click}"


def message_id(mac: Mac, campaign_id: str, user_id: str, domain: str) -> str:
    """The one Message-ID of a recipient in a campaign; a retry carries the same."""
    words = [word.encode() for word in (campaign_id, user_id)]
    body = b"reco message\0" + b"".join(b"%d:%b" % (len(word), word) for word in words)
    digest = mac.digest(body)[:20]
    return f"<{b32encode(digest).decode().lower()}@{domain}>"


def return_path(message_id: str, domain: str) -> str:
    """Envelope sender that names the mail (VERP), so that any bounce finds its delivery."""
    return f"bounces+{message_id[1:].split('@')[0]}@{domain}"


def base64_lines(text: str) -> tuple[bytes, bytes]:
    """A text as base64 in lines of 76, its own line ends made CRLF: whole lines, and the last."""
    data = b64encode(_canonical(text))
    whole = len(data) // _LINE
    lines = np.empty(whole, _WRAPPED)
    lines["line"] = np.frombuffer(data, _WRAPPED["line"], whole)
    lines["end"] = np.void(b"\r\n")
    return lines.tobytes(), data[whole * _LINE :]


def quoted_printable(text: str) -> bytes:
    """A text as quoted-printable: readable as it is where it is ASCII."""
    return b2a_qp(_canonical(text), istext=True)


def _canonical(text: str) -> bytes:
    data = text.encode()
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    data = data.replace(b"\n", b"\r\n")
    return data if data.endswith(b"\r\n") else data + b"\r\n"


def _part(boundary: str, kind: str, encoding: str) -> str:
    return (
        f"--{boundary}\r\nContent-Type: text/{kind}; charset=utf-8\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
    )


@lru_cache(maxsize=64)
def _date(moment: datetime, offset: timedelta | None) -> str:
    """The same for a whole chunk. Equal moments of two zones are written in two ways."""
    return format_datetime(moment)


def _mailbox(name: str, email: str) -> Address:
    return Address(display_name=clean("From", name), addr_spec=address(email))
