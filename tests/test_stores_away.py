"""A full disk and a database that is gone stop a campaign, and it says why; Redis stops nobody."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy.engine import make_url

from reco.campaigns.decisions import DecisionLog, records
from reco.campaigns.ledger import Ledger
from reco.campaigns.starting import start
from reco.campaigns.store import CampaignState, CampaignStore
from reco.embedded import Services
from reco.errors import ServiceUnavailable
from reco.events.lake import Lake
from reco.features.online import FeaturesMeta, OnlineStore
from reco.impatient import ImpatientRedis
from reco.outcomes.returned import ReturnedMail
from reco.processes import free_port, stop
from reco.servers import Valkey, await_ready, valkey_binary
from reco.subscribers.suppression import SuppressionList
from reco.tables import item_keys
from serve.metrics import Meters
from serve.pausing import pausing
from serve.popular import Popular
from serve.senders import SenderOrder, open_sender
from serve.stores import Stores
from tests.conftest import open_folder
from tests.small_world import MAILED, USERS, World, small_world
from tests.smtpd import SmtpSink
from tests.test_sender import Post

# What PostgreSQL says when it cannot make a file longer.
FULL = """
    create or replace function full_disk() returns trigger language plpgsql as $$ begin
        raise exception 'could not extend file: No space left on device' using errcode = '53100';
    end $$;
    create trigger full_disk before update on deliveries for each row
        when (new.state = 'handing_off') execute function full_disk();
"""
# The same for one delivery that gets into one state.
FULL_FOR = FULL.replace("'handing_off')", "'{state}' and new.user_id = '{user}')")
FREE = "drop trigger if exists full_disk on deliveries; drop function if exists full_disk"


@pytest.fixture
def world(services: Services) -> Iterator[World]:
    with small_world(services) as world:
        yield world


async def send(world: World, post: Post) -> CampaignStore:
    """Run a sender as a campaign's driver does, until it stops by itself."""
    store = CampaignStore(world.engine)
    start(store, post.campaign)
    with pytest.raises(ServiceUnavailable), pausing(store, post.campaign.id):
        async with post.sender() as sender:
            await asyncio.wait_for(sender.run(), 60)
    return store


async def test_a_full_disk_pauses_the_campaign_and_after_it_nobody_is_missing(world, smtp_sink):
    post = Post(world, smtp_sink.url)
    with post.ledger:
        with world.engine.begin() as connection:
            connection.exec_driver_sql(FULL)
        try:
            store = await send(world, post)
        finally:
            with world.engine.begin() as connection:
                connection.exec_driver_sql(FREE)
        stopped = store.get(post.campaign.id)
        post.ledger.recover(post.campaign.id)

        assert stopped.state is CampaignState.PAUSED
        assert "No space left on device" in (stopped.note or "")
        assert not smtp_sink.messages
        with world.engine.begin() as connection:
            connection.exec_driver_sql("update deliveries set lease_until = now() - interval '1 s'")
        counts = await post.send_all()
    assert sum(counts.values()) == len(USERS)
    assert counts["accepted"] == len(smtp_sink.messages)


@pytest.mark.parametrize(("state", "place"), [("handing_off", -1), ("accepted", 1)])
async def test_what_the_relay_took_before_the_disk_was_full_is_not_forgotten(
    world, smtp_sink, state, place
):
    suppressions = SuppressionList(world.engine, world.services.link_key)
    post = Post(world, smtp_sink.url, id=f"disk-{state}")  # records of its own
    log = DecisionLog(Lake(world.services.lake), post.campaign.id)
    with post.ledger:
        claim = post.ledger.claim_these(post.campaign.id, MAILED)
        first, last = claim.deliveries[0].user_id, claim.deliveries[place].user_id
        smtp_sink.fault("mailbox_unavailable", recipient=f"{first}@mail.example")
        with world.engine.begin() as connection:
            connection.exec_driver_sql(FULL_FOR.format(state=state, user=last))
        try:
            returned = ReturnedMail(world.engine, suppressions)
            more = {"decisions": log, "returned": returned, "rate_per_s": 20}  # groups of 20
            async with log.watching(), post.sender(**more) as sender:
                with pytest.raises(ServiceUnavailable):
                    await sender.send_chunk(claim)
        finally:
            with world.engine.begin() as connection:
                connection.exec_driver_sql(FREE)

    written = records(Lake(world.services.lake), post.campaign.id).filter(fence=claim.fence)
    assert suppressions.check([f"{first}@mail.example"]) != [None]
    assert len(written) == len(smtp_sink.messages) + 1 == 20


