"""The event bus of a replica, which comes up and does its work while the bus is away."""

import time
from collections.abc import Sequence
from threading import Lock
from typing import Final

from reco.errors import RecoError, ServiceUnavailable
from reco.events.bus import Bus, Reader, adapter

REST_S: Final = 5.0  # after an opening that failed: nobody waits for the next one


class LateBus:
    """A bus that is opened when it is first used, by whichever thread comes first."""

    def __init__(self, url: str, shards: int) -> None:
        """Raises ConfigError for an address that no bus can have, as open_bus does."""
        self.shards = shards
        self._url, self._adapter = url, adapter(url)
        self._bus: Bus | None = None
        self._rests_until = 0.0
        self._opening = Lock()

    def append(self, events: Sequence[tuple[int, bytes]]) -> None:
        """See reco.events.bus.Bus.append. Raises ServiceUnavailable, also when it cannot open."""
        self._opened().append(events)

    def reader(self, shards: Sequence[int], name: str) -> Reader:
        """See reco.events.bus.Bus.reader. Raises ServiceUnavailable when it cannot open."""
        return self._opened().reader(shards, name)

    def close(self) -> None:
        """Close what was opened."""
        with self._opening:
            bus, self._bus = self._bus, None
        if bus is not None:
            bus.close()

    def _opened(self) -> Bus:
        with self._opening:
            if self._bus is None:
                self._bus = self._open()
            return self._bus

    def _open(self) -> Bus:
        if time.monotonic() < self._rests_until:
            raise ServiceUnavailable("The event bus did not answer a moment ago.")
        try:
            return self._adapter(self._url, self.shards)
        except RecoError as error:  # a topic of another shape is the operator's, no client's error
            self._rests_until = time.monotonic() + REST_S
            raise ServiceUnavailable(
                "The event bus cannot be used.", str(error), "Check RECO_BUS_URL."
            ) from error
