"""Signatures that receivers accept: checked by dkimpy where it is installed, and by hand."""

import re
from base64 import b64decode
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from reco.errors import ConfigError
from reco.mac import Mac
from render.dkim import SIGNED, DkimSigner, body_hash
from render.message import Assembler, Sender, message_id
from render.views import RecipientView, Rendered

SENDER = Sender(
    "Corner Märket",
    "news@shop.example",
    reply_to="help@shop.example",
    list_id="digest <digest.shop.example>",
    feedback_id="a:b:c:corner1",
    unsubscribe_email="out@shop.example",
)
TEXTS = ("Hi", "two  blanks \n\n\t\n", "", "Käse\n" * 50, " \n \n")


def pem(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture(scope="module", params=["rsa", "ed25519"])
def key(request):
    if request.param == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ed25519.Ed25519PrivateKey.generate()


@pytest.fixture
def signer(key):
    return DkimSigner("shop.example", "s2026", pem(key))


def message(n=0, text="Hi", subject="Your picks"):
    return Assembler(SENDER).assemble(
        RecipientView("u", "ana@example.com", "Ana"),
        Rendered(subject, "", f"<p>{text}</p>", text),
        message_id(Mac(b"k" * 32), "c", f"user-{n}", "shop.example"),
        "https://shop.example/u/TOKEN",
        datetime(2026, 11, 24, tzinfo=UTC),
    )


def relaxed_by_hand(field):
    name, _, value = field.partition(":")
    return f"{name.lower().strip()}:{' '.join(value.split())}\r\n"


def test_the_body_hash_is_that_of_the_standard_s_example():
    body = b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"

    assert body_hash(body) == "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\n\r\n \r\n", b" \t\r\n", b" "])
def test_blanks_and_lines_at_the_end_of_a_body_do_not_count(end):
    assert body_hash(b"a b" + end) == body_hash(b"a \t b\r\n")


def test_an_empty_body_hashes_to_nothing():
    assert b64decode(body_hash(b"\r\n\r\n")) == sha256(b"").digest()


def test_the_signature_verifies_over_the_headers_it_names(signer, key):
    signed = signer.sign(message(subject="Käse  und   Brot")).decode()
    head = signed.partition("\r\n\r\n")[0]
    fields = re.split(r"\r\n(?![ \t])", head)
    tags = dict(
        t.strip().split("=", 1) for t in "".join(fields[0].split()).partition(":")[2].split(";")
    )
    by_name = {f.partition(":")[0].lower(): f for f in fields[1:]}
    names = tags["h"].split(":")
    first = [name for n, name in enumerate(names) if name not in names[:n]]
    bare = fields[0][: fields[0].index(" b=") + 3]
    data = "".join(relaxed_by_hand(by_name[n]) for n in first) + relaxed_by_hand(bare)[:-2]

    signature = b64decode(tags["b"])
    if isinstance(key, rsa.RSAPrivateKey):
        key.public_key().verify(signature, data.encode(), padding.PKCS1v15(), SHA256())
    else:
        key.public_key().verify(signature, sha256(data.encode()).digest())
    assert set(names) == set(SIGNED)
    assert [names.count(name) for name in ("from", "to", "subject", "date")] == [2, 2, 2, 1]


def test_dkimpy_accepts_every_mail_and_no_changed_one(signer, key):
    dkim = pytest.importorskip("dkim", reason="dkimpy is not installed")
    if isinstance(key, ed25519.Ed25519PrivateKey):
        pytest.importorskip("nacl", reason="dkimpy reads Ed25519 by pynacl, which is not installed")
    name, record = signer.dns_record()

    def dns(asked, timeout=5):
        return record.encode() if asked.decode().rstrip(".") == name else None

    for n in range(100):
        signed = signer.sign(message(n, TEXTS[n % len(TEXTS)], subject="é " * (n % 60) + "x"))
        assert dkim.verify(signed, dnsfunc=dns)
        assert not dkim.verify(signed.replace(b"To: Ana", b"To: Eve"), dnsfunc=dns)
        assert not dkim.verify(signed.replace(b"Subject:", b"Subject: x\r\nSubject:"), dnsfunc=dns)


def test_a_signed_mail_is_the_same_each_time(signer):
    assert signer.sign(message()) == signer.sign(message())
    assert signer.sign(message()).endswith(message())
    assert max(map(len, signer.sign(message()).split(b"\r\n"))) <= 78


def test_unusable_keys_are_refused():
    curve = pem(ec.generate_private_key(ec.SECP256R1()))
    for bad in (b"", b"nonsense", curve):
        with pytest.raises(ConfigError, match="DKIM key cannot be used"):
            DkimSigner("shop.example", "s", bad)
