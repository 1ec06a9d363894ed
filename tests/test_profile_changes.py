"""serve.profile_changes: a profile or a consent that changes in PostgreSQL changes the row."""

import time
from dataclasses import replace
from datetime import UTC, datetime

import polars as pl
import pytest
from sqlalchemy import text

from reco.embedded import connect_redis
from reco.features.online import OnlineStore
from reco.features.profile import tokens_of
from reco.features.verify import verify
from reco.subscribers.consent import Consent, ConsentLog, Purpose
from reco.subscribers.store import SubscriberStore
from reco.tables import topk_key
from serve.profile_changes import NAME, ProfileChanges
from tests.streams import NOW, processor, small_lake, stream_events
from tests.test_stream import messages


@pytest.fixture
def lake(tmp_path):
    return small_lake(tmp_path / "lake")


@pytest.fixture
def redis(services):
    """The embedded store alone: what is tested is PostgreSQL, and the store has its own tests."""
    client = connect_redis(services.redis_url)
    client.flushdb()
    yield client
    client.flushdb()
    client.close()


@pytest.fixture
def listen(services, engine, database_url, redis, lake):
    """Opens a listener beside thirty users who have rows and no profile."""
    stream = processor(lake, redis)
    stream.process(messages(stream_events(200)))
    stream.recover(range(lake.buckets))
    addresses = {"lake": lake.path(), "database_url": database_url}
    opened = []

    def listen():
        opened.append(ProfileChanges(replace(services, **addresses)))
        opened[-1].follow()
        return opened[-1]

    yield listen
    for one in opened:
        one.close()


def follow(changes):
    """Look until a row changed; a busy server notifies late."""
    end = time.monotonic() + 60
    while not (done := changes.follow()):
        assert time.monotonic() < end, "nothing was heard"
    return done


def people_of(engine, **values):
    SubscriberStore(engine).upsert(pl.DataFrame({"user_id": ["u4"]} | values))


def tokens(**profile):
    return tokens_of([{"attributes": {}} | profile])


def test_a_change_by_whomever_is_in_the_row_at_the_next_look(listen, engine, redis, lake):
    changes, online = listen(), OnlineStore(redis)
    before = online.fetch(["u4"])
    redis.set(topk_key("u4"), b"slate")

    people_of(engine, region=["north"])
    assert 1 == follow(changes)
    with engine.begin() as connection:
        connection.execute(text("update subscribers set region = 'south' where user_id = 'u4'"))
    assert 1 == follow(changes)
    after = online.fetch(["u4"])

    assert (after.tokens == tokens(region="south")).all()
    assert (after.records == before.records).all()
    assert redis.get(topk_key("u4")) is None
    assert 0 == changes.follow()
    found = verify(lake, online, SubscriberStore(engine), NOW)
    assert (0, 0) == (found.differing, found.features["profile"])


def test_who_withdraws_profiling_loses_the_history_and_who_agrees_again_gets_it(
    listen, engine, redis
):
    changes, online = listen(), OnlineStore(redis)
    people_of(engine, region=["north"])
    follow(changes)
    before = online.fetch(["u4"])

    def say(given):
        said = Consent(Purpose.PROFILING, given, "v1", "preferences", datetime.now(UTC))
        ConsentLog(engine).record("u4", [said])
        assert 1 == follow(changes)
        return online.fetch(["u4"])

    without, again = say(False), say(True)

    assert len(before.records) > 0
    assert (0, 0) == (len(without.records), without.tokens.sum())
    assert (again.records == before.records).all()
    assert (again.tokens == before.tokens).all()


def test_a_newcomer_has_a_profile_before_the_first_event_and_who_is_erased_has_none(
    listen, engine, redis
):
    changes, online = listen(), OnlineStore(redis)
    SubscriberStore(engine).upsert(pl.DataFrame({"user_id": ["new"], "plan": ["gold"]}))
    assert 1 == follow(changes)
    there = online.fetch(["new"]).tokens
    with engine.begin() as connection:
        connection.execute(text("delete from subscribers where user_id = 'new'"))
    assert 1 == follow(changes)

    assert (there == tokens(plan="gold")).all()
    assert 0 == online.fetch(["new"]).tokens.sum()


def test_what_changed_while_nobody_listened_is_found(listen, engine, redis):
    listen().close()
    people_of(engine, region=["north"])

    changes = listen()  # has looked once

    assert (OnlineStore(redis).fetch(["u4"]).tokens == tokens(region="north")).all()
    assert not changes.is_behind


def test_a_row_that_was_loaded_with_an_old_profile_is_mended_by_an_announcement(
    listen, engine, redis
):
    changes, online = listen(), OnlineStore(redis)
    old, since = online.fetch(["u4"]), datetime.now(UTC)
    people_of(engine, region=["north"])
    follow(changes)
    online.load(["u4"], old)

    SubscriberStore(engine).announce(since)
    follow(changes)

    assert (online.fetch(["u4"]).tokens == tokens(region="north")).all()


def test_who_was_erased_while_nobody_listened_has_no_profile(listen, engine, redis):
    people_of(engine, region=["north"])
    listen().close()
    before = OnlineStore(redis).fetch(["u4"]).tokens
    with engine.begin() as connection:
        connection.execute(text("delete from subscribers where user_id = 'u4'"))

    listen()

    assert (before == tokens(region="north")).all()
    assert 0 == OnlineStore(redis).fetch(["u4"]).tokens.sum()


def test_a_lost_connection_is_made_again(listen, engine, redis):
    changes = listen()
    kill = (
        f"select pg_terminate_backend(pid) from pg_stat_activity where application_name = '{NAME}'"
    )
    with engine.begin() as connection:
        assert [True] == connection.execute(text(kill)).scalars().all()
    people_of(engine, region=["north"])

    assert 1 == follow(changes)
