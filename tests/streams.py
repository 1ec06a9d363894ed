"""What the tests of the stream share: events as JSON, a small bus, and one processor's parts."""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import redis as redis_client

from reco.events.bus import Bus, open_bus
from reco.events.deadletter import DeadLetters
from reco.events.lake import Lake
from reco.events.stream import Consumer, StreamProcessor
from reco.features.live import LiveRows, Profiles
from reco.features.online import OnlineStore
from reco.features.profile import read_profiles
from reco.tables import user_bucket

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TYPES = ("click", "open", "view", "purchase", "delivery")
NOBODY: Profiles = partial(read_profiles, None)


def small_lake(root: Path) -> Lake:
    """A lake of four buckets: as right as one of sixteen, with a quarter of the files."""
    root.mkdir()
    (root / "lake.json").write_text('{"layout": 1, "buckets": 4}')
    return Lake(str(root))


def stream_events(count: int, *, users: int = 30, seed: int = 0) -> list[dict[str, Any]]:
    """Events of the last 100 days, in the order of time."""
    chance = random.Random(seed)
    ages = sorted((chance.random() * 100 for _ in range(count)), reverse=True)
    return [
        {
            "event_id": f"e{seed}-{i}",
            "user_id": f"u{chance.randrange(users)}",
            "type": chance.choice(TYPES),
            "timestamp": (NOW - timedelta(days=age)).isoformat(),
            "item_id": f"i{chance.randrange(40)}",
            "value": round(chance.uniform(0, 90), 2),
        }
        for i, age in enumerate(ages)
    ]


def shuffled_with_repeats(
    events: Sequence[dict[str, Any]], share: float, seed: int = 1
) -> list[dict[str, Any]]:
    """The events in any order, some of them twice."""
    chance = random.Random(seed)
    mixed = [*events, *chance.sample(list(events), int(share * len(events)))]
    chance.shuffle(mixed)
    return mixed


def put(bus: Bus, events: Iterable[dict[str, Any]]) -> None:
    """Append events to their shards."""
    bus.append([(user_bucket(e["user_id"], bus.shards), json.dumps(e).encode()) for e in events])


def processor(
    lake: Lake, client: redis_client.Redis, profiles: Profiles = NOBODY, now: datetime = NOW
) -> StreamProcessor:
    """A processor as the product makes it, with a clock that stands still."""
    rows = LiveRows(lake, OnlineStore(client), profiles)
    return StreamProcessor(lake, rows, DeadLetters(client), lambda: now)


def consumer(
    lake: Lake, client: redis_client.Redis, url: str, *, batch: int = 1_000, now: datetime = NOW
) -> Consumer:
    """A consumer of all shards of a bus on Redis."""
    bus = open_bus(url, lake.buckets)
    shards = range(lake.buckets)
    made = Consumer(bus.reader(shards, "one"), processor(lake, client, now=now), batch)
    made.begin(shards)
    return made


def drain(one: Consumer) -> int:
    """Process until nothing is left; how many messages."""
    done = 0
    while took := one.step(0.05, 0.0):
        done += took
    return done


def as_payloads(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows of tables.EVENTS as a source of events would send them."""
    for row in rows.iter_rows(named=True):
        yield {k: v.isoformat() if k == "timestamp" else v for k, v in row.items() if v is not None}
