"""Header values by RFC 5322 and RFC 2047: folded, encoded where needed, never able to break out."""

import re
from base64 import b64encode
from functools import lru_cache
from typing import Final

from reco.errors import ConfigError

# Control characters and the line separators that mail parsers split at; lone surrogates.
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
NOT_MAILABLE: Final = "is not an address that can be mailed"
MAX_NAME: Final = 64  # characters of a display name: what is longer is not a name

_LINE: Final = 76
_WORD_BYTES: Final = 39  # as base64 in "=?utf-8?b?…?=" 64 characters, and "Subject: " fits before
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL: Final = re.compile(
    rf'{_ATOM}(?:\.{_ATOM})*|"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*"'
)
_DOMAIN: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_PLAIN_NAME: Final = re.compile(rf"{_ATOM}(?: {_ATOM})*")


def clean(name: str, value: str) -> str:
    """The value, or ConfigError: a line break in a header starts another header."""
    found = _FORBIDDEN.search(value)
    if found:
        raise ConfigError(
            f"the header {name} has a forbidden character {found[0]!r} in {value[:60]!r}",
            "control characters and line breaks would start another header",
            "remove it from the name, title or template that it comes from",
        )
    return value


def unstructured(name: str, value: str) -> str:
    """A header value such as a subject: ASCII is folded at blanks, all else RFC 2047 encoded."""
    value = clean(name, value).strip()
    room = _LINE - len(name) - 2
    if value.isascii() and "=?" not in value:
        if len(value) <= room:
            return value
        folded = _fold(value, room)
        if folded is not None:
            return folded
    return "\r\n ".join(_encoded_words(value))


def display_name(value: str) -> str:
    """A name before an address, with the blank after it; "" for none, cut off at MAX_NAME."""
    value = clean("To", value).strip()[:MAX_NAME]
    if not value:
        return ""
    if value.isascii() and "=?" not in value:
        if _PLAIN_NAME.fullmatch(value):
            return value + " "
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}" '
    return "\r\n ".join(_encoded_words(value)) + "\r\n "


def address(value: str) -> str:
    """The address as it may stand in a header: the domain in ASCII.

    Raises ConfigError for what is no address, or needs SMTPUTF8 (letters beyond ASCII before @).
    """
    local, at, domain = clean("address", value).rpartition("@")
    if at and not domain.isascii():
        domain = _idna(domain)
    if len(local) > 64 or not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain):
        raise ConfigError(
            f"{value[:80]!r} {NOT_MAILABLE}",
            "before the @ only ASCII is accepted by all mail servers",
            "correct or drop the subscriber",
        )
    return f"{local}@{domain}"


@lru_cache(maxsize=4096)
def _idna(domain: str) -> str:
    try:
        return domain.encode("idna").decode("ascii")
    except UnicodeError:
        return ""


def _fold(value: str, room: int) -> str | None:
    """Lines broken before single blanks; None when a word is too long for a line."""
    lines, line = [], ""
    for word in re.findall(r" *[^ ]+", value):
        if len(line) + len(word) > room and line:
            lines.append(line)
            line, room = word, _LINE
        else:
            line += word
    lines.append(line)
    return None if any(len(line) > _LINE for line in lines) else "\r\n".join(lines)


def _encoded_words(value: str) -> list[str]:
    """RFC 2047 words of whole characters, each short enough for a line."""
    words, chunk = [], b""
    for character in value:
        data = character.encode()
        if len(chunk) + len(data) > _WORD_BYTES:
            words.append(chunk)
            chunk = b""
        chunk += data
    words.append(chunk)
    return [f"=?utf-8?b?{b64encode(word).decode()}?=" for word in words]
