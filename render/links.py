"""Signed links: who and what, never where to.

A token names a campaign, a subscriber and a link number; the destination is looked up in the
campaign's own table when the link is followed, so no URL of ours can be bent to another place.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from reco.errors import ConfigError, InputError, NotFound
from reco.mac import Mac

MAC_BYTES: Final = 16
MIN_KEY_BYTES: Final = 16
MAX_TOKEN_CHARS: Final = 1024
MAX_NUMBER: Final = 65535

_HEAD: Final = 5  # key id, kind, two bytes of link number, length of the campaign id


class LinkKind(Enum):
    """What a link does; the value is its path: /c/{token}."""

    CLICK = "c"
    OPEN = "o"
    UNSUBSCRIBE = "u"
    PREFERENCES = "p"
    IMAGE = "i"


@dataclass(frozen=True, slots=True)
class Link:
    """What a token says. `user_id` is "" on links that must not name a person."""

    kind: LinkKind
    campaign_id: str
    user_id: str
    number: int = 0


class LinkSigner:
    """Signs and verifies tokens: HMAC-SHA256, truncated to 16 bytes, over all that they say.

    `keys`: one secret, or several by key id (0..255). The highest id signs; all of them verify,
    so a key is rotated by adding the next id and dropping the old one when its mails are too old.
    """

    def __init__(self, keys: bytes | Mapping[int, bytes]) -> None:
        given = {1: keys} if isinstance(keys, bytes) else keys
        good = all(0 <= n <= 255 and len(k) >= MIN_KEY_BYTES for n, k in given.items())
        if not given or not good:
            raise ConfigError(
                "the keys that sign links cannot be used",
                f"each needs an id of 0..255 and at least {MIN_KEY_BYTES} bytes",
                "make one: python -c 'import secrets; print(secrets.token_hex(32))'",
            )
        self._macs = {number: Mac(key) for number, key in given.items()}
        self._newest = max(given)

    def sign(self, link: Link) -> str:
        """Token of a link: URL-safe, the same for the same link and key.

        Raises InputError for ids that cannot stand in a URL: too long, or an e-mail address.
        """
        campaign, user = link.campaign_id.encode(), link.user_id.encode()
        if "@" in link.user_id or len(campaign) > 255 or len(user) > 255:
            raise InputError(
                f"user {link.user_id!r} of campaign {link.campaign_id!r} cannot stand in a link",
                "ids in URLs are at most 255 bytes, and never e-mail addresses: URLs get logged",
                "import subscribers with an opaque user_id",
            )
        if not 0 <= link.number <= MAX_NUMBER:
            raise InputError(f"link number {link.number} is not within 0..{MAX_NUMBER}")
        head = (self._newest, ord(link.kind.value), link.number >> 8, link.number & 255)
        body = bytes((*head, len(campaign))) + campaign + user
        return _encode(body + _tag(self._macs[self._newest], body))

    def url(self, root: str, link: Link) -> str:
        """Full address of a link below the public root."""
        return f"{root.rstrip('/')}/{link.kind.value}/{self.sign(link)}"

    def verify(self, token: str, kind: LinkKind) -> Link:
        """What a token says; raises NotFound for any that we did not sign for this kind."""
        try:
            return self._read(token, kind)
        except (ValueError, IndexError) as error:
            raise NotFound(
                "this link is not known",
                "it was damaged on its way, or its key has been retired",
                "open the link from the mail again",
            ) from error

    def _read(self, token: str, kind: LinkKind) -> Link:
        if not MAC_BYTES < len(token) <= MAX_TOKEN_CHARS:
            raise ValueError("length")
        data = _decode(token)
        body, mac = data[:-MAC_BYTES], data[-MAC_BYTES:]
        ours = self._macs.get(body[0])
        if ours is None or not hmac.compare_digest(_tag(ours, body), mac):
            raise ValueError("signature")
        if body[1] != ord(kind.value):
            raise ValueError("kind")
        end = _HEAD + body[4]
        number = body[2] << 8 | body[3]
        return Link(kind, body[_HEAD:end].decode(), body[end:].decode(), number)


def with_utm(url: str, parameters: Mapping[str, str]) -> str:
    """The URL with `utm_…` parameters added; its own query, fragment and values are kept."""
    parts = urlsplit(url)
    present = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    added = urlencode({n: v for n, v in parameters.items() if v and n not in present})
    return urlunsplit(parts._replace(query="&".join(q for q in (parts.query, added) if q)))


def _tag(mac: Mac, body: bytes) -> bytes:
    return mac.digest(b"reco link\0" + body)[:MAC_BYTES]


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(token: str) -> bytes:
    """Bytes of a token; raises ValueError unless it is the one way to write them."""
    data = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
    if _encode(data) != token:
        raise ValueError("not canonical")
    return data
