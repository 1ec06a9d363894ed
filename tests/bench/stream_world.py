"""What the benchmarks of the stream share: events, and a consumer in a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from reco.embedded import connect_redis  # noqa: E402
from reco.errors import ServiceUnavailable  # noqa: E402
from reco.events.bus import open_bus  # noqa: E402
from reco.events.deadletter import DeadLetters  # noqa: E402
from reco.events.lake import Lake  # noqa: E402
from reco.events.stream import Consumer, StreamProcessor  # noqa: E402
from reco.features.live import LiveRows  # noqa: E402
from reco.features.online import OnlineStore  # noqa: E402
from reco.features.profile import read_profiles  # noqa: E402
from reco.tables import user_bucket  # noqa: E402

USERS: Final = 20_000


def events(count: int, first: int = 0, seed: int = 0) -> list[tuple[int, bytes]]:
    """(bucket, JSON) of events of the last 90 days, in random order."""
    chance = np.random.default_rng(seed)
    now = int(time.time())
    users = chance.integers(0, USERS, count).tolist()
    ages = chance.integers(0, 90 * 86_400, count).tolist()
    items = chance.integers(0, 5_000, count).tolist()
    types = chance.integers(0, 4, count).tolist()
    cents = chance.integers(0, 5_000, count).tolist()
    bucket = [user_bucket(f"u{u}", 16) for u in range(USERS)]
    return [
        (
            bucket[users[i]],
            json.dumps(
                {
                    "event_id": f"e{first + i}",
                    "user_id": f"u{users[i]}",
                    "type": ("click", "open", "view", "purchase")[types[i]],
                    "timestamp": datetime.fromtimestamp(now - ages[i], UTC).isoformat(),
                    "item_id": f"i{items[i]}",
                    "value": cents[i] / 100,
                }
            ).encode(),
        )
        for i in range(count)
    ]


def consume(bus_url: str, redis_url: str, lake_root: str, linger_s: float) -> None:
    """A consumer of all buckets; a line of JSON after each batch."""
    lake, client = Lake(lake_root), connect_redis(redis_url)
    rows = LiveRows(lake, OnlineStore(client), partial(read_profiles, None))
    reader = open_bus(bus_url, lake.buckets).reader(range(lake.buckets), "bench")
    one = Consumer(reader, StreamProcessor(lake, rows, DeadLetters(client)))
    one.begin(range(lake.buckets))
    done = 0
    while True:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            done += one.step(0.5, linger_s)
        except ServiceUnavailable as error:  # a busy machine; serve.stream goes on as well
            print(error, file=sys.stderr)
            continue
        used = (time.perf_counter() - wall, time.process_time() - cpu)
        print(json.dumps([done, *used]), flush=True)


@contextmanager
def consuming(
    bus_url: str, redis_url: str, lake: str, linger_s: float = 0.0
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, __file__, bus_url, redis_url, lake, str(linger_s)]
    quiet = os.environ | {"POLARS_MAX_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=quiet, cwd=ROOT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def lines(process: subprocess.Popen[str]) -> Iterator[tuple[int, float, float]]:
    """(messages so far, wall, CPU seconds) of each batch."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("["):
            done, wall, cpu = json.loads(line)
            yield done, wall, cpu


if __name__ == "__main__":
    *addresses, linger = sys.argv[1:]
    consume(*addresses, float(linger))
