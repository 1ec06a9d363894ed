"""Complete Journey as a stream, in random order, beside its import: the same training set."""

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from reco.demo import CUT
from reco.embedded import connect_redis
from reco.events.bus import open_bus
from reco.events.completejourney import convert, locate
from reco.events.importing import import_table
from reco.events.lake import Lake
from reco.tables import user_bucket
from tests.bench.stream_world import consuming, lines
from tests.streams import as_payloads
from tests.training_sets import training_set


def replay(redis_url: str) -> None:
    """Import the shop, stream its events into another lake, and compare what training reads."""
    connect_redis(redis_url).flushdb()
    with TemporaryDirectory() as folder:
        imported, streamed = (Lake(f"{folder}/{name}") for name in ("imported", "streamed"))
        shop = convert(locate(), Path(folder, "shop"), public_url="http://x", image_name=str)
        import_table("events", [shop.events], None, imported, None, Path(folder, "bad"))
        for lake in (imported, streamed):
            import_table("items", [shop.items], None, lake, None, Path(folder, "bad"))
        rows = imported.events().collect()
        began = time.perf_counter()
        _stream(redis_url, streamed, rows.sample(fraction=1.0, shuffle=True, seed=3))
        took = time.perf_counter() - began
        ours, theirs = training_set(streamed, CUT), training_set(imported, CUT)
        other = [name for name in theirs if ours.get(name) != theirs[name]]
        print(
            f"Complete Journey as a stream: {len(rows):,} events in random order, {took:.0f} s; "
            f"{streamed.manifest().rows():,} in the lake; of {len(theirs)} parts of the training "
            f"set (examples and features of each bucket) {len(other)} differ from the import's",
            flush=True,
        )
        assert ours == theirs
        assert streamed.manifest().rows() == len(rows)


def _stream(redis_url: str, lake: Lake, rows: pl.DataFrame) -> None:
    bus, done = open_bus(redis_url, lake.buckets), 0
    with consuming(redis_url, redis_url, lake.path()) as process:
        for part in rows.iter_slices(1_000):
            bus.append(
                [
                    (user_bucket(event["user_id"], lake.buckets), json.dumps(event).encode())
                    for event in as_payloads(part)
                ]
            )
        for done, _, _ in lines(process):
            if done >= len(rows):
                return
