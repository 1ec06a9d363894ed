"""Ten thousand forged and damaged tokens at every public door: nothing leads away or changes."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

from reco.campaigns.store import CampaignStore
from reco.embedded import Services
from render.links import Link, LinkKind, LinkSigner
from serve import live, preferences, problems, public
from serve.metrics import Meters
from serve.preferences import PreferencePage
from serve.readers import EVENT_STREAM, Readers
from serve.stores import Stores
from tests.small_world import TRACKED, World, campaign, small_world
from tests.test_preferences import RecordingBus

TOKENS = 10_000
STATE = (
    "select (select count(*) from suppressions), (select count(*) from bounces), "
    "(select md5(string_agg(s::text, '' order by user_id)) from subscribers s)"
)


@pytest.fixture
def world(services: Services) -> Iterator[World]:
    with small_world(services) as world:
        yield world


def attacks(key: bytes, dice: random.Random) -> Iterator[tuple[str, str]]:
    """Method and path of each attack: cut, flipped, foreign key, another kind, noise, addresses."""
    signer, stranger = LinkSigner(key), LinkSigner(dice.randbytes(32))
    kinds = list(LinkKind)
    for n in range(TOKENS):
        kind = kinds[n % len(kinds)]
        good = signer.sign(Link(kind, "spring", TRACKED, n % 3))
        at = dice.randrange(len(good))
        swapped = "A" if good[at] != "A" else "B"
        token = (
            good[:at],
            good[:at] + swapped + good[at + 1 :],
            good + dice.choice("AZaz09-_"),
            stranger.sign(Link(kind, "spring", TRACKED)),
            signer.sign(Link(kinds[(n + 1) % len(kinds)], "spring", TRACKED)),
            dice.randbytes(dice.randrange(1, 80)).hex(),
            "https:%2F%2Fevil.example",
            "javascript:alert(1)",
        )[n // len(kinds) % 8]
        yield ("POST" if n % 7 == 0 else "GET"), f"/{kind.value}/{token}"


@pytest.mark.slow
async def test_no_token_that_is_not_ours_leads_away_or_changes_anything(world):
    CampaignStore(world.engine).create(campaign(interests=["aisle 1", "aisle 2", "aisle 3"]))
    stores, bus = Stores(str(world.services.home)), RecordingBus()
    app = FastAPI()
    problems.install(app)
    app.include_router(public.router(Readers(stores), Meters()))
    app.include_router(preferences.router(PreferencePage(stores, bus)))
    app.include_router(live.router(live.LivePictures(stores)))
    with world.engine.connect() as connection:
        before = connection.exec_driver_sql(STATE).one()
    world.online._redis.delete(EVENT_STREAM)
    answers: Counter[str] = Counter()
    free = asyncio.Semaphore(16)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://reco"
    ) as client:

        async def attack(method: str, path: str) -> None:
            async with free:
                answer = await client.request(method, path, data={"interest": "aisle 1"})
            picture = answer.headers["content-type"].startswith("image/png")
            answers["picture" if picture and answer.status_code == 200 else "other"] += 1
            assert picture or 400 <= answer.status_code < 500, (method, path, answer.status_code)
            assert "location" not in answer.headers

        tries = attacks(world.services.link_key, random.Random(5))
        await asyncio.gather(*(attack(method, path) for method, path in tries))
    with world.engine.connect() as connection:
        assert before == connection.exec_driver_sql(STATE).one()
    stores.close()

    assert TOKENS == answers.total()
    assert 0 < answers["picture"] < TOKENS / 4
    assert not bus.events
    assert 0 == world.online._redis.xlen(EVENT_STREAM)
