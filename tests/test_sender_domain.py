"""A sender's domain judged by its records, on a name server on loopback."""

from collections.abc import Iterator

import pytest

from reco.campaigns.sender_domain import Judged, SenderDomain
from tests.name_server import NameServer, running_name_server

SPF = {"MX": ["10 mx.shop.example."], "TXT": ['"google=1"', '"v=spf1 include:relay.example -all"']}
DMARC = {"TXT": ['"v=DMARC1; p=none; rua=mailto:d@shop.example"']}
KEY = ("reco._domainkey.shop.example", "v=DKIM1; k=rsa; p=MIIBAAAA")
DKIM = {"TXT": ['"v=DKIM1; k=rsa; " "p=MIIB" "AAAA"']}
GOOD = {"shop.example": SPF, "_dmarc.shop.example": DMARC, KEY[0]: DKIM}


@pytest.fixture
def dns() -> Iterator[NameServer]:
    with running_name_server() as server:
        server.zones |= GOOD
        yield server


def judged(dns: NameServer, domain: str = "shop.example", dkim=KEY) -> Judged:
    return SenderDomain(dns.address, timeout_s=0.5).judge(domain, dkim)


def test_a_domain_in_order_has_no_problems(dns):
    assert Judged((), ()) == judged(dns)


@pytest.mark.parametrize(
    ("name", "zone", "says"),
    [
        ("shop.example", {"MX": ["10 mx.shop.example."]}, "has no SPF record"),
        ("shop.example", SPF | {"TXT": ['"v=spf1 -all"', '"v=spf1 mx"']}, "more than one (2) SPF"),
        ("shop.example", SPF | {"TXT": ['"v=spf1 mx +all"']}, "lets everybody send"),
        ("shop.example", SPF | {"TXT": ['"V=SPF1 MX +ALL"']}, "lets everybody send"),
        ("shop.example", SPF | {"MX": ["0 ."]}, "No bounce comes back"),
        ("_dmarc.shop.example", {}, "has no DMARC record"),
        ("_dmarc.shop.example", {"TXT": ['"v=DMARC1; rua=mailto:d@x.y"']}, "names no policy"),
        (KEY[0], {}, "no DKIM key at reco._domainkey.shop.example; publish TXT v=DKIM1"),
        (KEY[0], {"TXT": ['"v=DKIM1; p="']}, "no DKIM key"),
        (KEY[0], {"TXT": ['"v=DKIM1; p=MIIBBBBB"']}, "not the one that signs"),
    ],
)
def test_each_record_that_is_missing_or_wrong_is_one_problem(dns, name, zone, says):
    dns.zones[name] = zone

    (problem,) = judged(dns).problems
    assert says in problem


def test_a_subdomain_is_under_the_policy_of_its_domain(dns):
    dns.zones["news.shop.example"] = SPF

    assert () == judged(dns, "news.shop.example").problems


def test_a_relay_that_signs_is_a_note(dns):
    found = judged(dns, dkim=None)

    assert () == found.problems
    assert "left to the relay" in found.notes[0]


def test_a_name_server_that_fails_proves_nothing(dns):
    dns.faults |= dict.fromkeys(GOOD, "servfail")
    found = judged(dns)

    assert () == found.problems
    assert ["SPF", "DMARC", "DKIM", "MX"] == [note.split()[0] for note in found.notes]
