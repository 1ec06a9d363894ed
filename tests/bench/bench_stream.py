"""The stream: throughput by bus, a million events through three kills, latency, replay of a shop.

    python -m reco bench stream                                200,000 events, every part
    python tests/bench/bench_stream.py 1000000 --part kills    the million of the README

One consumer process on one core (POLARS_MAX_THREADS=1). Wall-clock time includes what else the
machine does; events per CPU second do not. The peer is a bare Polars loop over the same batches:
parse, aggregate by user, item, type and day, write Parquet; no bus, no identity, no online rows.
"""

import argparse
import io
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402
import polars as pl  # noqa: E402
import uvicorn  # noqa: E402
from fastapi import FastAPI  # noqa: E402

from reco.embedded import connect_redis  # noqa: E402
from reco.events.bus import open_bus  # noqa: E402
from reco.events.lake import Lake  # noqa: E402
from reco.events.stream import BATCH  # noqa: E402
from reco.features.online import OnlineStore  # noqa: E402
from reco.features.verify import verify  # noqa: E402
from reco.processes import free_port, stop  # noqa: E402
from reco.servers import Valkey, await_ready, valkey_binary  # noqa: E402
from reco.tables import history_key  # noqa: E402
from serve.late_bus import LateBus  # noqa: E402
from tests.bench.stream_job import job  # noqa: E402
from tests.bench.stream_recommend import recommend  # noqa: E402
from tests.bench.stream_replay import replay  # noqa: E402
from tests.bench.stream_world import consuming, events, lines  # noqa: E402
from tests.brokers import RABBITMQ, running_kafka, running_rabbitmq  # noqa: E402

DUPLICATES: Final = 0.1
RATE: Final = 2_000  # events a second over HTTP
REQUEST: Final = 100  # events a request
SECONDS: Final = 20
PARTS: Final = ("throughput", "kills", "latency", "replay", "recommend", "job")


# -- one consumer ------------------------------------------------------------------------------


def throughput(name: str, bus_url: str, redis_url: str, sent: list[tuple[int, bytes]]) -> None:
    with TemporaryDirectory() as folder:
        bus = open_bus(bus_url, Lake(folder).buckets)
        began = time.perf_counter()
        for start in range(0, len(sent), 1_000):
            bus.append(sent[start : start + 1_000])
        appended = len(sent) / (time.perf_counter() - began)
        wall = cpu = 0.0
        with consuming(bus_url, redis_url, folder) as process:
            for done, took, used in lines(process):
                wall, cpu = wall + took, cpu + used
                if done >= len(sent):
                    break
        print(
            f"{name:<22}{len(sent) / wall:>10,.0f} events/s {len(sent) / cpu:>10,.0f} per CPU s"
            f"   appended at {appended:,.0f}/s",
            flush=True,
        )


def bare_loop(sent: list[tuple[int, bytes]]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    with TemporaryDirectory() as folder:
        for i, start in enumerate(range(0, len(sent), BATCH)):
            text = b"\n".join(payload for _, payload in sent[start : start + BATCH])
            frame = pl.read_ndjson(io.BytesIO(text))
            day = pl.col("timestamp").str.to_datetime(time_zone="UTC").dt.date()
            frame.group_by("user_id", "item_id", "type", day).agg(pl.len(), pl.sum("value"))
            frame.write_parquet(Path(folder, f"{i}.parquet"))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"{'bare Polars loop':<22}{len(sent) / wall:>10,.0f} events/s "
        f"{len(sent) / cpu:>10,.0f} per CPU s",
        flush=True,
    )


# -- kills -------------------------------------------------------------------------------------


def kills(redis_url: str, sent: list[tuple[int, bytes]]) -> None:
    """Three kills at random moments of a batch; then every row and every id is looked at."""
    chance = np.random.default_rng(5)
    again = chance.choice(len(sent), int(DUPLICATES * len(sent)), replace=False).tolist()
    mixed = sent + [sent[i] for i in again]
    mixed = [mixed[i] for i in chance.permutation(len(mixed)).tolist()]
    connect_redis(redis_url).flushdb()
    with TemporaryDirectory() as folder:
        bus, lake = open_bus(redis_url, 16), Lake(folder)
        for start in range(0, len(mixed), 1_000):
            bus.append(mixed[start : start + 1_000])
        began, killed = time.perf_counter(), 0
        for share in (0.1, 0.1, 0.1, None):
            with consuming(redis_url, redis_url, folder) as process:
                for done, _, _ in lines(process):
                    if lake.manifest().rows() == len(sent) and _idle(redis_url):
                        break  # with a share: nothing is left to be killed in
                    if share is not None and done >= share * len(mixed):
                        time.sleep(float(chance.random()))  # into the next batch
                        process.send_signal(signal.SIGKILL)
                        killed += 1
                        break
        took = time.perf_counter() - began
        ids = lake.events(columns=["event_id"]).collect()["event_id"]
        found = verify(lake, OnlineStore(connect_redis(redis_url)), None, datetime.now(UTC))
    print(
        f"{len(mixed):,} messages ({len(sent):,} events), {killed} kills, {took:,.0f} s: "
        f"{len(ids):,} rows in the lake, {ids.n_unique():,} ids; {found.compared:,} users "
        f"compared, {found.pending} pending, {found.differing} differ, "
        f"largest difference {found.largest:g}",
        flush=True,
    )
    assert len(ids) == ids.n_unique() == len(sent)
    assert killed == 3
    assert (found.pending, found.differing) == (0, 0)


