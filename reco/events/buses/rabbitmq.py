"""The bus on RabbitMQ: a durable quorum queue a shard, publisher confirms, acknowledged by hand.

A message holds a frame of events, one JSON a line, since the broker and its client pay by message;
messages that others publish with one JSON each are read as well.
"""

import threading
import uuid
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import pika
import pika.exceptions
import xxhash
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic, BasicProperties

from reco.errors import ServiceUnavailable
from reco.events.bus import NAME, Message

QUEUE: Final = NAME.replace(":", ".")
FRAME: Final = 200  # events
FRAMED: Final = "application/x-ndjson"
PREFETCH: Final = 512  # messages that a reader may hold
DURABLE: Final = {"x-queue-type": "quorum"}


class RabbitBus:
    """amqp://user:password@host:port/vhost; the queues are made when they are missing."""

    def __init__(self, url: str, shards: int) -> None:
        """Connect. Raises ServiceUnavailable."""
        self.shards = shards
        self._url = url
        self._lock = threading.Lock()
        with _translated():
            self._channel = self._open()

    def append(self, events: Sequence[tuple[int, bytes]]) -> None:
        """See reco.events.bus.Bus."""
        frames = [*_frames(events)]
        with self._lock, _translated():
            try:
                self._publish(frames)
            except pika.exceptions.AMQPConnectionError:
                # An idle connection is closed by the broker: nobody answers its heartbeats here.
                self._channel = self._open()
                self._publish(frames)

    def reader(self, shards: Sequence[int], name: str) -> "RabbitReader":
        """See reco.events.bus.Bus."""
        with _translated():
            return RabbitReader(_connect(self._url, name), shards)

    def close(self) -> None:
        """See reco.events.bus.Bus."""
        with suppress(pika.exceptions.AMQPError):
            self._channel.connection.close()

    def _open(self) -> BlockingChannel:
        channel = _connect(self._url, "door")
        for shard in range(self.shards):
            channel.queue_declare(queue_name(shard), durable=True, arguments=DURABLE)
        channel.confirm_delivery()
        return channel

    def _publish(self, frames: Sequence[tuple[int, bytes, str]]) -> None:
        for shard, body, kind in frames:
            name = uuid.uuid4().hex
            properties = BasicProperties(content_type=kind, delivery_mode=2, message_id=name)
            # With confirms on this returns once a majority of the queue's replicas has the frame.
            self._channel.basic_publish("", queue_name(shard), body, properties, mandatory=True)


class RabbitReader:
    """A consumer on a connection of its own; when that ends, the broker gives all out again."""

    def __init__(self, channel: BlockingChannel, shards: Sequence[int]) -> None:
        self._channel = channel
        self._shards = list(shards)
        self._arrived: deque[Message] = deque()
        channel.basic_qos(prefetch_count=PREFETCH, global_qos=False)
        for shard in self._shards:
            channel.queue_declare(queue_name(shard), durable=True, arguments=DURABLE)
            channel.basic_consume(queue_name(shard), self._take, consumer_tag=f"shard-{shard}")

    def read(self, limit: int, timeout_s: float) -> list[Message]:
        """See reco.events.bus.Reader."""
        with _translated():
            if not self._arrived:
                self._channel.connection.process_data_events(timeout_s)
            self._channel.connection.process_data_events(0)
        return [self._arrived.popleft() for _ in range(min(limit, len(self._arrived)))]

    def claim(self, limit: int, idle_s: float) -> list[Message]:
        """Nothing: the broker gives out again what a lost connection held."""
        return []

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """See reco.events.bus.Reader."""
        # A frame whose rest has not been read stays until its last event is done.
        done = [message.handle[0] for message in messages if message.handle[1]]
        with _translated():
            for tag in done:
                self._channel.basic_ack(tag)
            self._channel.connection.process_data_events(0)

    def lag(self) -> int:
        """See reco.events.bus.Reader; frames that nobody has read count as one."""
        with _translated():
            declared = [
                self._channel.queue_declare(queue_name(shard), passive=True)
                for shard in self._shards
            ]
            self._channel.connection.process_data_events(0)
        waiting = sum(int(found.method.message_count) for found in declared)
        return len(self._arrived) + waiting

    def close(self) -> None:
        """See reco.events.bus.Reader."""
        with suppress(pika.exceptions.AMQPError):
            self._channel.connection.close()

    def _take(
        self,
        channel: BlockingChannel,
        delivery: Basic.Deliver,
        properties: BasicProperties,
        body: bytes,
    ) -> None:
        shard = int(delivery.consumer_tag.removeprefix("shard-"))
        payloads = body.split(b"\n") if properties.content_type == FRAMED else [body]
        for i, payload in enumerate(payloads):
            handle = (delivery.delivery_tag, i == len(payloads) - 1)
            name = f"{properties.message_id or xxhash.xxh3_128_hexdigest(body)}/{i}"
            self._arrived.append(Message(payload, name, shard, handle))


def queue_name(shard: int) -> str:
    """Queue of a shard."""
    return f"{QUEUE}.{shard:02d}"


def _frames(events: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, str]]:
    """(shard, body, content type) of the messages that carry the events."""
    lines: dict[int, list[bytes]] = defaultdict(list)
    for shard, payload in events:
        if b"\n" in payload:
            yield shard, payload, "application/json"
        else:
            lines[shard].append(payload)
    for shard, payloads in lines.items():
        for start in range(0, len(payloads), FRAME):
            yield shard, b"\n".join(payloads[start : start + FRAME]), FRAMED


def _connect(url: str, name: str) -> BlockingChannel:
    parameters = pika.URLParameters(url)
    parameters.client_properties = {"connection_name": f"reco {name}"}
    return pika.BlockingConnection(parameters).channel()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (pika.exceptions.AMQPError, OSError) as error:
        raise ServiceUnavailable(
            "The event bus (RabbitMQ) does not answer.",
            str(error) or type(error).__name__,
            "Check RECO_BUS_URL and that the broker runs; the call may be repeated.",
        ) from error
