"""Preference and unsubscribe pages over real stores, in a real browser where there is one."""

import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from reco.campaigns.store import CampaignStore
from reco.embedded import Services
from reco.models.slates import Reason
from reco.subscribers.interests import interests_of
from reco.subscribers.store import SubscriberStore
from reco.subscribers.suppression import SuppressionList
from render.links import Link, LinkKind, LinkSigner
from serve import preferences, problems, public
from serve.chunks import Choice, Mode, Request
from serve.metrics import Meters
from serve.preferences import PreferencePage
from serve.readers import Readers
from serve.stores import Stores
from tests.browser import open_page
from tests.serving import free_port
from tests.small_world import World, campaign, small_world
from tests.stages import Stages

ASKED = ("aisle 1", "aisle 3")


@dataclass
class RecordingBus:
    """Keeps what was appended."""

    shards: int = 4

    def __post_init__(self) -> None:
        self.events: list[dict] = []

    def append(self, events) -> None:
        self.events += [json.loads(payload) for _, payload in events]


@dataclass
class Site:
    """The public pages of a shop."""

    url: str
    world: World
    bus: RecordingBus
    stores: Stores

    def path(self, kind: LinkKind, user: str = "u05", number: int = 0) -> str:
        signer = LinkSigner(self.world.services.link_key)
        return f"{self.url}/{kind.value}/{signer.sign(Link(kind, 'spring', user, number))}"

    def interests(self, user: str = "u05") -> tuple[str, ...]:
        person = SubscriberStore(self.world.engine).get([user])[0]
        assert person
        return interests_of(person)

    def suppressed(self, user: str = "u05") -> bool:
        found = SuppressionList(self.world.engine, self.world.services.link_key)
        return found.check([f"{user}@mail.example"])[0] is not None


@pytest.fixture
def site(services: Services) -> Iterator[Site]:
    port = free_port()
    with small_world(services) as world:
        stores = Stores(str(services.home))
        stores.services = replace(stores.services, public_url=f"http://127.0.0.1:{port}")
        CampaignStore(world.engine).create(campaign(interests=ASKED))
        bus = RecordingBus()
        app = FastAPI()
        problems.install(app)
        app.include_router(public.router(Readers(stores), Meters()))
        app.include_router(preferences.router(PreferencePage(stores, bus)))
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                thread.join(0.02)
            yield Site(f"http://127.0.0.1:{port}", world, bus, stores)
        finally:
            server.should_exit = True
            thread.join()
            stores.close()


async def posted(path: str, app: FastAPI) -> tuple[int, int]:
    """Status of a form of 200 parts of 1 KB, and how many of them were read."""
    read = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(200):
            read += 1
            yield b"x" * 1_024

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://reco") as client:
        answer = await client.post(path, content=parts())
    return answer.status_code, read


async def test_a_form_is_read_no_further_than_it_may_be_long(site):
    app = FastAPI()
    problems.install(app)
    app.include_router(preferences.router(PreferencePage(site.stores, site.bus)))
    path = site.path(LinkKind.PREFERENCES).removeprefix(site.url)

    status, read = await posted(path, app)

    assert 413 == status
    assert preferences.MOST_BYTES / 1_024 < read < 200
    assert (404, 0) == await posted("/p/forged", app)
    assert () == site.interests()


def test_following_links_changes_nothing_however_often_scanners_do(site):
    with httpx.Client() as client:
        for number in (0, 1, 2):
            for method in ("GET", "HEAD"):
                client.request(method, site.path(LinkKind.PREFERENCES, number=number))
        for method in ("GET", "HEAD"):
            client.request(method, site.path(LinkKind.UNSUBSCRIBE))

    assert () == site.interests()
    assert not site.suppressed()
    assert not site.bus.events


