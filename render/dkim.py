"""DKIM signatures (RFC 6376, RFC 8463), for relays that do not sign themselves.

relaxed/relaxed, rsa-sha256 or ed25519-sha256 by the kind of key. No time stamp, so that the same
message has the same signature and a retry is byte-identical.
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from reco.errors import ConfigError

MIN_RSA_BITS: Final = 1024  # less is ignored by receivers; 2048 is recommended
# Signed where present. RFC 8058 wants both unsubscribe headers among them.
SIGNED: Final = (
    "from", "to", "subject", "date", "message-id", "reply-to", "mime-version", "content-type",
    "list-id", "list-unsubscribe", "list-unsubscribe-post", "feedback-id",
)  # fmt: skip
# Signed once more than they are there: nobody can add a second one and replay the mail.
OVERSIGNED: Final = ("from", "to", "subject")

_BLANKS: Final = re.compile(rb"[ \t]+")
_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:((?:[^\r\n]*(?:\r\n[ \t])?)*)\r\n")
_WIDTH: Final = 70


class DkimSigner:
    """Signs messages of one domain. `private_key` is PEM: RSA, or Ed25519.

    Raises ConfigError when the key cannot be used.
    """

    def __init__(self, domain: str, selector: str, private_key: bytes) -> None:
        try:
            key = load_pem_private_key(private_key, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _unusable(str(error)) from error
        if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
            raise _unusable(f"{type(key).__name__} is not used by DKIM")
        if isinstance(key, RSAPrivateKey) and key.key_size < MIN_RSA_BITS:
            raise _unusable(f"{key.key_size} bits are too few")
        self._key = key
        self._algorithm = "rsa" if isinstance(key, RSAPrivateKey) else "ed25519"
        self._domain, self._selector = domain, selector

    def sign(self, message: bytes) -> bytes:
        """The message with its DKIM-Signature in front; `message` has CRLF line ends."""
        head, _, body = message.partition(b"\r\n\r\n")
        fields = [(m[1].lower(), m[2]) for m in _FIELD.finditer(head + b"\r\n")]
        names = _names_to_sign([name.decode("ascii") for name, _ in fields])
        unsigned = self._header(names, body_hash(body))
        signed = b"".join(_relaxed_fields(fields, names))
        signature = self._signature(signed + _relaxed(b"dkim-signature", unsigned.encode())[:-2])
        folded = "\r\n ".join(signature[n : n + _WIDTH] for n in range(0, len(signature), _WIDTH))
        return f"DKIM-Signature:{unsigned}{folded}\r\n".encode() + message

    def dns_record(self) -> tuple[str, str]:
        """Name and content of the TXT record to publish."""
        public = self._key.public_key()
        if isinstance(self._key, RSAPrivateKey):
            data = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        else:
            data = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        name = f"{self._selector}._domainkey.{self._domain}"
        return name, f"v=DKIM1; k={self._algorithm}; p={b64encode(data).decode()}"

    def _header(self, names: Sequence[str], digest: str) -> str:
        """Value of the header up to `b=`, folded."""
        lines = [f" v=1; a={self._algorithm}-sha256; c=relaxed/relaxed;"]
        lines.append(f" d={self._domain}; s={self._selector};")
        line = " h="
        for name in names:
            if len(line) + len(name) > _WIDTH:
                lines.append(line)
                line = " "
            line += f"{name}:"
        return "\r\n".join([*lines, f"{line[:-1]};", f" bh={digest};", " b="])

    def _signature(self, data: bytes) -> str:
        if isinstance(self._key, RSAPrivateKey):
            return b64encode(self._key.sign(data, PKCS1v15(), SHA256())).decode()
        return b64encode(self._key.sign(sha256(data).digest())).decode()  # RFC 8463 section 3


def body_hash(body: bytes) -> str:
    """`bh=`: SHA-256 of the body, blanks and last lines relaxed (RFC 6376 3.4.4)."""
    body = body.replace(b"\t", b" ")
    while b"  " in body:  # a regular expression takes ten times as long here
        body = body.replace(b"  ", b" ")
    relaxed = body.replace(b" \r\n", b"\r\n").rstrip(b" \r\n")
    return b64encode(sha256(relaxed + b"\r\n" if relaxed else b"").digest()).decode()


def _names_to_sign(present: Sequence[str]) -> list[str]:
    names = [name for name in SIGNED for _ in range(present.count(name))]
    return [*names, *OVERSIGNED]


def _relaxed_fields(fields: Sequence[tuple[bytes, bytes]], names: Sequence[str]) -> list[bytes]:
    """The named header fields, canonical, the last of a name first; absent ones count as empty."""
    left = list(fields)
    out = []
    for name in names:
        wanted = name.encode()
        for index in range(len(left) - 1, -1, -1):
            if left[index][0] == wanted:
                out.append(_relaxed(*left.pop(index)))
                break
    return out


def _relaxed(name: bytes, value: bytes) -> bytes:
    """One header field by RFC 6376 3.4.2."""
    return name + b":" + _BLANKS.sub(b" ", value.replace(b"\r\n", b"")).strip() + b"\r\n"


def _unusable(why: str) -> ConfigError:
    todo = "make one: openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048"
    return ConfigError("the DKIM key cannot be used", why, todo)
