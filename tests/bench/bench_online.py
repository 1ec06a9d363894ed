"""Features of 256 subscribers at once: packed rows by MGET beside Feast's layout by HMGET.

    python tests/bench/bench_online.py [--subscribers 5000] [--records 24] [--json F]

Both from the embedded Valkey on loopback, decoded to what a model takes. Feast has a hash for each
entity, in it a field of 4 bytes with a protobuf value for each feature, and reads a chunk as one
pipeline of HMGETs; a row of ours holds the compacted history from which all features are counted.
They take turns, so that both see the same machine.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time
from typing import Final

import numpy as np
import redis
import xxhash
from google.protobuf.wrappers_pb2 import FloatValue

from reco.embedded import connect_redis, open_services
from reco.features.online import OnlineStore
from reco.settings import Settings
from tests.model_world import catalogue_of, histories_of

CHUNK: Final = 256
FEATURES: Final = 32
FIELDS: Final = [xxhash.xxh32_digest(b"subscriber:feature_%d" % i) for i in range(FEATURES)]
ROUNDS: Final = 5


def entity_key(user_id: str) -> bytes:
    """About as long as Feast's serialized entity keys."""
    return b"\x02\x00\x00\x00user_id\x02\x00\x00\x00" + user_id.encode() + b"reco"


def load_hashes(client: redis.Redis, users: list[str]) -> None:
    """A hash for each user, as Feast writes them."""
    draw = np.random.default_rng(0)
    for start in range(0, len(users), CHUNK):
        pipeline = client.pipeline(transaction=False)
        for user in users[start : start + CHUNK]:
            values = [FloatValue(value=v).SerializeToString() for v in draw.random(FEATURES)]
            fields: dict[bytes | str, bytes] = dict(zip(FIELDS, values, strict=True))
            pipeline.hset(entity_key(user), mapping={**fields, "_ts:subscriber": b"\x08\x01"})
        pipeline.execute()


def feast(client: redis.Redis) -> Callable[[list[str]], object]:
    """A chunk by HMGETs in one pipeline, decoded to floats."""

    def fetch(users: list[str]) -> object:
        pipeline = client.pipeline(transaction=False)
        for user in users:
            pipeline.hmget(entity_key(user), [*FIELDS, "_ts:subscriber"])
        parse = FloatValue.FromString
        return np.array([[parse(v).value for v in row[:FEATURES]] for row in pipeline.execute()])

    return fetch


def main() -> None:
    """Print microseconds a subscriber of each; `--json` keeps them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscribers", type=int, default=5_000)
    parser.add_argument("--records", type=int, default=24, help="of each history, 16 bytes each")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(
        f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"redis-py {version('redis')}, hiredis {version('hiredis')}, load {os.getloadavg()[0]:.1f}"
    )
    users = [f"u{i:06d}" for i in range(args.subscribers)]
    with (
        tempfile.TemporaryDirectory() as folder,
        open_services(Settings(home=Path(folder) / "home")) as services,
        closing(connect_redis(services.redis_url)) as client,
    ):
        print(f"valkey {client.info('server')['valkey_version']}; {args.records} records a row")
        online = OnlineStore(client)
        online.load(users, histories_of(catalogue_of(1_000), [args.records] * len(users)))
        load_hashes(client, users)
        ways = {"packed rows, MGET": online.fetch, "Feast's layout, HMGET": feast(client)}
        wall: dict[str, list[float]] = {name: [] for name in ways}
        cpu: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for start in range(0, len(users) - CHUNK + 1, CHUNK):
                for name, fetch in ways.items():
                    began, spent = perf_counter(), process_time()
                    fetch(users[start : start + CHUNK])
                    wall[name].append((perf_counter() - began) / CHUNK * 1e6)
                    cpu[name].append((process_time() - spent) / CHUNK * 1e6)
    found = {
        name: {"us": statistics.median(wall[name]), "cpu_us": statistics.median(cpu[name])}
        for name in ways
    }
    for name, one in found.items():
        print(f"{name:22} {one['us']:6.1f} us a subscriber, {one['cpu_us']:6.1f} us CPU")
    packed, hashes = found.values()
    print(f"Feast's layout takes {hashes['us'] / packed['us']:.1f} times as long")
    if args.json:
        args.json.write_text(json.dumps({"packed": packed, "feast": hashes}, indent=1))


if __name__ == "__main__":
    main()
