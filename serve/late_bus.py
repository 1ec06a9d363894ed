"""The event bus of a replica, which comes up and does its work while the bus is away."""

from collections.abc import Sequence
from threading import Lock

from reco.events.bus import Bus, Reader, open_bus


class LateBus:
    """A bus that is opened when it is first used, by whichever thread comes first."""

    def __init__(self, url: str, shards: int) -> None:
        self.shards = shards
        self._url = url
        self._bus: Bus | None = None
        self._opening = Lock()

    def append(self, events: Sequence[tuple[int, bytes]]) -> None:
        """See reco.events.bus.Bus.append. Raises what open_bus raises, too."""
        self._opened().append(events)

    def reader(self, shards: Sequence[int], name: str) -> Reader:
        """See reco.events.bus.Bus.reader. Raises what open_bus raises, too."""
        return self._opened().reader(shards, name)

    def close(self) -> None:
        """Close what was opened."""
        if self._bus is not None:
            self._bus.close()

    def _opened(self) -> Bus:
        with self._opening:  # one that is away now may be there for the next call
            if self._bus is None:
                self._bus = open_bus(self._url, self.shards)
            return self._bus
