"""From an event over HTTP to a changed recommendation: the whole product on this machine.

The graph with a model behind Ray Serve, the consumers of `reco stream`, embedded stores; a purchase
or an answer is posted, and /v1/recommend is asked until it says something else. Then profiles and
consents change in PostgreSQL.
"""

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import numpy as np
import ray

from reco.embedded import Services, connect_redis, open_services
from reco.errors import ServiceUnavailable
from reco.events.lake import Lake
from reco.settings import Settings
from reco.tables import CHAMPION_KEY
from serve.fleet import run_until_stopped
from tests.bench.stream_world import ROOT, events
from tests.model_world import artifact_of
from tests.serving import running_app
from tests.small_world import USERS, World, small_world
from tests.small_world import events as past

ROUNDS: Final = 30  # of each kind
CHANGES: Final = 12  # of profiles: each waits for the consumers to be looked after, once a second
ASKED_EVERY_S: Final = 0.02
LIMIT_S: Final = 60.0
LOADS: Final = (0, 2_000)  # events a second beside
REQUEST: Final = 100


def recommend() -> None:
    """Time a purchase and an answer, alone and beside other events."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with (
        TemporaryDirectory(prefix="reco-bench-") as folder,
        open_services(Settings(home=Path(folder, "home"))) as services,
        small_world(services, ROUNDS * len(LOADS)) as world,
    ):
        _promote(services, world)
        env = services.environment() | {"PYTHONPATH": str(ROOT)}
        ray.init(
            address="local", num_cpus=2, object_store_memory=500_000_000, log_to_driver=False,
            runtime_env={"env_vars": env},
        )  # fmt: skip
        try:
            with running_app(services) as http, _streaming(services):
                _took(http, 0, "purchase")  # everything is warm now
                for turn, load in enumerate(LOADS):
                    numbers = range(turn * ROUNDS, (turn + 1) * ROUNDS)
                    with _beside(http, load):
                        for kind in ("purchase", "preference"):
                            _report(kind, load, [_took(http, i, kind) for i in numbers])
                _profiles(world)
        finally:
            ray.shutdown()


def _promote(services: Services, world: World) -> None:
    Lake(services.lake).append(past())  # what the rows of the shop hold already
    directory = Path(services.lake, "models", "bench")
    artifact_of(world.catalogue).save(str(directory))
    named = json.dumps({"version": "bench", "directory": str(directory)})
    connect_redis(services.redis_url).set(CHAMPION_KEY, named)


@contextmanager
def _streaming(services: Services) -> Iterator[None]:
    """`reco stream` in a thread, until the block ends."""
    over = threading.Event()

    def progress(*_: object) -> None:
        if over.is_set():
            raise KeyboardInterrupt

    thread = threading.Thread(target=run_until_stopped, args=(services, 1, progress))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _beside(http: httpx.Client, rate: int) -> Iterator[None]:
    """Other events at a rate through the same door."""
    over = threading.Event()
    bodies = [json.dumps([json.loads(p) for _, p in events(REQUEST, seed=s)]) for s in range(20)]

    def send() -> None:
        began, sent = time.perf_counter(), 0
        with httpx.Client(base_url=http.base_url, headers=http.headers, timeout=60) as own:
            while not over.is_set():
                body = bodies[sent % len(bodies)].replace('"e', f'"{secrets.token_hex(4)}-e')
                own.post("/v1/events", content=body).raise_for_status()
                sent += 1
                time.sleep(max(began + sent * REQUEST / rate - time.perf_counter(), 0))

    thread = threading.Thread(target=send)
    if rate:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if rate:
            thread.join()


def _took(http: httpx.Client, number: int, kind: str) -> float:
    """Seconds from the request with an event to the first answer that differs."""
    user = USERS[5 + number % 30] if kind == "purchase" else f"x{number:04d}"
    before = _picks(http, user)
    event: dict[str, Any] = {"event_id": secrets.token_hex(8), "user_id": user, "type": kind}
    if kind == "purchase":
        event["item_id"] = before[0]  # what was bought is not shown again
    else:
        event["category"] = f"aisle {number % 5}"
    began = time.perf_counter()
    http.post("/v1/events", json=[event]).raise_for_status()
    while _picks(http, user) == before:
        if time.perf_counter() > began + LIMIT_S:
            raise ServiceUnavailable(f"The picks of {user} stay the same after a {kind}.")
        time.sleep(ASKED_EVERY_S)
    return time.perf_counter() - began


def _profiles(world: World) -> None:
    """From a commit in PostgreSQL, by the shop's own SQL, to the changed row."""
    took: dict[str, list[float]] = {"region": [], "consent_profiling": []}
    for number in range(CHANGES):
        for user, column, value in (
            ("u10", "region", f"r{number}"),
            ("u11", "consent_profiling", number % 2 == 1),
        ):
            before = world.online.fetch([user]).pack()
            with world.engine.begin() as connection:
                query = f"update subscribers set {column} = %(value)s where user_id = %(user)s"
                connection.exec_driver_sql(query, {"value": value, "user": user})
            began = time.perf_counter()
            while world.online.fetch([user]).pack() == before:
                if time.perf_counter() > began + LIMIT_S:
                    raise ServiceUnavailable(f"The row stays the same after a new {column}.")
                time.sleep(ASKED_EVERY_S)
            took[column].append(time.perf_counter() - began)
    for column, seconds in took.items():
        p50, p95 = np.percentile(seconds, [50, 95])
        print(
            f"a new {column} in PostgreSQL to the changed row: p50 {p50:.2f} s, p95 {p95:.2f} s",
            flush=True,
        )


def _picks(http: httpx.Client, user: str) -> list[str]:
    asked = {"users": [user], "k": 5, "rules": {"seen": "drop"}}
    (found,) = http.post("/v1/recommend", json=asked).raise_for_status().json()["users"]
    return [pick["item_id"] for pick in found["picks"]]


def _report(kind: str, load: int, took: list[float]) -> None:
    p50, p95 = np.percentile(took, [50, 95])
    print(
        f"a {kind} over HTTP to a changed answer of /v1/recommend, beside {load:,} events/s: "
        f"p50 {p50:.2f} s, p95 {p95:.2f} s, most {max(took):.2f} s",
        flush=True,
    )
