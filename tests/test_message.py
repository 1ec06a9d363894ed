"""Messages filled in by bytes read the same as those that the standard library builds slowly."""

import re
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import parseaddr

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reco.errors import ConfigError
from reco.mac import Mac
from render.message import Assembler, Sender, message_id, return_path
from render.views import RecipientView, Rendered

KEY = bytes(range(32))
DATE = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
ID = message_id(Mac(KEY), "weekly", "user-1", "shop.example")
URL = "https://shop.example/u/TOKEN"
SENDER = Sender(
    from_name="Corner Market",
    from_email="news@shop.example",
    reply_to="help@shop.example",
    list_id="Corner Market digest <digest.shop.example>",
    feedback_id="weekly:digest:marketing:corner1",
    unsubscribe_email="unsubscribe@shop.example",
)
ONCE = (
    "From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Reply-To", "List-ID",
    "List-Unsubscribe", "List-Unsubscribe-Post", "Feedback-ID", "Content-Type",
)  # fmt: skip

# Any script, no control characters and no line separators: those are refused, see below.
letters = st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"])
lines = st.text(letters, max_size=200)
bodies = st.text(st.one_of(letters, st.sampled_from("\n\n\t.=")), max_size=1500)
names = st.text(st.one_of(letters, st.sampled_from(" \"',;<>()@\\")), max_size=64)
addresses = st.one_of(
    st.from_regex(
        r"[a-z0-9!#$%&'*+/=?^_{|}~-]{1,20}(\.[a-z0-9]{1,10})?@[a-z0-9]{1,20}\.example",
        fullmatch=True,
    ),
    st.sampled_from(
        ['"a, b"@example.com', "o'brien@example.com", "x@bücher.example", '"a\\"b"@example.com']
    ),
)


def assembled(
    name="Ana", email="ana@example.com", subject="Hi", html="<p>Hi</p>", text="Hi", sender=SENDER
):
    return Assembler(sender).assemble(
        RecipientView("user-1", email, name), Rendered(subject, "", html, text), ID, URL, DATE
    )


def read(data):
    return message_from_bytes(data, policy=policy.default)


def slow(name, email, subject, html, text):
    """The same mail by the standard library, read back from its bytes."""
    local, _, domain = email.rpartition("@")
    message = EmailMessage(policy=policy.SMTP)
    message["Subject"] = subject
    address = f"{local}@{domain.encode('idna').decode()}"
    message["To"] = Address(display_name=name, addr_spec=address)
    message.set_content(text, cte="base64")
    message.add_alternative(html, subtype="html", cte="base64")
    return read(bytes(message))


def bodies_of(message):
    return [message.get_body([kind]).get_content() for kind in ("plain", "html")]


def shown_name(data):
    """The recipient's name by the older reader: the newer one adds blanks between encoded words."""
    name, _ = parseaddr(message_from_bytes(data)["To"])
    return str(make_header(decode_header(name)))


@settings(max_examples=300, deadline=None)
@given(names, addresses, lines, bodies, bodies)
@example("=?utf-8?b?QQ==?=", "a@example.com", "=?utf-8?q?spoof?= x", "=?", "=?")
@example('Ana "Q", Jr.', "a@example.com", "x" * 500, "", ".\n..\n")
@example("é" * 64, "a@example.com", "a " * 200, "x" * 5000, "é" * 3000)
@example("", "a@example.com", "price: 3,49 € " * 20, "\n\n", " trailing \n\t\n")
def test_the_parser_reads_the_same_as_from_an_email_message(name, email, subject, html, text):
    name, subject = " ".join(name.split()), " ".join(subject.split())
    data = assembled(name, email, subject, html, text)

    message = read(data)

    assert message["Subject"] == subject
    assert shown_name(data) == name
    assert not message.defects
    assert_wire_format(data)
    expected = slow(name, email, subject, html, text)
    assert bodies_of(message) == bodies_of(expected)
    assert message["To"].addresses[0].addr_spec == expected["To"].addresses[0].addr_spec
    # The standard library loses or adds blanks around the encoded words that it writes itself:
    # where it reads its own header right, it must read the same in ours.
    if expected["Subject"] == subject:
        assert message["Subject"] == expected["Subject"]


def assert_wire_format(data):
    assert data.isascii()
    assert b"\n" not in data.replace(b"\r\n", b"")
    assert b"\r" not in data.replace(b"\r\n", b"")
    assert max(map(len, data.split(b"\r\n"))) <= 78
    assert data.endswith(b"--\r\n")


def test_every_header_is_there_exactly_once():
    message = read(assembled())

    assert {name: len(message.get_all(name, [])) for name in ONCE} == dict.fromkeys(ONCE, 1)
    assert sorted(message.keys()) == sorted(ONCE)


