"""Events that could not be processed: kept with the reason, counted, and replayed after a fix.

They lie in Redis whichever bus is used: a stream, the number of each reason, and the ids of what
lies there, so that a batch which is delivered twice is written down once.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis

from reco.errors import ServiceUnavailable
from reco.events.bus import Bus, Message

STREAM: Final = "reco:dead"
IDS: Final = "reco:dead:ids"
REASONS: Final = "reco:dead:reasons"
MOST: Final = 100_000  # then the oldest are dropped; their number stays in REASONS
PAGE: Final = 500
# KEYS: stream, ids, reasons; ARGV: most, time (ms), then id, shard, reason, payload of each.
ADD: Final = """
for i = 3, #ARGV, 4 do
  if redis.call('ZADD', KEYS[2], 'NX', ARGV[2], ARGV[i]) == 1 then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*',
      'id', ARGV[i], 'shard', ARGV[i + 1], 'reason', ARGV[i + 2], 'payload', ARGV[i + 3])
    redis.call('HINCRBY', KEYS[3], ARGV[i + 2], 1)
  end
end
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -ARGV[1] - 1)
"""
# ARGV: entry, id and reason of each letter that is taken away.
REMOVE: Final = """
for i = 1, #ARGV, 3 do
  if redis.call('XDEL', KEYS[1], ARGV[i]) == 1 then
    redis.call('ZREM', KEYS[2], ARGV[i + 1])
    if redis.call('HINCRBY', KEYS[3], ARGV[i + 2], -1) <= 0 then
      redis.call('HDEL', KEYS[3], ARGV[i + 2])
    end
  end
end
"""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One event that was refused."""

    entry: str  # in the stream
    id: str  # of the message
    shard: int
    reason: str
    payload: bytes


class DeadLetters:
    """The dead letters of one installation. All methods raise ServiceUnavailable."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def add(self, letters: Sequence[tuple[Message, str]]) -> None:
        """Keep messages, each with its reason; one that lies here already is left alone."""
        now = int(time.time() * 1000)
        for start in range(0, len(letters), PAGE):
            page = letters[start : start + PAGE]
            fields = [(m.id, m.shard, reason, m.payload) for m, reason in page]
            self._run(ADD, [MOST, now, *(value for row in fields for value in row)])

    def counts(self) -> dict[str, int]:
        """How many were refused for each reason and not replayed since."""
        try:
            found: Any = self._redis.hgetall(REASONS)
        except redis.RedisError as error:
            raise _unavailable(error) from error
        return {reason.decode(): int(number) for reason, number in found.items()}

    def letters(self, reason: str | None = None) -> Iterator[DeadLetter]:
        """All dead letters, or those of one reason, oldest first."""
        after = "-"
        while True:
            try:
                entries: Any = self._redis.xrange(STREAM, after, "+", PAGE)
            except redis.RedisError as error:
                raise _unavailable(error) from error
            for entry, fields in entries:
                letter = DeadLetter(
                    entry=entry.decode(),
                    id=fields[b"id"].decode(),
                    shard=int(fields[b"shard"]),
                    reason=fields[b"reason"].decode(),
                    payload=fields[b"payload"],
                )
                if reason in (None, letter.reason):
                    yield letter
            if len(entries) < PAGE:
                return
            after = f"({entries[-1][0].decode()}"

    def replay(self, bus: Bus, reason: str | None = None) -> int:
        """Put letters on the bus again and take them from here; how many.

        Killed half way it may put some twice, which changes nothing: they keep their event ids.
        """
        page: list[DeadLetter] = []
        replayed = 0
        for letter in [*self.letters(reason)]:
            page.append(letter)
            if len(page) == PAGE:
                replayed += self._replay(bus, page)
                page = []
        return replayed + self._replay(bus, page)

    def _replay(self, bus: Bus, page: Sequence[DeadLetter]) -> int:
        bus.append([(letter.shard, letter.payload) for letter in page])
        self._run(REMOVE, [part for x in page for part in (x.entry, x.id, x.reason)])
        return len(page)

    def _run(self, script: str, arguments: Sequence[Any]) -> None:
        try:
            self._redis.register_script(script)([STREAM, IDS, REASONS], list(arguments))
        except redis.RedisError as error:
            raise _unavailable(error) from error


def _unavailable(error: redis.RedisError) -> ServiceUnavailable:
    return ServiceUnavailable(
        "The store of dead letters (Redis) does not answer.",
        str(error),
        "Check RECO_REDIS_URL; the call may be repeated.",
    )
