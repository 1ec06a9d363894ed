"""Reading a message that nobody has checked: its headers, its own words, its addresses."""

import re
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parseaddr
from typing import Final

MOST_TEXT: Final = 20_000  # characters that are searched for words
STATUS: Final = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d.])")
CODE: Final = re.compile(r"(?<![\d.])([45]\d\d)(?=[ -])")
ADDRESS: Final = re.compile(r"[\w.!#$%&'*+/=?^~-]+@[\w-]+(?:\.[\w-]+)+")
# What Postfix, Exim, Sendmail and m-FILTER say of a refusal that came when the mail was read.
_AFTER_DATA: Final = re.compile(
    r"end\s+of\s+DATA\b|>>> DATA\s+<<< 5|SMTP command\s+DATA\b", re.IGNORECASE
)
# Sendmail sends RCPT and DATA together: then it was the recipient that was refused.
_NO_RECIPIENT: Final = re.compile(r"need RCPT|no valid recipients", re.IGNORECASE)
# Where the returned mail begins, in formats that only append it.
_COPY: Final = re.compile(
    r"^(?:Message-Id|Return-Path|Received|DomainKey-Signature|DKIM-Signature|Subject|"
    r"MIME-Version|X-[\w-]+|Original (?:mail|message)(?: as)? follows): ?",
    re.IGNORECASE | re.MULTILINE,
)


def plain_text(message: Message) -> str:
    """Text of the message, without the returned mail."""
    texts: list[str] = []
    for part in message.walk():
        if part.get_content_type() in ("message/rfc822", "text/rfc822-headers"):
            break
        if isinstance(part.get_payload(), str) and part.get_content_maintype() != "image":
            texts.append(_COPY.split(text_of(part), maxsplit=1)[0])
    return "\n".join(texts)[:MOST_TEXT]


def text_of(part: Message) -> str:
    """Text of one part."""
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    try:
        return payload.decode(part.get_content_charset() or "utf-8", "replace")
    except LookupError:
        return payload.decode("utf-8", "replace")


def first(pattern: re.Pattern[str], text: str) -> str:
    """The first group of a pattern, "" where it is not found."""
    found = pattern.search(text)
    return found[1] if found else ""


def header(message: Message, name: str) -> str:
    """A header in words, whatever it was written in."""
    raw = next((value for key, value in message.raw_items() if key.lower() == name.lower()), "")
    value = str(raw).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    try:
        return str(make_header(decode_header(value)))
    except (LookupError, ValueError):
        return value


def sender_of(message: Message) -> str:
    """Address in From, "" without one."""
    return parseaddr(str(message.get("From", "")))[1].lower()


def is_daemon(message: Message) -> bool:
    """Whether the sender is a mail server and not a person."""
    sender = sender_of(message).partition("@")[0].replace("_", "").replace("-", "")
    return sender in ("", "mailerdaemon", "postmaster")


def is_after_data(words: str) -> bool:
    """Whether a refusal came after the mail itself, by the words of who was refused."""
    return bool(_AFTER_DATA.search(words)) and not _NO_RECIPIENT.search(words)
