"""The real mails of a campaign: headers that providers ask for, signatures, variables, reasons."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes
from email.policy import default

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from reco.embedded import Services, open_services
from reco.errors import ConfigError
from reco.models.slates import Reason
from reco.settings import Settings
from serve.assembling import MailMaker
from serve.chunks import Choice, Mode, Request
from serve.letterhead import dkim_of, feedback_id, renderer_of, sender_id, sender_of, try_template
from tests.small_world import MAILED, World, campaign, small_world
from tests.stages import Stages

ONCE = (
    "From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "List-ID", "List-Unsubscribe",
    "List-Unsubscribe-Post", "Feedback-ID", "DKIM-Signature", "Content-Type",
)  # fmt: skip


@pytest.fixture(scope="module")
def world(services: Services) -> Iterator[World]:
    with small_world(services, more=170) as world:
        yield world


@pytest.fixture(scope="module")
def stages(world: World) -> Stages:
    return Stages(world)


@pytest.fixture(scope="module")
def pem() -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def request(users, **changes) -> Request:
    spec = campaign(**changes)
    arms = ["personal"] * len(users)
    return Request(Choice.of(spec), list(users), arms, Mode.CHECK, spec.model_dump_json().encode())


def test_two_hundred_signed_mails_meet_what_providers_ask_for(stages, world, pem):
    signing = replace(world.services, dkim_key=pem, dkim_selector="s2026")
    stages.maker = MailMaker(world.catalogue, signing)
    users = [*MAILED, *(f"x{n:04d}" for n in range(170))]
    made = stages.assemble(request(users, unsubscribe_email="out@shop.example"))
    signer = dkim_of(campaign(), signing)
    assert signer
    name, record = signer.dns_record()

    def dns(asked, timeout=5):
        return record.encode() if asked.decode().rstrip(".") == name else None

    assert len(made.messages) >= 200
    for message in made.messages:
        mail = message_from_bytes(message, policy=default)
        assert dkim.verify(message, dnsfunc=dns)
        counts = Counter(key.lower() for key in mail)
        assert [1] * len(ONCE) == [counts[header.lower()] for header in ONCE]
        assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert re.fullmatch(
            r"<https?://\S+/u/[\w-]+>, <mailto:out@shop.example\?subject=[\w-]+>",
            mail["List-Unsubscribe"],
        )
        assert mail["List-ID"] == "<spring.shop.example>"
        assert mail["Feedback-ID"] == "spring:spring.shop.example:marketing:shop.example"
        assert not [d for part in mail.walk() for d in part.defects]
        assert max(map(len, message.split(b"\r\n"))) <= 998
        signed = re.search(r"h=([^;]+);", "".join(mail["DKIM-Signature"].split()))
        assert signed
        assert {"list-unsubscribe", "list-unsubscribe-post", "from"} <= set(signed[1].split(":"))


def test_without_a_key_nothing_is_signed(stages, world):
    stages.maker = MailMaker(world.catalogue, world.services)
    made = stages.assemble(request(["u05"]))

    assert dkim_of(campaign(), world.services) is None
    assert b"DKIM-Signature" not in made.messages[0]


def test_the_key_comes_from_the_environment_as_pem_or_as_a_file(home, tmp_path, pem):
    (tmp_path / "key.pem").write_bytes(pem)
    for value in (pem.decode(), str(tmp_path / "key.pem")):
        settings = Settings(home=home, dkim_key=value, dkim_selector="s1")
        with open_services(settings) as opened:
            assert (opened.dkim_key, opened.dkim_selector) == (pem, "s1")
            assert opened.environment()["RECO_DKIM_KEY"] == pem.decode()
            assert "PRIVATE KEY" not in repr(opened)
    with (
        pytest.raises(ConfigError, match="DKIM key cannot be read"),
        open_services(Settings(home=home, dkim_key="/nowhere")),
    ):
        pass


def test_a_bad_key_stops_the_campaign_before_it_starts(world):
    with pytest.raises(ConfigError, match="DKIM key cannot be used"):
        dkim_of(campaign(), replace(world.services, dkim_key=b"nonsense"))


def test_the_brand_is_the_sender_s_unless_the_campaign_says_otherwise(stages, world):
    stages.maker = MailMaker(world.catalogue, world.services)
    plain = stages.assemble(request(["u05"])).rendered[0].html
    spec = {"variables": {"brand": {"home_url": "https://other.example/"}}}
    own = stages.assemble(request(["u05"], campaign_id="own", **spec)).rendered[0].html

    assert '<a href="https://shop.example/"' in plain
    assert ">Corner Shop</a>" in plain
    assert '<a href="https://other.example/"' in own
    assert ">Corner Shop</a>" in own
    with pytest.raises(ConfigError, match="no variables colour"):
        renderer_of(campaign(variables={"colour": "red"}))


def test_a_line_break_in_a_name_or_title_costs_no_mail(stages, world):
    with world.engine.begin() as connection:
        connection.exec_driver_sql(
            "update subscribers set first_name = E'Eve\\nBcc: x@y.example' where user_id = 'u07'"
        )
    made = stages.assemble(request(["u07"], subject="For {{ user.first_name }}"))
    mail = message_from_bytes(made.messages[0], policy=default)

    assert mail["Subject"] == "For Eve Bcc: x@y.example"
    assert mail["Bcc"] is None


def test_a_repeat_says_how_often(stages, world):
    """Everybody bought their own items ten days apart."""
    chunk = stages.reader.read(request(["u05"], as_of="2017-12-04T00:00:00Z"))
    picked = stages.picker.pick(chunk, stages.scoring.score(chunk))
    mine = world.catalogue.index.rows(chunk.histories.records["item"][:1])
    slates = picked.slates
    slates.items[0, 0] = world.catalogue.keys[mine[0]]
    slates.reasons[0, 0] = Reason.REPEAT
    html = stages.maker.make(chunk, picked).rendered[0].html

    assert "You buy this about every week" in html


@pytest.mark.parametrize(
    ("list_id", "header", "feedback"),
    [
        ("News <news.shop.example>", "News <news.shop.example>", "news.shop.example"),
        ("news.shop.example", "<news.shop.example>", "news.shop.example"),
        ("a:b c", "<a:b c>", "a-b-c"),
    ],
)
def test_list_and_feedback_ids_are_well_formed(list_id, header, feedback):
    spec = campaign(list_id=list_id)

    assert sender_of(spec).list_id == header
    assert feedback_id(spec) == f"spring:{feedback}:marketing:shop.example"


@pytest.mark.parametrize(
    ("domain", "sender"),
    [
        ("shop.example", "shop.example"),
        ("news.shop.example", "shop.example"),
        ("mail.completejourney.example", "completejourney"),
        ("a.io", "a.iox"),
        ("the-longest-of-all-shops.example", "c22057d2f1bc"),
    ],
)
def test_the_sender_for_google_is_never_half_a_word(domain, sender):
    assert sender == sender_id(domain)


def test_a_template_that_hides_picks_is_refused():
    with pytest.raises(ConfigError, match=r"shows 3 of 5 picks"):
        try_template(campaign(picks=5))

    try_template(campaign(picks=3))
