"""The online store: one packed history a subscriber in Redis, read by MGET.

Takes Histories (from train.features or from new events), gives the same bytes back to the graph.
"""

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import redis

from reco.errors import ModelMismatch, ServiceUnavailable
from reco.features.definitions import SCHEMA_HASH
from reco.features.history import LAYOUT, Histories
from reco.tables import FEATURES_META_KEY, history_key, rows_key, topk_key

MGET_KEYS: Final = 256  # keys a command: about 1 us each, and no reply that blocks others for long
SETS: Final = 512  # commands a pipeline
# KEYS: mark, rows; ARGV: the mark that must be there, the new one, new rows.
SWAP: Final = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 1]) end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class FeaturesMeta:
    """What the last load of the online store was made from.

    popular   uint64 [m]  item keys by different buyers in the last 28 days before as_of, best first
    """

    as_of: datetime
    subscribers: int
    popular: npt.NDArray[np.uint64]
    layout: int = LAYOUT
    schema: str = SCHEMA_HASH


@dataclass(frozen=True, slots=True)
class Mark:
    """What the rows of a bucket hold: the lake's events up to a version of the bucket.

    Every write of rows replaces the mark, in one step with them, and is refused when the mark is
    not the one that the writer has seen. So rows and mark always fit, whoever dies or interferes.
    """

    version: int  # Manifest.version of the bucket
    before: datetime | None = None  # only events before this time; None: all of them
    loading: bool = False  # half of the rows may be older: count on none of them
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))  # no two marks are equal

    @property
    def is_live(self) -> bool:
        """Whether the rows hold all events of the version, so that new ones may be added."""
        return self.before is None and not self.loading

    def dumps(self) -> bytes:
        """As JSON."""
        before = self.before and self.before.isoformat()
        return json.dumps([self.version, before, self.loading, self.nonce]).encode()

    @classmethod
    def loads(cls, text: bytes) -> "Mark":
        """From JSON."""
        version, before, loading, nonce = json.loads(text)
        return cls(version, before and datetime.fromisoformat(before), loading, nonce)


@dataclass(frozen=True, slots=True)
class Swap:
    """Histories of users of a bucket and its new mark, to be written if the old one is `seen`."""

    bucket: int
    seen: Mark | None
    mark: Mark
    user_ids: Sequence[str]
    histories: Histories


