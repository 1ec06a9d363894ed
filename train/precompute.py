"""The precompute stage.

The top K of every subscriber into Redis, so that a campaign need not score.

Takes the online rows and the champion, gives one packed slate a subscriber with a TTL
(reco.models.topk), stamped with the model's version. Ray Data over pages of subscribers.
"""

import time
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import ray
import ray.data

from reco.catalogue import Catalogue
from reco.embedded import Services, connect_redis
from reco.errors import NotFound
from reco.events.lake import Lake
from reco.features.online import OnlineStore
from reco.models.registry import require_champion
from reco.models.scorer import Scorer
from reco.models.topk import pack
from reco.tables import topk_key
from reco.terminal import Report
from train.examples import open_store
from train.hygiene import pages

CHUNK: Final = 256
TTL_S: Final = 6 * 3600
PLACES: Final = 50
MOST_BLOCKS: Final = 64


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
    """Store the top `k` of all subscribers for `ttl_s` seconds, by default as of the online rows.

    Raises NotFound without a champion or without online features.
    """
    began, done = time.perf_counter(), 0
    with closing(connect_redis(services.redis_url)) as redis, open_store(services) as store:
        model, meta = require_champion(redis), OnlineStore(redis).meta()
        if meta is None:
            raise NotFound("There are no online features.", "", "Run `reco features` first.")
        total, rows = store.count(), [{"users": page} for page in pages(store, CHUNK)]
    writer = (services.redis_url, lake, model.directory, as_of or meta.as_of, k, ttl_s)
    blocks = max(min(len(rows), MOST_BLOCKS), 1)
    stored = ray.data.from_items(rows or [{"users": []}], override_num_blocks=blocks).map(
        Writer,  # type: ignore[arg-type]  # a callable class
        fn_constructor_args=writer,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=blocks),
    )
    for row in stored.iter_rows():
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
        """How many slates of the page were stored."""
        users = list(row["users"])
        slates = self.scorer.score(self.online.fetch(users), self.as_of, self.k)
        pipeline = self.redis.pipeline(transaction=False)
        values = pack(slates, self.scorer.version, int(self.as_of.timestamp()))
        for user_id, value in zip(users, values, strict=True):
            pipeline.set(topk_key(user_id), value, ex=self.ttl_s)
        pipeline.execute()
        return {"stored": len(users)}
