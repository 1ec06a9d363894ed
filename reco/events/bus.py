"""The event bus: what the door appends, the stream processor reads and, once all is done, forgets.

A shard is a bucket of the lake, so all events of a user pass through one shard in order. Delivery
is at least once: a message is given out again until it is acknowledged, whoever died meanwhile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from reco.errors import ConfigError

NAME: Final = "reco:events"  # of streams; of topics and queues with dots
GROUP: Final = "reco"  # the consumer group of the stream processor


@dataclass(frozen=True, slots=True)
class Message:
    """One event on the bus: JSON in bytes, and what its bus knows it by."""

    payload: bytes
    id: str  # the same whenever it is delivered again
    shard: int
    handle: Any  # by which the adapter acknowledges it; opaque to all others


class Reader(Protocol):
    """Reads some shards for one process. Not to be shared between threads."""

    def read(self, limit: int, timeout_s: float) -> list[Message]:
        """About `limit` new messages at most; waits up to `timeout_s` for the first.

        Raises ServiceUnavailable.
        """

    def claim(self, limit: int, idle_s: float) -> list[Message]:
        """Messages that a reader took more than `idle_s` ago and never acknowledged.

        Empty where the bus itself gives them out again. Raises ServiceUnavailable.
        """

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Forget messages, in the order in which they were read. Raises ServiceUnavailable."""

    def lag(self) -> int:
        """About how many messages wait for this reader. Raises ServiceUnavailable."""

    def close(self) -> None:
        """Leave; what is not acknowledged is given to the next reader."""


class Bus(Protocol):
    """A bus of `shards` shards. Safe to share between threads."""

    shards: int

    def append(self, events: Sequence[tuple[int, bytes]]) -> None:
        """Add (shard, JSON of one event) pairs; returns when the bus has them for good.

        After an error some may be there: append all again, event ids make it harmless.
        Raises ServiceUnavailable.
        """

    def reader(self, shards: Sequence[int], name: str) -> Reader:
        """A reader of these shards; `name` tells the readers of one group apart."""

    def close(self) -> None:
        """Close the connections for appending."""


def open_bus(url: str, shards: int) -> Bus:
    """The bus at redis://, rediss://, unix://, kafka://host:port,… or amqp(s)://.

    Raises ConfigError for another scheme or a client that is not installed, ServiceUnavailable.
    """
    return adapter(url)(url, shards)


def adapter(url: str) -> Callable[[str, int], Bus]:
    """What opens the bus at an address; nobody is asked yet. Raises ConfigError as open_bus."""
    scheme = urlsplit(url).scheme
    try:
        if scheme in ("redis", "rediss", "unix"):
            from reco.events.buses.redis_streams import RedisBus

            return RedisBus
        if scheme == "kafka":
            from reco.events.buses.kafka import KafkaBus

            return KafkaBus
        if scheme in ("amqp", "amqps"):
            from reco.events.buses.rabbitmq import RabbitBus

            return RabbitBus
    except ModuleNotFoundError as error:
        extra = "kafka" if scheme == "kafka" else "rabbitmq"
        raise ConfigError(
            f"The event bus needs the package {error.name}.",
            f"RECO_BUS_URL begins with {scheme}://, and clients of further buses are optional.",
            f"Run `pip install 'reco[{extra}]'`.",
        ) from error
    raise ConfigError(
        f"{scheme}:// is no event bus.",
        "Known are redis://, kafka:// and amqp://.",
        "Correct RECO_BUS_URL, or leave it out to use Redis.",
    )
