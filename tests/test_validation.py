"""Addresses judged by syntax, words, DNS on loopback, and a verifier on loopback."""

import asyncio
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import httpx
import polars as pl
import pytest
from click.testing import CliRunner
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from reco.cli import main
from reco.errors import ConfigError, ServiceUnavailable
from reco.subscribers.bulk import validate
from reco.subscribers.consent import ConsentLog
from reco.subscribers.flags import PROVIDERS, is_disposable, is_role, suggestion
from reco.subscribers.hygiene import normalise
from reco.subscribers.mail_domains import MailDomains
from reco.subscribers.store import SubscriberStore
from reco.subscribers.suppression import SuppressionList, SuppressionReason
from reco.subscribers.validation import Status, Validator, judge
from reco.subscribers.verifier import HttpVerifier, Opinion
from serve import subscribers
from tests.name_server import NameServer, running_name_server

ZONES = {
    "good.example": {"MX": ["20 b.good.example.", "10 a.good.example."]},
    "null.example": {"MX": ["0 ."]},
    "bare.example": {"A": ["192.0.2.1"]},
    "six.example": {"AAAA": ["2001:db8::1"]},
    "text.example": {"TXT": ["nothing"]},
    "xn--mnchen-3ya.example": {"MX": ["10 mx.example."]},
}


@pytest.fixture
def dns() -> Iterator[NameServer]:
    with running_name_server() as server:
        server.zones |= ZONES
        server.faults |= {"fails.example": "servfail", "silent.example": "silence"}
        yield server


@pytest.fixture
def verifier() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    words = {"gone": "undeliverable", "fine": "deliverable", "odd": "risky"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = parse_qs(urlsplit(self.path).query)["email"][0]
            asked.append(address)
            local = address.partition("@")[0]
            body = json.dumps({"result": words.get(local, "?"), "reason": "rejected_email"})
            self.send_response(500 if local == "broken" else 200)
            self.end_headers()
            self.wfile.write(b"<html>" if local == "html" else body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/?key=k&email={{address}}", asked
        server.shutdown()
        thread.join()


def domains(dns: NameServer, **more) -> MailDomains:
    return MailDomains(dns.address, timeout_s=0.5, **more)


@pytest.mark.parametrize(
    ("domain", "status", "why"),
    [
        ("good.example", Status.VALID, ""),
        ("GOOD.example", Status.VALID, ""),
        ("bare.example", Status.VALID, ""),
        ("six.example", Status.VALID, ""),
        ("münchen.example", Status.VALID, ""),
        ("null.example", Status.INVALID, "the domain takes no mail (null MX)"),
        ("text.example", Status.INVALID, "the domain has no mail server"),
        ("nowhere.example", Status.INVALID, "there is no such domain"),
        ("fails.example", Status.UNKNOWN, "DNS gives no answer (NoNameservers)"),
        ("silent.example", Status.UNKNOWN, "DNS gives no answer (LifetimeTimeout)"),
    ],
)
async def test_dns_decides_only_what_is_certain(dns, domain, status, why):
    checked = await Validator(domains(dns)).check(f"ana@{domain}")

    assert (checked.status, checked.why) == (status, why)


async def test_the_best_server_stands_first(dns):
    verdict = await domains(dns).look_up("good.example")

    assert ("a.good.example", "b.good.example") == verdict.servers


async def test_each_domain_is_asked_once_even_at_the_same_time(dns):
    known = domains(dns)
    addresses = [f"u{n}@good.example" for n in range(500)]

    await asyncio.gather(*(Validator(known).check_many(addresses) for _ in range(3)))

    assert 1 == dns.asked["good.example"]
    assert 1 == known.questions


async def test_an_unknown_domain_is_asked_again_soon_a_known_one_is_not(dns):
    now = [0.0]
    known = domains(dns, clock=lambda: now[0])
    for domain in ("good.example", "fails.example"):
        await known.look_up(domain)
    dns.faults.clear()
    dns.zones["fails.example"] = dns.zones["good.example"]
    assert (await known.look_up("fails.example")).takes_mail is None
    now[0] = 61.0

    assert (await known.look_up("fails.example")).takes_mail is True
    assert (await known.look_up("good.example")).takes_mail is True
    assert 1 == dns.asked["good.example"]


async def test_without_dns_nothing_is_asked(dns):
    checked = await Validator().check_many(["a@nowhere.example", "nobody"])

    assert [Status.VALID, Status.INVALID] == [c.status for c in checked]
    assert not dns.asked


async def test_a_verifier_is_asked_for_what_may_be_written_to_only(dns, verifier):
    url, asked = verifier
    people = ["gone@good.example", "fine@silent.example", "odd@good.example", "x@null.example"]
    people += ["broken@good.example", "html@good.example", "no address"]
    checked = await Validator(domains(dns), HttpVerifier(url)).check_many(people)

    assert ["invalid", "valid", "valid", "invalid", "valid", "valid", "invalid"] == [
        c.status for c in checked
    ]
    assert "rejected email" == checked[0].why
    assert sorted(asked) == sorted([*people[:3], *people[4:6]])


async def test_a_verifier_that_is_down_has_no_opinion():
    opinion = await HttpVerifier("http://127.0.0.1:9/{address}", timeout_s=0.5).verify("a@b.de")

    assert Opinion(None, "the verifier gives no answer (URLError)") == opinion
    with pytest.raises(ConfigError, match="verifier"):
        HttpVerifier("https://api.example/verify")


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("ana@gmial.com", "ana@gmail.com"),
        ("Ana.B@hotmial.com", "Ana.B@hotmail.com"),
        ("ana@yaho.com", "ana@yahoo.com"),
        ("ana@gmail.con", "ana@gmail.com"),
        ("ana@shop.con", "ana@shop.com"),
        ("ana@ymail.com", None),
        ("ana@mail.com", None),
        ("ana@hotmail.es", None),
        ("ana@yahoo.co.jp", None),
        ("ana@gmx.at", None),
        ("ana@aon.at", None),
        ("ana", None),
    ],
)
def test_a_mistake_is_told_a_provider_is_none(address, meant):
    assert meant == suggestion(address)


