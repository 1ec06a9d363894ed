"""Whether a campaign gets through before its window closes, at the pace of the last seconds.

Behind schedule its mails take the cheaper rungs of the ladder: the model is not asked any more.
"""

from collections import deque
from datetime import datetime, timedelta
from typing import Final

LOOKS_BACK: Final = timedelta(seconds=20)
LEAST: Final = timedelta(seconds=3)  # before there is a pace to speak of
STANDS_STILL: Final = timedelta(seconds=12)  # senders that have just started have no pace yet
BEHIND: Final = 0.95  # of the time that is left: who needs more than that is behind
AHEAD: Final = 0.5  # who needs less than that may ask the model again


class Schedule:
    """Judges one run; `behind` is asked now and then."""

    def __init__(self, closes_at: datetime | None) -> None:
        self._closes_at = closes_at
        self._seen: deque[tuple[datetime, int]] = deque()
        self._behind = False

    def behind(self, done: int, left: int, now: datetime) -> bool:
        """Whether to hurry, with so many deliveries done, and so many left, by now."""
        if self._closes_at is None:
            return False
        self._seen.append((now, done))
        while now - self._seen[0][0] > LOOKS_BACK:
            self._seen.popleft()
        since, before = self._seen[0]
        if now - since >= (LEAST if done > before else STANDS_STILL):
            needed_s = (now - since).total_seconds() * left / max(done - before, 1)
            limit = AHEAD if self._behind else BEHIND
            self._behind = needed_s > limit * (self._closes_at - now).total_seconds()
        return self._behind
