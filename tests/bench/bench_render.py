"""CPU microseconds a mail of each step of rendering, with EmailMessage beside ours.

python -m tests.bench.bench_render [--mails 2000]
"""

import argparse
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import partial

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from reco.mac import Mac
from render.compile import compile_template
from render.dkim import DkimSigner
from render.links import Link, LinkKind, LinkSigner
from render.message import Assembler, Sender, message_id
from render.renderer import Renderer
from render.views import Rendered, sample_context, sample_item, sample_recipient

KEY = bytes(range(32))
DATE = datetime(2026, 11, 24, tzinfo=UTC)
SENDER = Sender("Corner Market", "news@shop.example", unsubscribe_email="out@shop.example")


def microseconds(call: Callable[[], object], times: int) -> float:
    """CPU time of a call, best of three runs: the others were disturbed."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        for _ in range(times):
            call()
        best = min(best, time.process_time() - start)
    return best / times * 1e6


def slow(mail: Rendered, url: str) -> bytes:
    """The same mail by an EmailMessage a recipient."""
    message = EmailMessage(policy=SMTP)
    message["From"] = Address("Corner Market", addr_spec="news@shop.example")
    message["To"] = Address("Ana", addr_spec="ana@example.com")
    message["Subject"] = mail.subject
    message["Date"] = format_datetime(DATE)
    message["Message-ID"] = message_id(Mac(KEY), "weekly", "user-1", "shop.example")
    message["List-Unsubscribe"] = f"<{url}>, <mailto:out@shop.example>"
    message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html", cte="base64")
    return bytes(message)


def dkim_of(key: RSAPrivateKey | Ed25519PrivateKey) -> DkimSigner:
    """A signer of a fresh key."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return DkimSigner("shop.example", "s2026", pem)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mails", type=int, default=2000)
    mails = parser.parse_args().mails
    compiled = compile_template("digest")
    renderer = Renderer(compiled, sample_context())
    signer, assembler = LinkSigner(KEY), Assembler(SENDER)
    recipient, picks = sample_recipient(), [sample_item(n) for n in range(1, 6)]
    link = Link(LinkKind.CLICK, "weekly", "user-1", 3)
    url = signer.url("https://shop.example", link)
    mail = renderer.render(recipient, picks)
    mac = Mac(KEY)
    identity = message_id(mac, "weekly", "user-1", "shop.example")

    def assemble() -> bytes:
        return assembler.assemble(recipient, mail, identity, url, DATE)

    variables = {**compiled.sample(), "user": recipient, "recommendations": picks}
    variables |= {"subject": mail.subject, "preheader": mail.preheader}

    def page() -> str:
        return renderer._html.render(variables)

    rsa_key, ed_key = rsa.generate_private_key(65537, 2048), Ed25519PrivateKey.generate()
    whole = assemble()

    steps: tuple[tuple[str, Callable[[], object], int], ...] = (
        ("compile a template", lambda: compile_template("digest"), 10),
        ("render the HTML part", page, mails),
        ("render subject, preheader, HTML, text", lambda: renderer.render(recipient, picks), mails),
        ("sign a link", lambda: signer.sign(link), mails),
        (
            "make a Message-ID",
            lambda: message_id(mac, "weekly", "user-1", "shop.example"),
            mails,
        ),
        ("assemble the message", assemble, mails),
        *(
            (f"DKIM by {name}", partial(dkim_of(key).sign, whole), mails // 4)
            for name, key in (("RSA-2048", rsa_key), ("Ed25519", ed_key))
        ),
        ("the same by EmailMessage", lambda: slow(mail, url), max(mails // 20, 20)),
    )
    sizes = f"HTML {len(mail.html.encode())} B, mail {len(whole)} B"
    print(f"Python {platform.python_version()}, {platform.machine()}; {sizes}")
    for name, call, times in steps:
        print(f"{name:40} {microseconds(call, times):10.1f} us")


if __name__ == "__main__":
    main()
