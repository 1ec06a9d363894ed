"""Consent by purpose: all that was said is proof, what was said last is in force."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI

from reco.embedded import Services
from reco.errors import NotFound
from reco.subscribers.consent import Consent, ConsentLog, Purpose
from reco.subscribers.store import SubscriberStore
from render.links import Link, LinkKind, LinkSigner
from serve import problems, subscribers
from serve.chunks import Choice, Mode, Request
from serve.readers import EVENT_STREAM, Readers
from serve.stores import Stores
from tests.small_world import TRACKED, World, campaign, small_world
from tests.stages import Stages

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
def world(services: Services) -> Iterator[World]:
    with small_world(services) as world:
        yield world


def said(purpose: Purpose, given: bool, days: int = 0) -> Consent:
    return Consent(purpose, given, "signup-3", "web form", NOW + timedelta(days=days))


def flags(world: World, user: str) -> tuple[bool, bool, bool]:
    person = SubscriberStore(world.engine).get([user])[0]
    assert person
    return person.consent_mail, person.consent_profiling, person.consent_tracking


def test_each_purpose_stands_alone_and_the_last_word_counts(world):
    log = ConsentLog(world.engine)
    assert (True, True, False) == flags(world, "u05")

    log.record("u05", [said(Purpose.TRACKING, True), said(Purpose.PROFILING, False)])
    assert (True, False, True) == flags(world, "u05")
    log.record("u05", [said(Purpose.TRACKING, False, 1)])
    assert (True, False, False) == flags(world, "u05")


def test_a_statement_that_arrives_late_is_kept_and_changes_nothing(world):
    log = ConsentLog(world.engine)
    log.record("u05", [said(Purpose.MAIL, False)])
    log.record("u05", [said(Purpose.MAIL, True, -1)])

    assert not flags(world, "u05")[0]
    assert [True, False] == [consent.given for consent in log.of("u05")]
    assert {"signup-3"} == {consent.text_version for consent in log.of("u05")}


def test_nobody_unknown_can_consent(world):
    with pytest.raises(NotFound, match="no subscriber nobody"):
        ConsentLog(world.engine).record("nobody", [said(Purpose.MAIL, True)])


@pytest.mark.parametrize(("given", "kinds"), [(True, {"c", "o"}), (False, set())])
def test_without_consent_to_tracking_a_mail_has_no_pixel_and_no_click_links(world, given, kinds):
    ConsentLog(world.engine).record("u05", [said(Purpose.TRACKING, given)])
    spec = campaign()
    body = spec.model_dump_json().encode()
    made = Stages(world).assemble(Request(Choice.of(spec), ["u05"], ["personal"], Mode.CHECK, body))
    mail = made.rendered[0].html + made.rendered[0].text
    root = world.services.public_url

    assert kinds == {kind for kind in "co" if f"{root}/{kind}/" in mail}


def test_no_consent_to_mail_means_no_mail_and_none_to_profiling_no_personal_picks(world):
    log = ConsentLog(world.engine)
    log.record("u05", [said(Purpose.MAIL, False)])
    log.record("u06", [said(Purpose.PROFILING, False)])
    spec = campaign()
    body = spec.model_dump_json().encode()
    request = Request(Choice.of(spec), ["u05", "u06"], ["personal"] * 2, Mode.CHECK, body)
    chunk = Stages(world).reader.read(request)

    assert [("u05", "no_consent")] == [(w.delivery, w.reason) for w in chunk.withheld]
    assert [False] == chunk.personal.tolist()
    assert 0 == len(chunk.histories.records)


def test_who_withdraws_is_not_followed_in_old_mails_either(world):
    stores = Stores(str(world.services.home))
    readers = Readers(stores)
    token = LinkSigner(world.services.link_key).sign(Link(LinkKind.OPEN, "spring", TRACKED))
    stream = world.online._redis
    stream.delete(EVENT_STREAM)

    readers.opened(token, {})
    assert 1 == stream.xlen(EVENT_STREAM)
    ConsentLog(world.engine).record(TRACKED, [said(Purpose.TRACKING, False)])
    readers.opened(token, {})
    assert 1 == stream.xlen(EVENT_STREAM)
    stores.close()


async def test_the_endpoint_records_and_shows_what_was_said(world):
    app = FastAPI()
    problems.install(app)
    app.include_router(subscribers.router(None, ConsentLog(world.engine)), prefix="/v1")
    statement = {"purpose": "tracking", "given": True, "text_version": "t1", "source": "form"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://reco"
    ) as client:
        path = "/v1/subscribers/u05/consent"
        first = await client.post(path, json={"consents": [statement]})
        shown = (await client.get(path)).json()
        wrong = await client.post(path, json={"consents": [statement | {"purpose": "ads"}]})
        unknown = await client.post(path.replace("u05", "nobody"), json={"consents": [statement]})

    assert (200, shown) == (first.status_code, first.json())
    assert [("tracking", True, "t1")] == [
        (c["purpose"], c["given"], c["text_version"]) for c in shown["consents"]
    ]
    assert flags(world, "u05")[2]
    assert (422, 404) == (wrong.status_code, unknown.status_code)