class OnlineStore:
    """Packed histories by user id. Travels to worker processes, which reconnect."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def __reduce__(self) -> tuple[object, ...]:
        pool = self._redis.connection_pool
        plain = {
            name: value
            for name, value in pool.connection_kwargs.items()
            if isinstance(value, str | bytes | int | float | None) and not name.startswith("orig_")
        }
        return _reconnect, (pool.connection_class, plain)

    def load(self, user_ids: Sequence[str], histories: Histories, updated: int = 0) -> None:
        """Replace the histories of these subscribers; `updated` is the time of the data (s).

        For a store beside which no stream runs: a mark would not know of it (see `swap`).
        Raises ServiceUnavailable.
        """
        rows = histories.pack(updated)
        with _translated():
            for start in range(0, len(rows), SETS):
                pipeline = self._redis.pipeline(transaction=False)
                for user_id, row in zip(
                    user_ids[start : start + SETS], rows[start : start + SETS], strict=True
                ):
                    pipeline.set(history_key(user_id), row)
                pipeline.execute()

    def fetch(self, user_ids: Sequence[str]) -> Histories:
        """Histories of these subscribers, in this order; one that is unknown has an empty one.

        Raises ServiceUnavailable, ModelMismatch.
        """
        return Histories.unpack(self._rows(user_ids))

    def held(self, user_ids: Sequence[str]) -> tuple[Histories, npt.NDArray[np.bool_]]:
        """Histories as `fetch` gives them, and who has a row at all.

        Raises ServiceUnavailable, ModelMismatch.
        """
        rows = self._rows(user_ids)
        return Histories.unpack(rows), np.array([row is not None for row in rows], bool)

    def mark(self, bucket: int) -> Mark | None:
        """Mark of the rows of a bucket, None before the first. Raises ServiceUnavailable."""
        return self.marks([bucket])[0]

    def marks(self, buckets: Sequence[int]) -> list[Mark | None]:
        """Marks of the rows of buckets, in their order. Raises ServiceUnavailable."""
        if not buckets:
            return []
        with _translated():
            texts: Any = self._redis.mget([rows_key(bucket) for bucket in buckets])
        return [None if text is None else Mark.loads(text) for text in texts]

    def swap(
        self,
        bucket: int,
        seen: Mark | None,
        mark: Mark,
        user_ids: Sequence[str],
        histories: Histories,
    ) -> bool:
        """Replace histories and the mark of their bucket, in one step.

        Does nothing, and gives False, when the mark is not `seen` any more.
        Raises ServiceUnavailable.
        """
        return self.swap_many([Swap(bucket, seen, mark, user_ids, histories)])[0]

    def swap_many(self, swaps: Sequence[Swap]) -> list[bool]:
        """Swaps of several buckets in one go, each for itself. Raises ServiceUnavailable."""
        now = int(time.time())
        with _translated():
            pipeline = self._redis.pipeline(transaction=False)
            script = pipeline.register_script(SWAP)
            for one in swaps:
                keys = [rows_key(one.bucket), *map(history_key, one.user_ids)]
                expected = b"" if one.seen is None else one.seen.dumps()
                script(keys, [expected, one.mark.dumps(), *one.histories.pack(now)])
            return [bool(done) for done in pipeline.execute()]

    def forget_slates(self, user_ids: Sequence[str]) -> None:
        """Drop precomputed slates, which know less than the rows. Raises ServiceUnavailable."""
        keys = [topk_key(user_id) for user_id in user_ids]
        with _translated():
            for start in range(0, len(keys), MGET_KEYS):
                self._redis.unlink(*keys[start : start + MGET_KEYS])

    def write_meta(self, meta: FeaturesMeta) -> None:
        """Keep `meta`, after the load that it describes. Raises ServiceUnavailable."""
        text = json.dumps(
            {
                "as_of": meta.as_of.isoformat(),
                "subscribers": meta.subscribers,
                "layout": meta.layout,
                "schema": meta.schema,
                "popular": meta.popular.tolist(),
            }
        )
        with _translated():
            self._redis.set(FEATURES_META_KEY, text)

    def meta(self) -> FeaturesMeta | None:
        """Meta of the last load, None before the first.

        Raises ServiceUnavailable, ModelMismatch when another version of reco wrote the store.
        """
        with _translated():
            text = self._redis.get(FEATURES_META_KEY)
        if text is None:
            return None
        raw = json.loads(text)
        if raw["layout"] != LAYOUT:
            raise ModelMismatch(
                "Online features have another layout than this program.",
                "They were written by another version of reco.",
                "Run `reco features` with this version, then try again.",
            )
        return FeaturesMeta(
            as_of=datetime.fromisoformat(raw["as_of"]),
            subscribers=raw["subscribers"],
            popular=np.array(raw["popular"], np.uint64),
            layout=raw["layout"],
            schema=raw["schema"],
        )

    def _rows(self, user_ids: Sequence[str]) -> list[bytes | None]:
        keys = [history_key(user_id) for user_id in user_ids]
        rows: list[Any] = []
        with _translated():
            for start in range(0, len(keys), MGET_KEYS):
                rows += self._redis.mget(keys[start : start + MGET_KEYS])
        return rows


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise ServiceUnavailable(
            "The online store (Redis) does not answer.",
            str(error),
            "Check RECO_REDIS_URL and that the server runs; the call may be repeated.",
        ) from error


def _reconnect(
    connection: type[redis.connection.AbstractConnection], arguments: dict[str, Any]
) -> OnlineStore:
    pool = redis.ConnectionPool(connection_class=connection, **arguments)
    return OnlineStore(redis.Redis.from_pool(pool))