@given(st.sampled_from(PROVIDERS), st.text("abcdefghij.", max_size=8))
def test_no_provider_is_taken_for_a_mistake(provider, local):
    assert suggestion(f"{local}@{provider}") is None


def test_roles_and_throw_away_domains_are_flags_not_verdicts():
    assert ("role",) == judge("Info+shop@good.example").flags
    assert ("disposable",) == judge("ana@sub.mailinator.com").flags
    assert Status.VALID == judge("ana@mailinator.com").status
    assert is_role("no-reply@a.de")
    assert not is_role("ana@info.example")
    assert not is_disposable("gmail.com")


@pytest.mark.parametrize("address", ["a@b.example\n", "\r\na@b.example", "a@b.example\r\n \r\n"])
def test_a_line_break_makes_an_address_invalid(address):
    assert normalise(address) is None


def test_the_corpus_of_is_email_is_judged_right(corpora):
    lines = (corpora / "email_addresses" / "isemail.jsonl").read_text().splitlines()
    cases = [json.loads(line) for line in lines]
    kinds = {"ISEMAIL_ERR": [], "ISEMAIL_VALID_CATEGORY": [], "ISEMAIL_DNSWARN": []}
    for case in cases:
        kinds.get(case["category"], []).append(case["address"])

    assert (80, 19, 11) == tuple(map(len, kinds.values()))
    assert [] == [a for a in kinds["ISEMAIL_ERR"] if normalise(a)]
    valid = kinds["ISEMAIL_VALID_CATEGORY"] + kinds["ISEMAIL_DNSWARN"]
    assert [] == [a for a in valid if not normalise(a)]


def test_mailcheck_s_mistakes_are_found(corpora):
    lines = (corpora / "email_addresses" / "typo_mailcheck.jsonl").read_text().splitlines()
    for case in map(json.loads, lines):
        found = suggestion(case["address"])
        assert case["expected_domain"] == (found and found.partition("@")[2]), case


