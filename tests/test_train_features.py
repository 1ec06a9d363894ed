"""The features stage on real servers and a real cluster, with the committed slice."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import ray
import redis as redis_client

from reco.errors import NotFound, ServiceUnavailable
from reco.events.lake import Lake
from reco.features.definitions import ITEM_FEATURES, USER_FEATURES
from reco.features.history import NO_PROFILING, from_events
from reco.features.online import OnlineStore
from reco.features.profile import tokens_of
from reco.features.table import read_user_table, table_name, users_name
from reco.processes import free_port
from reco.subscribers.store import SubscriberStore
from reco.tables import item_keys
from tests.feature_events import fill, slice_events, slice_items
from train import cluster, features

AS_OF = datetime(2017, 12, 4, tzinfo=UTC)
pytestmark = pytest.mark.usefixtures("ray_cluster")


def silent(stage, done, total):
    pass


@pytest.fixture(scope="module")
def events(slice_dir):
    return slice_events(slice_dir)


@pytest.fixture(scope="module")
def items(slice_dir):
    return slice_items(slice_dir)


def test_tables_hold_everybody_before_the_time_and_every_item(lake, events, items):
    seen = []
    summary = features.run(
        fill(lake, events, items), None, None, AS_OF, lambda *step: seen.append(step)
    )
    before = events.filter(pl.col("timestamp") < AS_OF)
    users = read_user_table(lake, AS_OF)
    table = lake.read_table(table_name(AS_OF, "items"))

    assert users.columns == ["user_id", *(f.name for f in USER_FEATURES)]
    assert sorted(users["user_id"]) == sorted(before["user_id"].unique())
    assert table.columns == ["item_id", *(f.name for f in ITEM_FEATURES)]
    assert table["item_id"].to_list() == sorted(items["item_id"])
    assert (summary.users, summary.events) == (len(users), len(before))
    assert summary.items == len(items)
    folder = "features/as_of=2017-12-04T000000"
    assert summary.tables == [f"{folder}/users", f"{folder}/items"]
    assert seen == [("features", done, lake.buckets) for done in range(1, lake.buckets + 1)]


def test_money_and_counts_agree_with_the_events(lake, events, items):
    features.run(fill(lake, events, items), None, None, AS_OF, silent)
    window = events.filter(
        pl.col("timestamp").is_between(datetime(2017, 11, 6, tzinfo=UTC), AS_OF, closed="left")
    )
    expected = window.group_by("user_id").agg(pl.len().alias("count"), pl.col("value").sum())
    joined = expected.join(read_user_table(lake, AS_OF), on="user_id", validate="1:1")

    assert len(joined) == len(expected) > 50
    np.testing.assert_allclose(joined["money_purchase_28d"], joined["value"], rtol=1e-6)
    # A day on which one bought the same item more than 255 times would be cut; none is.
    assert joined["count_purchase_28d"].to_list() == joined["count"].to_list()


@pytest.mark.parametrize("fate", ["removed", "shuffled"])
def test_nothing_at_or_after_the_time_changes_a_byte(tmp_path, events, items, fate):
    later = pl.col("timestamp") >= AS_OF
    future = events.filter(later)
    changed = {
        "removed": future.clear(),
        "shuffled": future.with_columns(
            pl.col("user_id", "item_id", "value").shuffle(seed=1),
            pl.when(pl.int_range(pl.len()) % 3 == 0)
            .then(AS_OF)
            .otherwise("timestamp")
            .alias("timestamp"),
        ),
    }[fate]
    before = fill(Lake(str(tmp_path / "a")), events, items)
    after = fill(Lake(str(tmp_path / "b")), pl.concat([events.filter(~later), changed]), items)
    features.run(before, None, None, AS_OF, silent)
    features.run(after, None, None, AS_OF, silent)

    assert len(future) > 1000
    for name in [
        table_name(AS_OF, "items"),
        *(users_name(AS_OF, b) for b in range(before.buckets)),
    ]:
        a, b = (Path(lake.path(f"{name}.parquet")).read_bytes() for lake in (before, after))
        assert a == b, name


def test_the_online_store_gets_profiles_and_histories_of_everybody(
    lake, events, items, redis, engine
):
    known = events["user_id"].unique().sort().to_list()
    store = SubscriberStore(engine)
    store.upsert(
        pl.DataFrame(
            {
                "user_id": [*known[1:], "newcomer"],
                "region": "north",
                "consent": [False, *[True] * len(known[2:]), None],
            }
        )
    )
    online = OnlineStore(redis)
    summary = features.run(fill(lake, events, items), store, online, AS_OF, silent)
    stranger, refused, other, newcomer = known[0], known[1], known[2], "newcomer"
    got = online.fetch([stranger, refused, other, newcomer])
    north = tokens_of([{"region": "north", "attributes": {}}])[0].tolist()
    sizes = np.diff(got.offsets)

    assert summary.users == len(known) + 1
    assert got.tokens.tolist() == [[0] * len(north), [0] * len(north), north, north]
    assert got.flags.tolist() == [0, NO_PROFILING, 0, 0]
    assert sizes[0] > 0
    assert sizes[1] == 0
    assert sizes[2] > 0
    assert sizes[3] == 0
    before = events.filter(pl.col("timestamp") < AS_OF)
    assert got.take(2, 3).records.tobytes() == from_events(before, [other]).records.tobytes()


def test_meta_names_the_popular_items_of_the_last_28_days(lake, events, items, redis):
    online = OnlineStore(redis)
    features.run(fill(lake, events, items), None, online, AS_OF, silent)
    window = pl.col("timestamp").is_between(datetime(2017, 11, 6, tzinfo=UTC), AS_OF, closed="left")
    buyers = (
        events.filter(window)
        .join(items, on="item_id", how="semi")
        .group_by("item_id")
        .agg(pl.col("user_id").n_unique())
    )
    ranked = buyers.with_columns(key=pl.Series(item_keys(buyers["item_id"]))).sort(
        "user_id", "key", descending=[True, False]
    )
    meta = online.meta()

    assert meta.as_of == AS_OF
    assert meta.subscribers == len(read_user_table(lake, AS_OF))
    assert meta.popular.tolist() == ranked["key"].head(features.POPULAR).to_list()


def test_an_empty_lake_is_refused(lake):
    with pytest.raises(NotFound, match="reco import events"):
        features.run(lake, None, None, AS_OF, silent)


def test_a_store_that_is_away_ends_the_run_with_one_clear_error(lake, events, items):
    away = OnlineStore(redis_client.Redis(port=free_port(), retry=None))

    with pytest.raises(ServiceUnavailable, match="RECO_REDIS_URL"):
        features.run(fill(lake, events, items), None, away, AS_OF, silent)


def test_a_shop_without_items_still_has_user_features_and_the_items_of_its_events(lake, events):
    lake.append(events)
    summary = features.run(lake, None, None, AS_OF, silent)
    users = read_user_table(lake, AS_OF)

    before = events.filter(pl.col("timestamp") < AS_OF)["item_id"].drop_nulls()
    assert summary.items == before.n_unique() < events["item_id"].n_unique()
    assert users["count_purchase_90d"].sum() > 1000
    assert users["category_1"].unique().to_list() == [-1]
    assert users["price_band_mean"].null_count() == len(users)


def test_a_cluster_that_is_in_use_is_left_running(services):
    with cluster.connect(services):
        pass

    assert ray.is_initialized()


def test_names_that_the_submitted_job_sets_are_left_to_it(monkeypatch):
    job = {"runtime_env": {"env_vars": {"RECO_LAKE": "/theirs"}}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))

    ours = {"RECO_LAKE": "/ours", "RECO_HOME": "/home"}
    assert cluster.workers_environment(ours) == {"RECO_HOME": "/home"}