def test_unsubscribing_is_one_click_by_web_and_possible_by_mail():
    message = read(assembled())

    assert message["List-Unsubscribe"] == (
        "<https://shop.example/u/TOKEN>, <mailto:unsubscribe@shop.example?subject=TOKEN>"
    )
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


def test_text_comes_first_and_html_last():
    kinds = [part.get_content_type() for part in read(assembled()).iter_parts()]

    assert kinds == ["text/plain", "text/html"]


def test_the_sender_s_name_may_hold_anything_printable():
    sender = Sender('Jürgen, "der" Händler', "news@shop.example")

    found = read(assembled(sender=sender))["From"].addresses[0]

    assert found.display_name == 'Jürgen, "der" Händler'
    assert found.addr_spec == "news@shop.example"


def test_the_same_arguments_give_the_same_bytes():
    assert assembled() == assembled()


@pytest.mark.parametrize(
    "bad", ["\r\nBcc: x@example.com", "\n", "\r", "\0", "\x85", "\u2028", "\x0b", "\ud800"]
)
def test_no_value_can_start_another_header(bad):
    with pytest.raises(ConfigError, match="Subject has a forbidden character"):
        assembled(subject=f"Hi{bad}x")
    with pytest.raises(ConfigError, match="forbidden character"):
        assembled(name=f"Ana{bad}x")
    with pytest.raises(ConfigError, match="forbidden character"):
        assembled(email=f"ana{bad}@example.com")
    for field in ("from_name", "from_email", "list_id", "feedback_id", "reply_to"):
        with pytest.raises(ConfigError, match="forbidden character"):
            Assembler(
                Sender(
                    **{"from_name": "a", "from_email": "a@example.com", field: f"a{bad}@x.example"}
                )
            )


@pytest.mark.parametrize(
    "url", ["https://x.example/>, <mailto:a@b>", "javascript:x", "https://x.example/a b", ""]
)
def test_unsubscribe_addresses_are_plain_urls(url):
    with pytest.raises(ConfigError):
        Assembler(SENDER).assemble(
            RecipientView("u", "a@example.com"), Rendered("s", "", "h", "t"), ID, url, DATE
        )


@pytest.mark.parametrize("given_id", ["abc", "<a>", "<a@b>\r\nX: y", "<a b@c>", ""])
def test_message_ids_are_well_formed(given_id):
    with pytest.raises(ConfigError, match="Message-ID"):
        Assembler(SENDER).assemble(
            RecipientView("u", "a@example.com"), Rendered("s", "", "h", "t"), given_id, URL, DATE
        )


@pytest.mark.parametrize(
    "email",
    [
        "",
        "ana",
        "@example.com",
        "a@",
        "a b@example.com",
        "é@example.com",
        "a@b>,<c@d",
        "x" * 65 + "@a.example",
    ],
)
def test_what_is_no_address_is_refused(email):
    with pytest.raises(ConfigError, match="not an address"):
        assembled(email=email)


def test_a_recipient_has_one_message_id_in_a_campaign():
    assert message_id(Mac(KEY), "weekly", "user-1", "shop.example") == ID
    others = {
        message_id(Mac(KEY), "weekly", "user-2", "shop.example"),
        message_id(Mac(KEY), "weeklyuser", "-1", "shop.example"),
        message_id(Mac(KEY), "weekl", "yuser-1", "shop.example"),
        message_id(Mac(KEY[::-1]), "weekly", "user-1", "shop.example"),
    }
    assert len(others | {ID}) == 5
    assert re.fullmatch(r"<[a-z2-7]{32}@shop\.example>", ID)


def test_a_bounce_finds_its_mail_by_the_return_path():
    path = return_path(ID, "bounce.shop.example")

    local, domain = path.split("@")
    assert (f"<{local.removeprefix('bounces+')}@shop.example>", domain) == (
        ID,
        "bounce.shop.example",
    )
    assert len(local) <= 64


def test_a_moment_is_written_in_its_own_zone_even_after_another_one():
    mails = [
        Assembler(SENDER).assemble(
            RecipientView("u", "a@example.com"), Rendered("s", "", "h", "t"), ID, URL, date
        )
        for date in (DATE, DATE.astimezone(timezone(timedelta(hours=2))), DATE)
    ]

    assert [message_from_bytes(mail)["Date"] for mail in mails] == [
        "Tue, 24 Nov 2026 09:30:00 +0000",
        "Tue, 24 Nov 2026 11:30:00 +0200",
        "Tue, 24 Nov 2026 09:30:00 +0000",
    ]
