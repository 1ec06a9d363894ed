"""Who unsubscribes while a campaign runs gets nothing more, whichever sender has their mail."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI

from reco.campaigns.ledger import Ledger
from reco.embedded import Services
from reco.subscribers.suppression import SuppressionList, SuppressionReason
from render.links import Link, LinkKind, LinkSigner
from serve import problems, public
from serve.leavers import Leavers, Left
from serve.metrics import Meters
from serve.readers import Readers
from serve.stores import Stores
from tests.small_world import MAILED, World, small_world
from tests.smtpd import SmtpSink
from tests.test_sender import Post

MORE = 80
SENDERS = 8
LEAVERS = [f"x{n:04d}" for n in range(0, MORE, 2)]


@pytest.fixture
def world(services: Services) -> Iterator[World]:
    with small_world(services, MORE) as world:
        yield world


def arrived(sink: SmtpSink) -> Counter[str]:
    return Counter(message.rcpt_to.partition("@")[0] for message in sink.messages)


def knows(leavers: Leavers, address: str) -> bool:
    try:
        leavers.check(address)
    except Left:
        return True
    return False


async def unsubscribe(world: World, campaign_id: str) -> None:
    """Everybody of LEAVERS by one click, over HTTP."""
    stores, app = Stores(str(world.services.home)), FastAPI()
    problems.install(app)
    app.include_router(public.router(Readers(stores), Meters()))
    signer = LinkSigner(world.services.link_key)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://reco") as client:
        answers = await asyncio.gather(
            *(
                client.post(
                    f"/u/{signer.sign(Link(LinkKind.UNSUBSCRIBE, campaign_id, user))}",
                    data={"List-Unsubscribe": "One-Click"},
                )
                for user in LEAVERS
            )
        )
    stores.close()
    assert {200} == {answer.status_code for answer in answers}


async def test_an_unsubscription_reaches_every_sender(world, smtp_sink, monkeypatch):
    monkeypatch.setattr("serve.sender.CLAIMED_S", 4)  # so that all of them hold some
    post = Post(world, smtp_sink.url)
    post.ledger.enqueue(post.campaign.id, [(f"x{n:04d}", "personal") for n in range(MORE)])
    suppressions = SuppressionList(world.engine, world.services.link_key)
    async with AsyncExitStack() as stack:
        senders = []
        leavers: list[Leavers] = []
        stack.enter_context(post.ledger)
        for _ in range(SENDERS):
            post.ledger = stack.enter_context(Ledger(world.services.database_url))
            leavers.append(Leavers(suppressions))
            sender = post.sender(rate_per_s=4, leavers=leavers[-1])
            senders.append(await stack.enter_async_context(sender))
            await stack.enter_async_context(leavers[-1].watching())
        work = [asyncio.create_task(sender.run()) for sender in senders]
        while len(smtp_sink.messages) < 12:  # noqa: ASYNC110 - the sink rings no bell
            await asyncio.sleep(0.02)
        claimed = post.ledger.counts(post.campaign.id)["claimed"]
        await unsubscribe(world, post.campaign.id)
        addresses = [f"{user}@mail.example" for user in LEAVERS]
        while not all(knows(one, a) for one in leavers for a in addresses):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # what was on the wire arrives
        before = arrived(smtp_sink)
        while post._open() or post.ledger.counts(post.campaign.id)["deferred"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        for sender in senders:
            sender.stop()
        await asyncio.gather(*work)
        rows = post.ledger.rows(post.campaign.id)

    after = arrived(smtp_sink)
    late = [user for user in LEAVERS if after[user] > before[user]]
    states = dict(rows.select("user_id", "state").iter_rows())
    replies = dict(rows.select("user_id", "reply").iter_rows())
    kept_out = [user for user in LEAVERS if not after[user]]
    assert claimed > 0, "the race needs mails that are made and wait"
    assert [] == late
    assert kept_out
    assert {("suppressed", "unsubscribe")} == {(states[u], replies[u]) for u in kept_out}
    stayed = {*MAILED, *(f"x{n:04d}" for n in range(MORE))} - set(LEAVERS)
    assert stayed <= after.keys()
    assert set(after.values()) == {1}


async def test_who_is_suppressed_is_known_by_address_only(world):
    suppressions = SuppressionList(world.engine, world.services.link_key)
    leavers = Leavers(suppressions, every_s=0.01)
    async with leavers.watching(), asyncio.timeout(20):
        suppressions.add(["X0001@mail.example"], SuppressionReason.UNSUBSCRIBE, "test")
        while not knows(leavers, "x0001@mail.example"):  # noqa: ASYNC110 - no bell rings
            await asyncio.sleep(0.01)
        assert not knows(leavers, "x0002@mail.example")


async def test_who_comes_back_to_the_list_has_their_mails_again(world):
    suppressions = SuppressionList(world.engine, world.services.link_key)
    leavers = Leavers(suppressions, every_s=0.01, forget_s=0.01)
    one, other, third = (f"x000{n}@mail.example" for n in range(3))
    async with leavers.watching(), asyncio.timeout(20):
        later = datetime.now(UTC) + timedelta(days=1)
        suppressions.add([one], SuppressionReason.SOFT_BOUNCE, "test", later)
        suppressions.add([other, third], SuppressionReason.UNSUBSCRIBE, "test")
        while not all(knows(leavers, address) for address in (one, other, third)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with world.engine.begin() as connection:
            connection.exec_driver_sql(
                "update suppressions set expires_at = now() where expires_at > now()"
            )
        suppressions.remove(other)
        while knows(leavers, one) or knows(leavers, other):  # noqa: ASYNC110 - no bell rings
            await asyncio.sleep(0.01)
        assert knows(leavers, third)


async def test_who_withdraws_consent_or_is_erased_gets_no_mail_that_waits(world):
    suppressions = SuppressionList(world.engine, world.services.link_key)
    leavers = Leavers(suppressions, world.services.database_url, every_s=0.01)
    async with leavers.watching(), asyncio.timeout(20):
        while not leavers.listens:  # noqa: ASYNC110 - no bell rings
            await asyncio.sleep(0.01)
        with world.engine.begin() as connection:
            connection.exec_driver_sql(
                "update subscribers set consent_mail = user_id <> 'x0001' where user_id < 'x0004'"
            )
            connection.exec_driver_sql("delete from subscribers where user_id = 'x0002'")
        while not {"x0001", "x0002"} <= set(left(leavers)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert left(leavers) == ["x0001", "x0002"]
        with world.engine.begin() as connection:
            connection.exec_driver_sql("update subscribers set consent_mail = true")
        while left(leavers) != ["x0002"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def left(leavers: Leavers) -> list[str]:
    """Those of the first who may not be written to any more."""
    found = []
    for user in (f"x{n:04d}" for n in range(4)):
        try:
            leavers.check(f"{user}@mail.example", user)
        except Left:
            found.append(user)
    return found
