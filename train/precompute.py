"""The precompute stage: the top K of every subscriber into Redis, so that a campaign need not score.

Takes the online rows and the champion, gives one packed slate a subscriber with a TTL
(reco.models.topk), stamped with the model's version. Ray Data over pages of subscribers.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import ray
import ray.data

from reco.catalogue import Catalogue
from reco.database import open_database
from reco.embedded import Services, connect_redis
from reco.errors import NotFound
from reco.events.lake import Lake
from reco.features.online import OnlineStore
from reco.models.artifact import check_model
from reco.models.registry import champion
from reco.models.scorer import Scorer
from reco.models.topk import pack
from reco.subscribers.store import SubscriberStore
from reco.tables import topk_key
from reco.terminal import Report

CHUNK: Final = 256
TTL_S: Final = 6 * 3600
PLACES: Final = 50


@dataclass(frozen=True, slots=True)
class PrecomputeSummary:
    """What was stored."""

    subscribers: int
    places: int
    model: str
    ttl_s: int
    seconds: float


def run(
    services: Services, lake: Lake, progress: Report, *,
    as_of: datetime | None = None, k: int = PLACES, ttl_s: int = TTL_S,
) -> PrecomputeSummary:  # fmt: skip
    """Store the top `k` of all subscribers for `ttl_s` seconds. `as_of`: of the online rows by default.

    Raises NotFound without a champion or without online features.
    """
    began = time.perf_counter()
    redis = connect_redis(services.redis_url)
    model, meta = champion(redis), OnlineStore(redis).meta()
    if model is None:
        raise NotFound(
            "There is no champion.", "No model was promoted yet.", "Run `reco train` first."
        )
    if meta is None:
        raise NotFound("There are no online features.", "", "Run `reco features` first.")
    check_model(model.directory)
    store = SubscriberStore(open_database(services.database_url))
    total, done = store.count(), 0
    rows = [{"users": ids} for ids in _pages(store)]
    writer = (services.redis_url, lake, model.directory, as_of or meta.as_of, k, ttl_s)
    dataset = ray.data.from_items(rows, override_num_blocks=max(min(len(rows), 64), 1)).map(
        Writer, fn_constructor_args=writer, compute=ray.data.ActorPoolStrategy(size=1)
    ) if rows else None  # fmt: skip
    for row in dataset.iter_rows() if dataset else ():
        done += row["stored"]
        progress("precompute", done, total)
    return PrecomputeSummary(done, k, model.version, ttl_s, round(time.perf_counter() - began, 1))


class Writer:
    """Scores a page of subscribers and stores their slates; holds the Scorer between pages."""

    def __init__(
        self, redis_url: str, lake: Lake, directory: str, as_of: datetime, k: int, ttl_s: int
    ) -> None:
        self.redis = connect_redis(redis_url)
        self.online = OnlineStore(self.redis)
        self.scorer = Scorer.load(directory, Catalogue.of(lake.items()))
        self.as_of, self.k, self.ttl_s = as_of, k, ttl_s

    def __call__(self, row: dict[str, Any]) -> dict[str, int]:
        users = list(row["users"])
        slates = self.scorer.score(self.online.fetch(users), self.as_of, self.k)
        pipeline = self.redis.pipeline(transaction=False)
        values = pack(slates, self.scorer.version, int(datetime.now(UTC).timestamp()))
        for user_id, value in zip(users, values, strict=True):
            pipeline.set(topk_key(user_id), value, ex=self.ttl_s)
        pipeline.execute()
        return {"stored": len(users)}


def _pages(store: SubscriberStore) -> Iterator[list[str]]:
    page = store.ids(limit=CHUNK)
    while page:
        yield page
        page = store.ids(after=page[-1], limit=CHUNK)
