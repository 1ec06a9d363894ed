"""The stream processor: a micro-batch of the bus into the lake and the online rows, each once.

Order is what makes it safe: refuse bad events, append to the lake (which knows every event id),
bring the online rows to the lake's version, and only then acknowledge. A batch that is delivered
again after a kill adds nothing to the lake, and its rows are rebuilt where they had not been done.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import polars as pl

from reco.errors import InputError
from reco.events.append import Landed
from reco.events.bus import Message, Reader
from reco.events.deadletter import DeadLetters
from reco.events.known_ids import KnownIds
from reco.events.lake import Lake
from reco.events.payloads import Parsed, parse
from reco.tables import user_bucket

BATCH: Final = 20_000  # messages; more of them cost less each, and one takes about half a second
LINGER_S: Final = 0.2  # a batch waits so long for more: small ones make many small files
FOLLOW_S: Final = 5.0  # how soon rows know of an import or of a batch load that nobody told us of
EARLY: Final = timedelta(minutes=1)  # from here on a clock is wrong, and not only a network slow
IDLE_S: Final = 60.0  # a message that nobody acknowledged for so long has no living reader


class Rows(Protocol):
    """What is kept equal to the lake (reco.features.live.LiveRows)."""

    def follow(self, buckets: Sequence[int], landed: Sequence[Landed] = ()) -> None:
        """Bring the rows of buckets to the present version of the lake."""


class People(Protocol):
    """What follows from events: for profiles (reco.subscribers.first_touch), or as mails."""

    def record(self, events: pl.DataFrame) -> int:
        """Take events in, each once however often it comes."""


@dataclass(slots=True)
class Tally:
    """What a processor has done; messages = new + duplicates + refused.

    Clocks of sources are reported: `early` events lay ahead of ours by more than EARLY, and the
    farthest of the last batch by `ahead_s`. Those beyond a day are refused.
    """

    messages: int = 0
    new: int = 0
    duplicates: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    early: int = 0
    ahead_s: float = 0.0

    def add(
        self, messages: int, new: int, refused: Sequence[str], ahead: pl.Series | None = None
    ) -> None:
        """One batch is done; `ahead` says by how much each event lies in the future."""
        if ahead is not None:
            self.early += int((ahead > EARLY).sum())
            farthest = ahead.max()
            assert farthest is None or isinstance(farthest, timedelta)
            self.ahead_s = max(farthest.total_seconds(), 0.0) if farthest else 0.0
        self.messages += messages
        self.new += new
        self.duplicates += messages - new - len(refused)
        self.refused.update(refused)


class StreamProcessor:
    """Processes micro-batches. One thread; several processes may work on one lake."""

    def __init__(
        self,
        lake: Lake,
        rows: Rows,
        dead: DeadLetters,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        tally: Tally | None = None,
        people: People | None = None,
        triggers: People | None = None,
    ) -> None:
        """`tally` goes on counting where another processor stopped."""
        self.tally = Tally() if tally is None else tally
        self._lake = lake
        self._rows = rows
        self._dead = dead
        self._clock = clock
        self._people = people
        self._triggers = triggers
        self._known = KnownIds()
        self._types: set[str] = set()

    def recover(self, buckets: Sequence[int]) -> None:
        """Make up for what a process that died, or an import, left undone in these buckets."""
        self._rows.follow(buckets)

    def process(self, messages: Sequence[Message]) -> None:
        """Let a batch take effect, once however often it comes; the caller acknowledges it.

        Raises ServiceUnavailable, Conflict: nothing may be acknowledged then.
        """
        now = self._clock()
        parsed, landed = self._land([message.payload for message in messages], now)
        self._dead.add([(messages[i], reason) for i, reason in parsed.refused.items()])
        if self._people is not None:
            self._people.record(parsed.rows)
        # Also where nothing was new: this may be a batch that died before its rows were done.
        users = parsed.rows["user_id"].unique()
        touched = {user_bucket(user, self._lake.buckets) for user in users}
        self._rows.follow(sorted(touched), landed)
        if self._triggers is not None:  # their mails know of the event already
            self._triggers.record(parsed.rows)
        added = sum(len(part.rows) for part in landed)
        ahead = parsed.rows["timestamp"] - now
        self.tally.add(len(messages), added, [*parsed.refused.values()], ahead)

    def _land(self, payloads: Sequence[bytes], now: datetime) -> tuple[Parsed, list[Landed]]:
        """Parse and append; a type that another process added meanwhile is parsed against again."""
        parsed = parse(payloads, now, self._types)
        if parsed.rows.is_empty():
            return parsed, []
        if not self._types.issuperset(parsed.rows["type"].unique()):
            self._types = self._lake.manifest().types()
            parsed = parse(payloads, now, self._types)
        try:
            landed = self._lake.land(parsed.rows, self._known)
        except InputError:  # two types share a code, and the other one came just now
            self._types = self._lake.manifest().types()
            parsed = parse(payloads, now, self._types)
            landed = self._lake.land(parsed.rows, self._known)
        self._types |= set(parsed.rows["type"].unique())
        return parsed, landed


class Consumer:
    """Takes batches from a reader to a processor: the loop of one process."""

    def __init__(self, reader: Reader, processor: StreamProcessor, batch: int = BATCH) -> None:
        self._reader = reader
        self._processor = processor
        self._batch = batch
        self._buckets: Sequence[int] = ()
        self._followed_at = 0.0

    def begin(self, buckets: Sequence[int]) -> None:
        """Finish what the last reader of these shards left. Raises as `step` does."""
        self._buckets = buckets
        self._follow()
        while left := self._reader.claim(self._batch, 0.0):
            self._take(left)

    def step(self, timeout_s: float, linger_s: float = LINGER_S) -> int:
        """Process one batch; the number of its messages, 0 when none came within `timeout_s`.

        Raises ServiceUnavailable, Conflict: make a new Consumer then.
        """
        messages = self._reader.read(self._batch, timeout_s)
        if not messages:
            messages = self._reader.claim(self._batch, IDLE_S)
        elif linger_s and len(messages) < self._batch // 2:
            messages += self._linger(linger_s, self._batch - len(messages))
        if messages:
            self._take(messages)
        if time.monotonic() > self._followed_at + FOLLOW_S:
            self._follow()
        return len(messages)

    def _linger(self, linger_s: float, room: int) -> list[Message]:
        """What else comes within a moment."""
        more: list[Message] = []
        end = time.monotonic() + linger_s
        while len(more) < room and (left := end - time.monotonic()) > 0:
            more += self._reader.read(room - len(more), left)
        return more

    def _follow(self) -> None:
        self._processor.recover(self._buckets)
        self._followed_at = time.monotonic()

    def _take(self, messages: Sequence[Message]) -> None:
        self._processor.process(messages)
        self._reader.acknowledge(messages)
