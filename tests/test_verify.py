"""Online against offline: right rows pass, each kind of wrong row is named, moving ones wait."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from reco.cli import main
from reco.embedded import connect_redis
from reco.events.deadletter import DeadLetters
from reco.events.door import source_key
from reco.features.definitions import USER_FEATURES
from reco.features.history import Histories
from reco.features.online import Mark, OnlineStore
from reco.features.verify import Verification, verify
from reco.subscribers.store import SubscriberStore
from reco.tables import user_bucket
from tests.streams import NOW, processor, small_lake, stream_events
from tests.test_stream import messages


@pytest.fixture
def lake(tmp_path):
    return small_lake(tmp_path / "lake")


@pytest.fixture
def store(redis, lake):
    """Rows that are right, of thirty users."""
    processor(lake, redis).process(messages(stream_events(600)))
    return OnlineStore(redis)


def test_right_rows_pass_whatever_day_they_are_read(lake, store):
    for days in (0, 1, 40):
        found = verify(lake, store, None, NOW - timedelta(days=days))

        assert (30, 0, 0, 0.0) == (found.compared, found.pending, found.differing, found.largest)


def test_a_row_that_is_missing_or_has_one_event_more_is_named(lake, store):
    rows = store.fetch(["u1", "u2", "u3"])
    store.load(["u1"], Histories.unpack([None]))
    store.load(["u2"], rows.take(1, 2).merge(rows.take(1, 2)))

    found = verify(lake, store, None, NOW)

    assert 2 == found.differing
    assert {"u1", "u2"} == {one.user_id for one in found.examples}
    assert set(found.features) <= {feature.name for feature in USER_FEATURES}


def test_a_sample_looks_at_a_part_only(lake, store):
    assert 0 < verify(lake, store, None, NOW, sample=8).compared <= 8


def test_one_bucket_may_be_asked_for(lake, store):
    mine = [u for u in (f"u{i}" for i in range(30)) if user_bucket(u, lake.buckets) == 2]

    assert len(mine) == verify(lake, store, None, NOW, buckets=[2]).compared


def test_users_whose_events_are_on_their_way_wait_and_are_not_wrong(redis, lake, store):
    late = pl.DataFrame(stream_events(5, users=3, seed=8))
    lake.append(late.with_columns(pl.col("timestamp").str.to_datetime(time_zone="UTC")))

    found = verify(lake, store, None, NOW)

    assert found.pending >= late["user_id"].n_unique()
    assert 0 == found.differing
    assert 30 == found.compared + found.pending


def test_a_bucket_that_is_being_loaded_waits(lake, store):
    bucket = user_bucket("u1", lake.buckets)
    nothing = Histories.unpack([])
    store.swap(bucket, store.mark(bucket), Mark(0, NOW, loading=True), [], nothing)

    found = verify(lake, store, None, NOW)

    assert found.pending > 0
    assert 30 == found.compared + found.pending


def test_a_profile_that_changed_since_is_named(engine, lake, store):
    people = SubscriberStore(engine)
    people.upsert(pl.DataFrame({"user_id": ["u4"], "region": ["north"]}))

    found = verify(lake, store, people, NOW)

    assert {"profile": 1} == dict(found.features)
    assert ["u4"] == [one.user_id for one in found.examples]


def test_what_is_unknown_on_both_sides_is_equal_and_on_one_is_not():
    found = Verification()
    width = len(USER_FEATURES)
    ours = np.full((2, width), np.nan, np.float32)
    theirs = ours.copy()
    theirs[1, 0] = 1.0

    found.add(["a", "b"], ours, theirs)

    assert (2, 1) == (found.compared, found.differing)
    assert {USER_FEATURES[0].name: 1} == dict(found.features)


def test_a_difference_below_the_tolerance_is_none():
    found = Verification()
    ours = np.full((1, len(USER_FEATURES)), 1_000.0, np.float32)

    found.add(["a"], ours, ours.astype(np.float64) + 1e-4)

    assert (0, True) == (found.differing, 0 < found.largest < 1e-3)


# -- commands ----------------------------------------------------------------------------------


@pytest.fixture
def run(services, monkeypatch):
    """Runs a command on the services of the tests."""
    for name, value in services.environment().items():
        monkeypatch.setenv(name, value)
    return lambda *words: CliRunner().invoke(main, [*words, "--json"])


def test_the_command_prints_the_key_of_a_source(run, services):
    answer = run("stream", "--key", "shop")

    assert 0 == answer.exit_code
    assert source_key(services.link_key, "shop") in answer.output


def test_the_command_replays_dead_letters(run, services):
    client = connect_redis(services.redis_url)
    client.flushdb()
    DeadLetters(client).add([(message, "why") for message in messages(stream_events(3))])

    answer = run("stream", "--replay", "all")

    assert '{"replayed": 3, "left": {}}\n' == answer.output
    assert {} == DeadLetters(client).counts()
    client.flushdb()


def test_the_command_ends_with_1_when_a_served_row_differs(
    run, services, engine, database_url, lake, monkeypatch
):
    monkeypatch.setenv("RECO_LAKE", lake.path())
    monkeypatch.setenv("RECO_DATABASE_URL", database_url)
    client = connect_redis(services.redis_url)
    client.flushdb()
    processor(lake, client).process(messages(stream_events(300)))

    right = run("features", "--verify")
    row = OnlineStore(client).fetch(["u5"])
    OnlineStore(client).load(["u5"], row.merge(row))
    wrong = run("features", "--verify")
    client.flushdb()
    client.close()

    assert (0, 1) == (right.exit_code, wrong.exit_code), wrong.output
    assert '"compared": 30' in right.stdout
    assert '"differing": 1' in wrong.stdout
    assert '"u5"' in wrong.stdout
