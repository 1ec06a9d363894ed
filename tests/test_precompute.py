from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from reco.embedded import Services, connect_redis
from reco.errors import NotFound
from reco.events.schema import conform
from reco.features.online import OnlineStore
from reco.models.registry import champion
from reco.models.scorer import Scorer
from reco.models.topk import unpack
from reco.tables import CHAMPION_KEY, SUBSCRIBERS, topk_key
from tests.model_world import DAY, START, artifact_of, catalogue_of, small_lake
from train import features, precompute
from train.examples import open_store

CATALOGUE = catalogue_of(400)
CUT = START + timedelta(days=DAY)
pytestmark = pytest.mark.usefixtures("ray_cluster")


def quiet(*_: object) -> None:
    """No progress."""


@pytest.fixture
def users(services: Services) -> Iterator[list[str]]:
    """Three hundred subscribers: two pages, most of them without a history."""
    ids = [f"u{i:03d}" for i in range(300)]
    with open_store(services) as store:
        store.upsert(conform(pl.DataFrame({"user_id": ids}), SUBSCRIBERS))
        yield store.ids(limit=10_000)


def test_what_is_stored_is_what_the_scorer_says(
    services: Services, users: list[str], tmp_path: Path
) -> None:
    redis, lake = connect_redis(services.redis_url), small_lake(tmp_path / "lake", CATALOGUE)
    directory = tmp_path / "v1"
    artifact_of(CATALOGUE).save(str(directory))
    redis.set(CHAMPION_KEY, f'{{"version": "v1", "directory": "{directory}"}}')
    with open_store(services) as store:
        features.run(lake, store, OnlineStore(redis), CUT, quiet)

    summary = precompute.run(services, lake, quiet, k=30, ttl_s=600)

    live = Scorer.load(str(directory), CATALOGUE).score(OnlineStore(redis).fetch(users), CUT, 30)
    stored = unpack(redis.mget([topk_key(u) for u in users]), 30, "v1")
    assert summary.subscribers == len(users) >= 300
    assert champion(redis) is not None
    assert (stored.slates.items == live.items).mean() > 0.99  # float sums differ by the chunk
    assert np.allclose(stored.slates.scores, live.scores, atol=1e-3)
    assert 0 < redis.ttl(topk_key(users[0])) <= 600
    redis.flushdb()
    redis.close()


def test_without_a_champion_it_says_what_to_do(services: Services, tmp_path: Path) -> None:
    redis = connect_redis(services.redis_url)
    redis.delete(CHAMPION_KEY)
    redis.close()

    with pytest.raises(NotFound, match="reco train"):
        precompute.run(services, small_lake(tmp_path / "lake", CATALOGUE), quiet)