def _idle(redis_url: str) -> bool:
    reader = open_bus(redis_url, 16).reader(range(16), "watch")
    return reader.lag() == 0


# -- latency -----------------------------------------------------------------------------------


def serve_door(bus_url: str, port: int) -> None:
    """The route of the gateway in a process of its own."""
    from types import SimpleNamespace

    from serve import ingest

    app = FastAPI()
    services: Any = SimpleNamespace(bus_url=bus_url, api_key="bench", link_key=b"k" * 32)
    app.include_router(ingest.router(services, LateBus(bus_url, 16)))
    uvicorn.run(app, port=port, log_level="error")


def latency(redis_url: str) -> None:
    """From the request to the changed row of its last event, at RATE events a second."""
    client, port = connect_redis(redis_url), free_port()
    client.flushdb()
    door = [sys.executable, __file__, "--door", redis_url, str(port)]
    waiting: dict[bytes, float] = {}
    seen: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set() or waiting:
            keys = list(waiting)
            for key, row in zip(keys, client.mget(keys) if keys else [], strict=True):
                if row is not None:
                    seen.append(time.perf_counter() - waiting.pop(key))
            time.sleep(0.01)

    with (
        TemporaryDirectory() as folder,
        subprocess.Popen(door, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT) as server,
        consuming(redis_url, redis_url, folder, linger_s=0.1) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
    ):
        try:
            next(lines(process))  # it has begun
            threading.Thread(target=lambda: [None for _ in lines(process)], daemon=True).start()
            _await(port)
            watcher = threading.Thread(target=watch)
            watcher.start()
            accepted = _send(http, waiting)
            over.set()
            watcher.join(60)
        finally:
            server.terminate()
    p50, p95, p99 = np.percentile(seen, [50, 95, 99])
    a50, a95 = np.percentile(accepted, [50, 95])
    print(
        f"HTTP to served row at {RATE:,} events/s, {len(seen)} requests of {REQUEST}: "
        f"p50 {p50:.2f} s, p95 {p95:.2f} s, p99 {p99:.2f} s; "
        f"202 after p50 {a50 * 1000:.0f} ms, p95 {a95 * 1000:.0f} ms",
        flush=True,
    )


def _send(http: httpx.Client, waiting: dict[bytes, float]) -> list[float]:
    accepted = []
    requests = RATE * SECONDS // REQUEST
    bodies = []
    for i in range(requests):
        batch = [json.loads(p) for _, p in events(REQUEST, i * REQUEST, seed=i)]
        batch[-1]["user_id"] = f"probe{i}"
        bodies.append(json.dumps(batch).encode())
    began = time.perf_counter()
    for i, body in enumerate(bodies):
        due = began + i * REQUEST / RATE
        time.sleep(max(due - time.perf_counter(), 0))
        # Counted from when it was due: a slow door does not make its own test easier.
        waiting[history_key(f"probe{i}").encode()] = min(due, time.perf_counter())
        http.post("/v1/events", content=body, headers={"X-API-Key": "bench"}).raise_for_status()
        accepted.append(time.perf_counter() - due)
    return accepted


def _await(port: int) -> None:
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/")
            return
        except httpx.TransportError:
            time.sleep(0.1)


# -- all ---------------------------------------------------------------------------------------


def main(count: int, parts: list[str]) -> None:
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {count:,} events", flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        server = Valkey(folder / "valkey", secrets.token_hex(16), valkey_binary())
        process = server.start(free_port())
        stack.callback(stop, process, server.stop_signal)
        await_ready(server, process)
        redis_url = server.url(process)
        sent = events(count)
        if "throughput" in parts:
            bare_loop(sent)
            throughput("Redis Streams", redis_url, redis_url, sent)
            connect_redis(redis_url).flushdb()
            with running_kafka() as url:
                throughput("Kafka (tansu)", url, redis_url, sent)
            connect_redis(redis_url).flushdb()
            if RABBITMQ.exists():
                with running_rabbitmq() as url:
                    throughput("RabbitMQ", url, redis_url, sent)
        if "kills" in parts:
            kills(redis_url, sent)
        if "latency" in parts:
            latency(redis_url)
        if "replay" in parts:
            replay(redis_url)
    if "recommend" in parts:
        recommend()
    if "job" in parts:
        job(events(2 * count))  # so many that one consumer lags


if __name__ == "__main__":
    if "--door" in sys.argv:
        serve_door(sys.argv[2], int(sys.argv[3]))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("count", nargs="?", type=int, default=200_000)
        parser.add_argument("--part", action="append", choices=PARTS)
        # `reco bench stream` leaves its own arguments in sys.argv.
        given = sys.argv[1:] if Path(sys.argv[0]).name == Path(__file__).name else []
        chosen = parser.parse_args(given)
        main(chosen.count, chosen.part or list(PARTS))
