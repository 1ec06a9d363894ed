"""Pictures of the moment of opening: right words, and always a real image."""

import io
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reco.campaigns.store import CampaignStore
from reco.embedded import Services
from render.links import Link, LinkKind, LinkSigner
from render.live_images import (
    COUNTDOWN,
    HEIGHT,
    WIDTH,
    availability,
    countdown,
    draw,
    neutral,
    words_of,
)
from serve import problems
from serve.chunks import Choice, Mode, Request
from serve.live import LivePictures, router
from serve.stores import Stores
from tests.small_world import World, campaign, small_world
from tests.stages import Stages

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (timedelta(days=2, hours=4, minutes=3), "Ends in 2 days 4 hours"),
        (timedelta(days=1), "Ends in 1 day"),
        (timedelta(hours=1, minutes=30, seconds=59), "Ends in 1 hour 30 minutes"),
        (timedelta(seconds=20), "Ends in 0 minutes"),
        (timedelta(seconds=-1), "This offer has ended"),
    ],
)
def test_the_time_left_is_said_in_words(left, words):
    assert words == words_of(left)[0]
    assert draw(*words_of(left)) == countdown(NOW + left, NOW)


@pytest.mark.parametrize(
    ("price", "stock", "words"),
    [
        ("$3.49", None, "$3.49 · in stock"),
        ("$3.49", 3.0, "$3.49 · only 3 left"),
        ("", 100.0, "In stock"),
    ],
)
def test_price_and_stock_are_said_in_words(price, stock, words):
    assert draw(words) == availability(price, stock)
    assert draw("Sold out", faint=True) == availability(price, 0)


@given(st.text(max_size=300))
def test_any_words_make_a_small_picture_of_the_same_size(words):
    png = draw(words)

    assert (WIDTH, HEIGHT) == Image.open(io.BytesIO(png)).size
    assert len(png) < 100_000


@pytest.fixture
def world(services: Services) -> Iterator[World]:
    with small_world(services) as world:
        yield world


@pytest.fixture
async def client(world: World):
    CampaignStore(world.engine).create(campaign(offer_ends_at="2999-01-01T00:00:00Z"))
    CampaignStore(world.engine).create(campaign("endless"))
    stores = Stores(str(world.services.home))
    app = FastAPI()
    problems.install(app)
    app.include_router(router(LivePictures(stores)))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://reco"
    ) as client:
        yield client
    stores.close()


def path(world: World, item: str = "", number: int = 0, campaign_id: str = "spring") -> str:
    signer = LinkSigner(world.services.link_key)
    return f"/i/{signer.sign(Link(LinkKind.IMAGE, campaign_id, item, number))}"


async def test_a_picture_tells_what_is_true_now_and_is_never_kept(world, client):
    item = await client.get(path(world, "item-03"))
    clock = await client.get(path(world, number=COUNTDOWN))

    assert draw("$4.00 · in stock") == item.content
    assert draw("Sold out", faint=True) == (await client.get(path(world, "item-59"))).content
    assert neutral() != clock.content
    for answer in (item, clock):
        assert (200, "image/png") == (answer.status_code, answer.headers["content-type"])
        assert "no-cache, no-store, must-revalidate, max-age=0" == answer.headers["cache-control"]


async def test_whatever_is_wrong_the_answer_is_a_real_picture(world, client):
    good = path(world, "item-03")
    other = LinkSigner(b"x" * 32).sign(Link(LinkKind.IMAGE, "spring", "item-03"))
    wrong = [good[:-1], "/i/x", f"/i/{other}", path(world, "gone"), path(world)]
    wrong += [path(world, "item-03", campaign_id="missing"), path(world, number=7)]
    wrong += [path(world, number=COUNTDOWN, campaign_id="endless")]

    for url in wrong:
        answer = await client.get(url)
        assert (200, neutral()) == (answer.status_code, answer.content), url


async def test_a_store_that_is_slow_or_gone_costs_a_picture_of_nothing(world, monkeypatch):
    class Slow:
        def picture(self, token: str) -> bytes:
            time.sleep(0.4)
            return b"too late"

    app = FastAPI()
    app.include_router(router(Slow()))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://reco"
    ) as client:
        answer = await client.get("/i/x")

    assert (200, neutral()) == (answer.status_code, answer.content)


def test_mails_carry_pictures_that_name_nobody(world):
    spec = campaign(
        offer_ends_at="2999-01-01T00:00:00Z",
        segments=[{"name": "buyer", "when": {"region": ["north", "south"]}}],
    )
    body = spec.model_dump_json().encode()
    made = Stages(world).assemble(
        Request(Choice.of(spec), ["u05", "u06"], ["personal"] * 2, Mode.CHECK, body)
    )
    clock = world.services.public_url + path(world, number=COUNTDOWN)

    assert all(clock in mail.html for mail in made.rendered)
