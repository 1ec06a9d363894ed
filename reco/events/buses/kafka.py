"""The bus on Kafka: a topic with a partition a shard, offsets committed by hand.

Shards are assigned, not balanced by the broker: which process reads what is decided by us.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from confluent_kafka import (
    OFFSET_STORED,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from reco.errors import ConfigError, ServiceUnavailable
from reco.events.bus import GROUP, NAME, Message

TOPIC: Final = NAME.replace(":", ".")
TIMEOUT_S: Final = 30.0


class KafkaBus:
    """kafka://host:port,host:port/topic; the topic is made when it is missing."""

    def __init__(self, url: str, shards: int) -> None:
        """Connect. Raises ServiceUnavailable, ConfigError when the topic has other partitions."""
        self.shards = shards
        address = urlsplit(url)
        self._servers: dict[str, Any] = {"bootstrap.servers": address.netloc}
        self._topic = address.path.strip("/") or TOPIC
        with _translated():
            self._make_topic()
            # acks: the leader and its replicas have it. linger: a batch goes out together.
            self._producer = Producer(self._servers | {"acks": "all", "linger.ms": 5})

    def append(self, events: Sequence[tuple[int, bytes]]) -> None:
        """See reco.events.bus.Bus."""
        faults: list[str] = []

        def delivered(error: KafkaError | None, _: object) -> None:
            if error is not None:
                faults.append(str(error))

        with _translated():
            for shard, payload in events:
                self._produce(shard, payload, delivered)
            waiting = self._producer.flush(TIMEOUT_S)
        if faults or waiting:
            raise _unavailable(faults[0] if faults else f"{waiting} events wait for an answer")

    def reader(self, shards: Sequence[int], name: str) -> "KafkaReader":
        """See reco.events.bus.Bus."""
        return KafkaReader(self._servers | {"client.id": name}, self._topic, shards)

    def close(self) -> None:
        """See reco.events.bus.Bus."""
        self._producer.flush(TIMEOUT_S)

    def _produce(self, shard: int, payload: bytes, delivered: Any) -> None:
        while True:
            try:
                self._producer.produce(self._topic, payload, partition=shard, on_delivery=delivered)
                return
            except BufferError:  # the queue of the client is full: wait until a batch is out
                self._producer.poll(0.1)

    def _make_topic(self) -> None:
        admin = AdminClient(self._servers)
        known = admin.list_topics(timeout=TIMEOUT_S).topics.get(self._topic)
        if known is None or known.error is not None:
            made = admin.create_topics([NewTopic(self._topic, self.shards, 1)])
            try:
                made[self._topic].result(TIMEOUT_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        elif len(known.partitions) != self.shards:
            raise ConfigError(
                f"The Kafka topic {self._topic} has {len(known.partitions)} partitions.",
                f"The lake has {self.shards} buckets, and each is one partition.",
                f"Make a topic with {self.shards} partitions and name it in RECO_BUS_URL.",
            )


class KafkaReader:
    """Reads from the offsets that the group `reco` has committed."""

    def __init__(self, settings: dict[str, Any], topic: str, shards: Sequence[int]) -> None:
        self._topic = topic
        self._shards = list(shards)
        manual = {
            "group.id": GROUP,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,  # how long the broker may wait for more
        }
        with _translated():
            self._consumer = Consumer(settings | manual)
            self._consumer.assign([TopicPartition(topic, s, OFFSET_STORED) for s in self._shards])

    def read(self, limit: int, timeout_s: float) -> list[Message]:
        """See reco.events.bus.Reader."""
        with _translated():
            # `consume` waits until all of `limit` are there: ask for one, then for what is here.
            found = self._consumer.consume(1, timeout_s)
            if found and limit > 1:
                found += self._consumer.consume(limit - 1, 0.005)
        messages = []
        for record in found:
            if record.error():
                raise _unavailable(str(record.error()))
            shard, offset = record.partition() or 0, record.offset()
            name = f"{self._topic}/{shard}/{offset}"
            messages.append(Message(record.value() or b"", name, shard, offset))
        return messages

    def claim(self, limit: int, idle_s: float) -> list[Message]:
        """Nothing: a new reader starts at what is not committed."""
        return []

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """See reco.events.bus.Reader."""
        last = {message.shard: message.handle for message in messages}
        if last:
            done = [TopicPartition(self._topic, s, o + 1) for s, o in last.items()]
            with _translated():
                self._consumer.commit(offsets=done, asynchronous=False)

    def lag(self) -> int:
        """See reco.events.bus.Reader."""
        waiting = 0
        with _translated():
            shards = [TopicPartition(self._topic, s) for s in self._shards]
            for done in self._consumer.committed(shards, timeout=TIMEOUT_S):
                shard = TopicPartition(self._topic, done.partition)
                first, asked = self._consumer.get_watermark_offsets(shard, timeout=TIMEOUT_S)
                # What came with the last fetch may be newer than the answer of the broker.
                _, fetched = self._consumer.get_watermark_offsets(shard, cached=True)
                start = done.offset if done.offset >= 0 else first
                waiting += max(asked, fetched, start) - start
        return waiting

    def close(self) -> None:
        """See reco.events.bus.Reader."""
        self._consumer.close()


def _unavailable(why: str) -> ServiceUnavailable:
    return ServiceUnavailable(
        "The event bus (Kafka) does not answer.",
        why,
        "Check RECO_BUS_URL and that the brokers run; the call may be repeated.",
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise _unavailable(str(error)) from error
