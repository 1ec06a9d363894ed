"""POST /v1/events: what is accepted is on the bus, once, and comes to count."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from reco.errors import InputError
from reco.events.bus import open_bus
from reco.events.door import accept, signature, source_key
from reco.features.online import OnlineStore
from reco.features.verify import verify
from reco.processes import free_port
from reco.tables import user_bucket
from serve import ingest, problems
from serve.late_bus import LateBus
from tests.streams import NOW, consumer, drain, small_lake, stream_events


@dataclass(frozen=True)
class Addresses:
    """As much of Services as the door needs."""

    bus_url: str
    api_key: str = "secret"
    link_key: bytes = b"k" * 32


KEY = {"X-API-Key": "secret"}


@contextmanager
def client_of(url, shards=4):
    """A client of a server with the route alone."""
    app = FastAPI()
    problems.install(app)
    app.include_router(ingest.router(Addresses(url), LateBus(url, shards)))
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def lake(tmp_path):
    return small_lake(tmp_path / "lake")


@pytest.fixture
def http(redis, redis_url):
    with client_of(redis_url) as client:
        yield client


def test_accepted_events_are_on_the_bus_and_come_to_count(http, redis, redis_url, lake):
    events = stream_events(200)

    answer = http.post("/v1/events", json={"events": events}, headers=KEY)
    drain(consumer(lake, redis, redis_url))

    assert 202 == answer.status_code
    assert {"accepted": 200, "event_ids": [e["event_id"] for e in events]} == answer.json()
    assert 200 == len(lake.events().collect())
    assert 0 == verify(lake, OnlineStore(redis), None, NOW).differing


@pytest.mark.parametrize("body", [{}, [{}], {"events": [{}]}])
def test_one_event_a_list_and_an_object_with_a_list_are_the_same(http, redis, redis_url, body):
    (event,) = stream_events(1)
    full = json.loads(json.dumps(body).replace("{}", json.dumps(event)))

    assert [event["event_id"]] == http.post("/v1/events", json=full, headers=KEY).json()[
        "event_ids"
    ]


def test_a_request_that_is_sent_again_counts_once(http, redis, redis_url, lake):
    given = stream_events(50)
    nameless = [{k: v for k, v in e.items() if k != "event_id"} for e in stream_events(50, seed=3)]
    twins = [nameless[0]] * 2  # two alike in one request are two

    for _ in range(3):
        http.post("/v1/events", json=given + nameless + twins, headers=KEY)
    drain(consumer(lake, redis, redis_url))

    assert 102 == len(lake.events().collect())


def test_an_event_without_a_time_happened_now(redis, redis_url, lake):
    (event,) = stream_events(1)
    del event["timestamp"]

    accept(json.dumps(event).encode(), open_bus(redis_url, lake.buckets), NOW)
    drain(consumer(lake, redis, redis_url))

    assert [NOW] == lake.events().collect()["timestamp"].to_list()


def test_an_event_goes_to_the_shard_of_its_user(redis, redis_url):
    bus = open_bus(redis_url, 4)
    accept(json.dumps(stream_events(60)).encode(), bus, NOW)
    found = bus.reader(range(4), "one").read(1_000, 0.1)

    assert 60 == len(found)
    assert all(user_bucket(json.loads(m.payload)["user_id"], 4) == m.shard for m in found)


# -- who may -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-API-Key": "other"}, 401),
        ({"Authorization": "Bearer secret"}, 202),
        (KEY, 202),
        (KEY | {"X-Reco-Source": "shop"}, 401),
        (KEY | {"X-Reco-Signature": "sha256=00"}, 401),
    ],
)
def test_a_key_or_a_signature_is_needed_and_a_wrong_one_is_refused(http, headers, status):
    answer = http.post("/v1/events", json=stream_events(1), headers=headers)

    assert status == answer.status_code
    assert ("unauthorized" if status == 401 else None) == answer.json().get("code")


def test_a_source_signs_its_body_and_no_other(http, redis, redis_url, lake):
    body = json.dumps(stream_events(2)).encode()
    key = source_key(Addresses("").link_key, "shop")
    signed = {"X-Reco-Source": "shop", "X-Reco-Signature": signature(key, body)}

    assert 202 == http.post("/v1/events", content=body, headers=signed).status_code
    assert 401 == http.post("/v1/events", content=body + b" ", headers=signed).status_code
    other = signed | {"X-Reco-Source": "other"}
    assert 401 == http.post("/v1/events", content=body, headers=other).status_code
    drain(consumer(lake, redis, redis_url))
    assert {'{"source": "shop"}'} == set(lake.events().collect()["attributes"])


# -- what is wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"{nope", b"", b"[]", b'"text"', b"7", json.dumps([{}] * 1001).encode()]
)
def test_a_body_that_holds_no_batch_of_events_is_refused_and_nothing_of_it_kept(http, redis, body):
    answer = http.post("/v1/events", content=body, headers=KEY)

    assert (422, "input") == (answer.status_code, answer.json()["code"])
    assert [] == redis.keys()


def test_a_body_that_is_too_large_is_not_read_to_its_end(http, redis):
    answer = http.post("/v1/events", content=b"[" + b" " * 5_000_001, headers=KEY)

    assert 413 == answer.status_code
    assert [] == redis.keys()


def test_bad_events_of_a_batch_become_dead_letters_and_the_good_ones_count(
    http, redis, redis_url, lake
):
    good = stream_events(10)
    bad = ["text", None, 7, {}, {"user_id": "u"}, {**good[0], "event_id": "n", "value": "much"}]

    answer = http.post("/v1/events", json=good + bad, headers=KEY)
    one = consumer(lake, redis, redis_url)
    drain(one)

    assert (202, 16) == (answer.status_code, answer.json()["accepted"])
    assert 10 == len(lake.events().collect())


def test_without_a_bus_nothing_is_accepted_and_the_client_may_repeat(redis):
    with client_of(f"redis://127.0.0.1:{free_port()}") as http:
        answer = http.post("/v1/events", json=stream_events(1), headers=KEY)

    assert (503, "unavailable") == (answer.status_code, answer.json()["code"])
    assert "Retry-After" in answer.headers


def test_many_clients_at_once_lose_nothing(http, redis, redis_url, lake):
    batches = [stream_events(40, seed=seed) for seed in range(12)]
    ready = threading.Barrier(4)

    def send(part):
        ready.wait()
        return [http.post("/v1/events", json=b, headers=KEY).status_code for b in part]

    with ThreadPoolExecutor(4) as pool:
        codes = [
            code for part in pool.map(send, [batches[i::4] for i in range(4)]) for code in part
        ]
    drain(consumer(lake, redis, redis_url))

    assert [202] * 12 == codes
    assert 480 == len(lake.events().collect())


def test_a_body_of_events_is_named_in_its_error(redis, redis_url):
    with pytest.raises(InputError, match="1 to 1,000 events"):
        accept(b"[]", open_bus(redis_url, 4), NOW)
