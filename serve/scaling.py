"""How many consumers a lag asks for, and which buckets each has."""

from typing import Final

GROW_LAG: Final = 20_000  # messages a consumer: a full batch waits behind the one under way
GROW_TICKS: Final = 5  # so long it must have lagged: a burst passes by itself
SHRINK_TICKS: Final = 120  # so long almost nothing waited


class Scaling:
    """One more consumer while they lag, one less when they have long been idle."""

    def __init__(self, most: int) -> None:
        self.wanted = 1
        self._most = most
        self._behind = self._ahead = 0

    def see(self, lag: int) -> None:
        """Once a tick: how many messages wait in all."""
        self._behind = self._behind + 1 if lag > GROW_LAG * self.wanted else 0
        self._ahead = self._ahead + 1 if lag < GROW_LAG // 10 else 0
        if self._behind >= GROW_TICKS and self.wanted < self._most:
            self.wanted, self._behind = self.wanted + 1, 0
        elif self._ahead >= SHRINK_TICKS and self.wanted > 1:
            self.wanted, self._ahead = self.wanted - 1, 0


def shares(buckets: int, consumers: int) -> list[tuple[int, ...]]:
    """Buckets of each consumer: all of them, each once, as evenly as it goes."""
    return [tuple(range(i, buckets, consumers)) for i in range(consumers)]
