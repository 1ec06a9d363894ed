"""Consumers as Ray actors: they share the buckets, come back after a kill, and end when told to."""

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reco.embedded import connect_redis
from reco.events.bus import open_bus
from reco.events.deadletter import DeadLetters
from reco.events.lake import Lake
from reco.features.online import OnlineStore
from reco.features.verify import verify
from serve.fleet import Fleet, _Skew, run_until_stopped
from serve.scaling import GROW_LAG, GROW_TICKS, SHRINK_TICKS, Scaling, shares
from tests.streams import NOW, consumer, drain, put, stream_events


def test_consumers_are_added_while_they_lag_and_taken_away_when_idle():
    scaling = Scaling(most=3)
    for _ in range(3 * GROW_TICKS):
        scaling.see(10 * GROW_LAG)
    grown = scaling.wanted
    for _ in range(SHRINK_TICKS):
        scaling.see(0)

    assert (3, 2) == (grown, scaling.wanted)


def test_a_burst_adds_nobody():
    scaling = Scaling(most=3)
    for i in range(100):
        scaling.see(10 * GROW_LAG if i % GROW_TICKS else 0)

    assert 1 == scaling.wanted


@given(buckets=st.integers(1, 64), consumers=st.integers(1, 64))
def test_every_bucket_has_one_consumer(buckets, consumers):
    parts = shares(buckets, consumers)

    assert [*range(buckets)] == sorted(b for part in parts for b in part)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.fixture
def own(services):
    """The services with an empty store; the lake is put back to what it was."""
    client, lake = connect_redis(services.redis_url), Lake(services.lake)
    manifest = Path(lake.path("events", "manifest.json"))
    before = manifest.read_bytes() if manifest.exists() else None
    client.flushdb()
    yield services
    client.flushdb()
    client.close()
    manifest.unlink(missing_ok=True)
    if before is not None:
        manifest.write_bytes(before)


def test_a_served_row_that_differs_is_measured_while_the_stream_runs(own, monkeypatch):
    found = []
    meter = SimpleNamespace(report=found.append)
    monkeypatch.setattr("serve.fleet.SkewMeter", lambda: meter)
    lake, client = Lake(own.lake), connect_redis(own.redis_url)
    put(open_bus(own.bus_url, lake.buckets), stream_events(300, seed=79))
    drain(consumer(lake, client, own.bus_url))
    skew, online = _Skew(own), OnlineStore(client)

    def measured():
        del found[:]
        for _ in range(lake.buckets):
            skew.measure()
        return sum(one.differing for one in found)

    right = measured()
    row = online.fetch(["u3"])
    online.load(["u3"], row.merge(row))

    assert 0 == right
    assert 1 == measured()
    assert max(one.largest for one in found) >= 1


@pytest.mark.ray
@pytest.mark.slow
def test_killed_consumers_come_back_and_every_event_counts_once(ray_cluster, own):
    lake, client = Lake(own.lake), connect_redis(own.redis_url)
    before = len(lake.events().collect())
    bus = open_bus(own.bus_url, lake.buckets)
    past = [e | {"timestamp": "2026-01-01T00:00:00Z"} for e in stream_events(900, seed=77)]
    fleet = Fleet(own, most=2)
    try:
        _until(fleet, lambda s: fleet.is_working())
        put(bus, past[:300])
        _until(fleet, lambda s: s.new >= 300)
        os.kill(fleet.pids()[0], signal.SIGKILL)
        put(bus, past[300:])
        put(bus, past[:100])
        bus.append([(0, b"{poison")])
        # A killed process takes its numbers with it; what waits and what is there counts.
        _until(fleet, lambda s: s.lag == 0 and len(lake.events().collect()) == before + 900)
    finally:
        fleet.stop()

    assert {"no JSON": 1} == DeadLetters(client).counts()
    assert (0, 0) == _differing_and_pending(lake, client)


@pytest.mark.ray
@pytest.mark.slow
def test_draining_ends_when_nothing_waits(ray_cluster, own):
    lake = Lake(own.lake)
    past = [e | {"timestamp": "2026-01-01T00:00:00Z"} for e in stream_events(200, seed=78)]
    put(open_bus(own.bus_url, lake.buckets), past)

    summary = run_until_stopped(own, 1, lambda *_: None, drain=True)

    assert (200, 200, 0, 0) == (summary.messages, summary.new, summary.duplicates, summary.lag)
    assert (0, 0) == _differing_and_pending(lake, connect_redis(own.redis_url))


def _until(fleet, holds):
    deadline = time.monotonic() + 120
    while not holds(fleet.tick()):
        assert time.monotonic() < deadline, fleet.tick()
        time.sleep(0.2)


def _differing_and_pending(lake, client):
    found = verify(lake, OnlineStore(client), None, NOW)
    return found.differing, found.pending
