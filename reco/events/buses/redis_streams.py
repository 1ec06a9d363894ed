"""The bus on Redis Streams: a stream a shard, one consumer group, trimmed behind what is done.

The inbox is one more stream, for writers that know no shards, such as the readers of mails; who
reads shard 0 reads it too. Its entries are flat fields and become JSON here.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import redis

from reco.addresses import connect_redis
from reco.errors import ServiceUnavailable
from reco.events.bus import GROUP, NAME, Message

INBOX: Final = NAME
FIELD: Final = b"event"  # holds the JSON; an entry without it is flat
MOST_WAITING: Final = 2_000_000  # entries of a shard; then appends are refused and nothing is lost
COMMANDS: Final = 2_000  # a pipeline
IDS: Final = 1_000  # an XACK


class RedisBus:
    """Streams in Redis 7 or later, or Valkey."""

    def __init__(self, url: str, shards: int) -> None:
        """Connect. Raises ServiceUnavailable."""
        self.shards = shards
        self._redis = connect_redis(url)

    def append(self, events: Sequence[tuple[int, bytes]]) -> None:
        """See reco.events.bus.Bus."""
        with _translated():
            self._check_room({shard for shard, _ in events})
            for start in range(0, len(events), COMMANDS):
                pipeline = self._redis.pipeline(transaction=False)
                for shard, payload in events[start : start + COMMANDS]:
                    pipeline.xadd(stream_key(shard), {FIELD: payload})
                pipeline.execute()

    def reader(self, shards: Sequence[int], name: str) -> "RedisReader":
        """See reco.events.bus.Bus."""
        return RedisReader(self._redis, shards, name)

    def close(self) -> None:
        """See reco.events.bus.Bus."""
        self._redis.close()

    def _check_room(self, shards: set[int]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for shard in shards:
            pipeline.xlen(stream_key(shard))
        if max(pipeline.execute(), default=0) > MOST_WAITING:
            raise ServiceUnavailable(
                "The event bus takes no more events.",
                f"A shard holds more than {MOST_WAITING:,} that wait to be processed.",
                "Start `reco stream`, then send them again.",
            )


class RedisReader:
    """A consumer of the group `reco`."""

    def __init__(self, client: redis.Redis, shards: Sequence[int], name: str) -> None:
        self._redis = client
        self._name = name
        self._shards = {stream_key(shard).encode(): shard for shard in shards}
        if 0 in shards:
            self._shards[INBOX.encode()] = 0
        self._busy = len(self._shards)  # streams that had something the last time
        self._read_to: dict[bytes, bytes] = {}
        with _translated():
            self._make_groups()

    def read(self, limit: int, timeout_s: float) -> list[Message]:
        """See reco.events.bus.Reader."""
        count = max(limit // max(self._busy, 1), 1)  # Redis counts by stream
        new = dict.fromkeys(self._shards, ">")
        with _translated():
            try:
                found = self._read_group(new, count, timeout_s)
            except redis.ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                self._make_groups()  # somebody emptied the store
                found = self._read_group(new, count, timeout_s)
        self._busy = len(found)
        self._read_to |= {stream: entries[-1][0] for stream, entries in found.items()}
        return [
            self._message(stream, entry, fields)
            for stream, entries in found.items()
            for entry, fields in entries
        ]

    def claim(self, limit: int, idle_s: float) -> list[Message]:
        """See reco.events.bus.Reader."""
        messages: list[Message] = []
        for stream in self._shards:
            start: bytes | str = "0-0"
            while len(messages) < limit:
                with _translated():
                    start, entries, *_ = self._redis.xautoclaim(
                        stream, GROUP, self._name, int(idle_s * 1000), start, count=limit
                    )
                messages += [self._message(stream, entry, fields) for entry, fields in entries]
                if start in (b"0-0", "0-0"):
                    break
        return messages

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """See reco.events.bus.Reader."""
        entries: dict[bytes, list[bytes]] = defaultdict(list)
        for message in messages:
            stream, entry = message.handle
            entries[stream].append(entry)
        with _translated():
            pipeline = self._redis.pipeline(transaction=False)
            for stream, ids in entries.items():
                for at in range(0, len(ids), IDS):
                    pipeline.xack(stream, GROUP, *ids[at : at + IDS])
                pipeline.xpending(stream, GROUP)
            answers = [found for found in pipeline.execute() if isinstance(found, dict)]
            for (stream, ids), pending in zip(entries.items(), answers, strict=True):
                # Up to what was read, all that is not pending was acknowledged.
                done = pending["min"] or self._read_to.get(stream, ids[-1])
                pipeline.xtrim(stream, minid=done, approximate=True)
            pipeline.execute()

    def lag(self) -> int:
        """See reco.events.bus.Reader."""
        waiting = 0
        with _translated():
            for stream in self._shards:
                group = next(g for g in self._redis.xinfo_groups(stream) if _name(g) == GROUP)
                unread = group.get("lag")  # unknown when entries were deleted by hand
                waiting += group["pending"]
                waiting += self._redis.xlen(stream) if unread is None else unread
        return waiting

    def close(self) -> None:
        """See reco.events.bus.Reader."""

    def _read_group(self, new: dict[Any, Any], count: int, timeout_s: float) -> dict[bytes, Any]:
        block = max(int(timeout_s * 1000), 1)  # 0 would wait for ever
        found: Any = self._redis.xreadgroup(GROUP, self._name, new, count=count, block=block)
        return dict(found or {})

    def _make_groups(self) -> None:
        for stream in self._shards:
            try:
                self._redis.xgroup_create(stream, GROUP, "0", mkstream=True)
            except redis.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    def _message(self, stream: bytes, entry: bytes, fields: dict[bytes, bytes] | None) -> Message:
        payload = (fields or {}).get(FIELD)
        if payload is None:
            flat = {_text(name): _text(value) for name, value in (fields or {}).items() if value}
            payload = json.dumps(flat).encode()
        name = f"{stream.decode()}/{entry.decode()}"
        return Message(payload, name, self._shards[stream], (stream, entry))


def stream_key(shard: int) -> str:
    """Redis key of the stream of a shard."""
    return f"{NAME}:{shard:02d}"


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


def _name(group: dict[str, Any]) -> str:
    name = group["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise ServiceUnavailable(
            "The event bus (Redis) does not answer.",
            str(error),
            "Check RECO_BUS_URL or RECO_REDIS_URL; the call may be repeated.",
        ) from error
