"""A stream consumer as a Ray actor: a thin coat on reco.events.stream, with its connections.

It may die at any moment: Ray starts it again, and what it had not acknowledged comes again.
"""

import os
import time
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from reco.errors import Conflict, ServiceUnavailable
from reco.events.bus import open_bus
from reco.events.deadletter import DeadLetters
from reco.events.stream import Consumer, StreamProcessor, Tally
from reco.features.live import LiveRows
from reco.features.profile import read_profiles
from reco.subscribers.first_touch import FirstTouches
from reco.subscribers.store import SubscriberStore
from serve.stores import Stores
from serve.stream_metrics import StreamMeters
from serve.triggers import Triggers

WAIT_S: Final = 0.5  # of a consumer for its next message; also how soon it notices what it is told
AGAIN_S: Final = 2.0  # between attempts while a store is away

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """How a consumer is."""

    pid: int
    buckets: tuple[int, ...]
    lag: int | None  # messages that wait, as of its last batch; None before the first
    tally: Tally


class ConsumerActor:
    """One consumer in a process of its own."""

    def __init__(self, home: str, name: str) -> None:
        self._stores = Stores(home, patient=True)
        self._name = name
        self._buckets: tuple[int, ...] = ()
        self._stopped = False
        self._lag: int | None = None
        self._tally = Tally()
        self._meters = StreamMeters()

    def work(self) -> None:
        """Process the buckets that are assigned, until `stop`; stores may go and come back."""
        while not self._stopped:
            try:
                self._work_on(self._buckets)
            except (ServiceUnavailable, Conflict) as error:
                log.warning("the stream waits", consumer=self._name, why=str(error))
                time.sleep(AGAIN_S)

    def assign(self, buckets: tuple[int, ...]) -> None:
        """Take these buckets from the next batch on."""
        self._buckets = buckets

    def status(self) -> ConsumerStatus:
        """How far it is."""
        return ConsumerStatus(os.getpid(), self._buckets, self._lag, self._tally)

    def stop(self) -> None:
        """Let `work` end after the batch that is under way."""
        self._stopped = True

    def _work_on(self, buckets: tuple[int, ...]) -> None:
        if not buckets:
            time.sleep(WAIT_S)
            return
        processor = StreamProcessor(
            self._stores.lake,
            LiveRows(
                self._stores.lake,
                self._stores.online,
                partial(read_profiles, SubscriberStore(self._stores.engine)),
            ),
            DeadLetters(self._stores.redis),
            tally=self._tally,
            people=FirstTouches(self._stores.engine),
            triggers=Triggers(self._stores.engine),
        )
        bus = open_bus(self._stores.services.bus_url, self._stores.lake.buckets)
        reader = bus.reader(buckets, self._name)
        try:
            consumer = Consumer(reader, processor)
            consumer.begin(buckets)
            while not self._stopped and self._buckets == buckets:
                consumer.step(WAIT_S)
                self._lag = reader.lag()
                self._meters.report(self._tally, self._lag)
        finally:
            reader.close()
            bus.close()