class Wire:
    """Forwards connections to a server, until it is cut."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close everything; nobody gets through any more."""
        for end in (self._listener, *self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ends = (self._listener.accept()[0], socket.create_connection(self._server))
                self._open += ends
                for one, other in (ends, ends[::-1]):
                    threading.Thread(target=_copy, args=(one, other), daemon=True).start()


def _copy(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(65_536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)


@contextmanager
def cut_when(sink: SmtpSink, wire: Wire, mails: int) -> Iterator[None]:
    """Cut the wire once so many mails have arrived."""

    def watch() -> None:
        while len(sink.messages) < mails and not ended.wait(0.005):
            pass
        wire.cut()

    ended = threading.Event()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


async def test_a_database_that_goes_away_pauses_the_campaign_and_nobody_gets_two(world, smtp_sink):
    url = make_url(world.services.database_url)
    wire = Wire(url.host or "", url.port or 0)
    post = Post(world, smtp_sink.url)
    direct = post.ledger
    away = url.set(host="127.0.0.1", port=wire.port).render_as_string(hide_password=False)
    with direct, cut_when(smtp_sink, wire, 5), Ledger(away) as post.ledger:
        store = await send(world, post)
    stopped = store.get(post.campaign.id)

    assert stopped.state is CampaignState.PAUSED
    assert "database does not answer" in (stopped.note or "")
    with world.engine.begin() as connection:
        connection.exec_driver_sql("update deliveries set lease_until = now() - interval '1 s'")
    post.ledger = direct
    with direct:
        counts = await post.send_all()
    arrived = [message.rcpt_to for message in smtp_sink.messages]
    assert (
        len(set(arrived)) == len(arrived) == counts.get("accepted", 0) + counts.get("uncertain", 0)
    )
    assert sum(counts.values()) == len(USERS)


async def test_a_replica_that_starts_while_redis_is_away_sends(
    world, smtp_sink, monkeypatch, request
):
    monkeypatch.setenv("RECO_REDIS_URL", f"redis://127.0.0.1:{free_port()}")
    stores = Stores(str(world.services.home))
    request.addfinalizer(stores.close)
    post = Post(replace(world, online=stores.online), smtp_sink.url)
    order = SenderOrder(
        home=str(world.services.home), smtp_url=smtp_sink.url, spec=b"", scorer_budget_s=1,
        rate_per_s=None, lease_s=30,
    )  # fmt: skip
    with post.ledger:
        async with open_sender(post.campaign, order, stores, post, Meters()) as sender:  # type: ignore[arg-type] # all it asks of a graph is to assemble
            claim = post.ledger.claim(post.campaign.id, len(USERS), 30)
            await sender.send_chunk(claim)
        counts = post.ledger.counts(post.campaign.id)

    assert counts["accepted"] == len(smtp_sink.messages) == len(MAILED)


def test_a_redis_that_refuses_the_login_stops_a_replica(world, monkeypatch):
    away = make_url(world.services.redis_url).set(password="wrong")
    monkeypatch.setenv("RECO_REDIS_URL", away.render_as_string(hide_password=False))
    stores = Stores(str(world.services.home))
    try:
        with pytest.raises(ServiceUnavailable, match="refuses the login"):
            _ = stores.redis
    finally:
        stores.close()


def test_popular_items_are_shown_soon_after_redis_is_there():
    port, later = free_port(), "later"
    client = ImpatientRedis.of(f"redis://:{later}@127.0.0.1:{port}/0", 0.5)
    online, keys = OnlineStore(client), item_keys(["a", "b"])
    popular = Popular(online)
    assert not len(popular.keys())
    with open_folder() as folder:
        server = Valkey(folder / "valkey", later, valkey_binary())
        process = server.start(port)
        try:
            await_ready(server, process)
            online.write_meta(FeaturesMeta(datetime(2026, 1, 1, tzinfo=UTC), 1, keys))
            deadline = time.monotonic() + 20  # a list that was read is kept for three times as long
            while not len(popular.keys()) and time.monotonic() < deadline:
                time.sleep(0.1)

            assert popular.keys().tolist() == keys.tolist()
        finally:
            client.close()
            stop(process, server.stop_signal)