def people(*emails: str | None) -> pl.DataFrame:
    ids = [f"u{n:06d}" for n in range(len(emails))]
    return pl.DataFrame({"user_id": ids, "email": emails}, schema_overrides={"email": pl.String})


def test_the_list_is_judged_and_what_no_server_takes_is_suppressed(dns, engine, tmp_path):
    store, key = SubscriberStore(engine), b"k" * 32
    store.upsert(
        people("a@good.example", "b@null.example", None, "c@fails.example", "info@good.example")
    )
    suppressions = SuppressionList(engine, key)
    out = tmp_path / "list.csv"
    summary = validate(store, suppressions, Validator(domains(dns)), out=out)

    assert (4, 2, 1, 1, 1, 1) == (
        summary.addresses,
        summary.valid,
        summary.invalid,
        summary.unknown,
        summary.suppressed,
        summary.role,
    )
    found = suppressions.check(["a@good.example", "b@null.example", "c@fails.example"])
    assert [None, SuppressionReason.INVALID, None] == [f and f.reason for f in found]
    rows = {row["user_id"]: row["status"] for row in pl.read_csv(out).iter_rows(named=True)}
    assert ["valid", "invalid", "unknown", "valid"] == [rows[f"u{n:06d}"] for n in (0, 1, 3, 4)]


def test_a_dns_that_knows_hardly_any_domain_suppresses_nobody(engine, dns):
    store, suppressions = SubscriberStore(engine), SuppressionList(engine, b"k" * 32)
    emails = [f"a{n}@nowhere{n}.example" for n in range(20)]
    users = [f"u{n:02d}" for n in range(20)]
    store.upsert(pl.DataFrame({"user_id": users, "email": emails}))

    with pytest.raises(ServiceUnavailable, match="20 of 20"):
        validate(store, suppressions, Validator(domains(dns)))

    assert not any(suppressions.check(emails))
    assert validate(store, suppressions, Validator(domains(dns)), suppress=False).invalid == 20


@pytest.mark.slow
async def test_a_hundred_thousand_addresses_ask_each_domain_once(dns):
    dns.zones |= {f"d{n}.example": ZONES["good.example"] for n in range(1000)}
    known = MailDomains(dns.address)
    addresses = [f"user{n}@d{n % 1000}.example" for n in range(100_000)]
    checked = await Validator(known).check_many(addresses)

    assert {Status.VALID} == {c.status for c in checked}
    assert 1000 == known.questions


def test_the_command_validates_the_list_of_this_home(dns, home, monkeypatch):
    monkeypatch.setenv("RECO_HOME", str(home))
    csv = home.parent / "people.csv"
    csv.write_text("user_id,email\n1,a@good.example\n2,b@null.example\n")
    runner = CliRunner()
    assert 0 == runner.invoke(main, ["import", "subscribers", str(csv), "--json"]).exit_code
    done = runner.invoke(main, ["subscribers", "validate", "--nameserver", dns.address, "--json"])

    assert 0 == done.exit_code, done.output
    assert (2, 1, 1) == tuple(
        json.loads(done.stdout)[name] for name in ("addresses", "invalid", "suppressed")
    )


async def test_the_endpoint_judges_what_people_type(dns, verifier, engine):
    app = FastAPI()
    app.include_router(
        subscribers.router(verifier[0], ConsentLog(engine), domains(dns)), prefix="/v1"
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://reco") as client:
        body = {"addresses": ["gone@good.example", "Ana@gmial.com", "x"], "dns": False}
        words = (await client.post("/v1/subscribers/validate", json=body)).json()["addresses"]
        full = (
            await client.post("/v1/subscribers/validate", json={"addresses": ["gone@good.example"]})
        ).json()["addresses"]
        refused = await client.post("/v1/subscribers/validate", json={"addresses": []})

    assert ["valid", "valid", "invalid"] == [a["status"] for a in words]
    assert ("Ana@gmail.com", ["disposable"]) == (words[1]["suggestion"], words[1]["flags"])
    assert ("invalid", "rejected email") == (full[0]["status"], full[0]["why"])
    assert 422 == refused.status_code