def test_an_answer_is_stored_with_the_profile_and_as_events(site):
    answer = httpx.post(
        site.path(LinkKind.PREFERENCES, number=1), data={"interest": ["aisle 3", "never heard of"]}
    )

    assert 200 == answer.status_code
    assert ("aisle 3",) == site.interests()
    event = site.bus.events[0]
    assert ("preference", "u05", {"category": "aisle 3"}) == (
        event["type"],
        event["user_id"],
        event["attributes"],
    )
    httpx.post(site.path(LinkKind.PREFERENCES), data={})
    assert () == site.interests()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_forged_or_wrong_link_is_not_found_and_stores_nothing(site, method):
    good = site.path(LinkKind.PREFERENCES)
    other = site.path(LinkKind.UNSUBSCRIBE).rsplit("/", 1)[1]
    for url in (good[:-1], f"{site.url}/p/{other}", site.path(LinkKind.PREFERENCES, number=9)):
        answer = httpx.request(
            method, url, data={"interest": "aisle 1"} if method == "POST" else None
        )
        assert 404 == answer.status_code
    assert () == site.interests()


def test_one_click_suppresses_at_once_and_twice_is_once(site):
    """The list is asked anew for each chunk: every worker knows once the answer is sent."""
    stages = Stages(site.world)
    spec = campaign()
    request = Request(
        Choice.of(spec), ["u05"], ["personal"], Mode.SEND, spec.model_dump_json().encode()
    )
    assert stages.assemble(request).deliveries == ["u05"]

    for _ in range(2):
        answer = httpx.post(site.path(LinkKind.UNSUBSCRIBE), data={"List-Unsubscribe": "One-Click"})
        assert (200, []) == (answer.status_code, answer.history)

    withheld = Stages(site.world).assemble(request).withheld
    assert [("u05", "unsubscribe")] == [(w.delivery, w.reason) for w in withheld]


def test_new_subscribers_are_asked_and_what_they_say_leads_their_next_mail(site):
    """Without a model nobody has picks of their own: all are new."""
    stages = Stages(site.world)
    spec = campaign(interests=ASKED)
    request = Request(
        Choice.of(spec), ["u05", "u06"], ["personal", "control"], Mode.CHECK,
        spec.model_dump_json().encode(),
    )  # fmt: skip
    before = stages.assemble(request)
    assert before.rendered[0].html.count("/p/") == 3
    assert ">aisle 1</a>" in before.rendered[0].html
    assert ">aisle 1</a>" not in before.rendered[1].html

    httpx.post(site.path(LinkKind.PREFERENCES), data={"interest": ["aisle 1", "aisle 3"]})
    after = Stages(site.world).assemble(request)

    aisles = [int(item[-2:]) % 5 for item in after.item_ids[0]]
    assert [1, 3, 1] == aisles
    assert [Reason.ASKED] * 3 == after.slates.reasons[0].tolist()
    assert "Because you asked for aisle 1" in after.rendered[0].html
    assert before.item_ids[1] == after.item_ids[1]


def test_a_reader_ticks_and_saves_in_a_browser(site, tmp_path):
    with open_page(tmp_path) as page:
        page.resize(320)
        page.open(site.path(LinkKind.PREFERENCES, number=2))
        ticked = "[...document.querySelectorAll('input:checked')].map(i => i.value).join()"
        assert "aisle 3" == page.run(ticked)
        assert not page.run("document.documentElement.scrollWidth > 320")
        assert () == site.interests()

        page.run("document.querySelector('input[value=\"aisle 1\"]').click()")
        page.press("button")
        assert "Saved" == page.run("document.querySelector('h1').innerText")
        assert ASKED == site.interests()

        page.open(site.path(LinkKind.PREFERENCES))
        assert "aisle 1,aisle 3" == page.run(ticked)
        page.press("a")
        assert "Unsubscribe" == page.run("document.querySelector('h1').innerText")
        assert not site.suppressed()
        page.press("button")
        assert "Done" == page.run("document.querySelector('h1').innerText")
        assert site.suppressed()
