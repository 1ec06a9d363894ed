"""The online store: one packed history a subscriber in Redis, read by MGET.

Takes Histories (from train.features or from new events), gives the same bytes back to the graph.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import redis

from reco.errors import ModelMismatch, ServiceUnavailable
from reco.features.definitions import SCHEMA_HASH
from reco.features.history import LAYOUT, Histories
from reco.tables import FEATURES_META_KEY, history_key

MGET_KEYS: Final = 256  # keys a command: about 1 us each, and no reply that blocks others for long
SETS: Final = 512  # commands a pipeline


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
        keys = [history_key(user_id) for user_id in user_ids]
        rows: list[Any] = []
        with _translated():
            for start in range(0, len(keys), MGET_KEYS):
                rows += self._redis.mget(keys[start : start + MGET_KEYS])
        return Histories.unpack(rows)

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
