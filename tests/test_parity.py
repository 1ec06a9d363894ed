"""Offline and online are one: tables made as of a time equal what the online rows say of it."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from reco.catalogue import Catalogue
from reco.features.definitions import USER_FEATURES, read_users
from reco.features.history import cutoff_day
from reco.features.items import ItemFacts
from reco.features.online import OnlineStore
from reco.features.table import read_user_table
from reco.features.view import Context
from tests.feature_events import fill, slice_events, slice_items
from train import features

NOW = datetime(2017, 12, 18, tzinfo=UTC)
TIMES = [NOW - timedelta(days=days) for days in range(0, 280, 28)]


@pytest.mark.usefixtures("ray_cluster")
def test_a_thousand_values_are_equal_offline_and_online(lake, redis, slice_dir):
    fill(lake, slice_events(slice_dir), slice_items(slice_dir))
    online = OnlineStore(redis)
    items = ItemFacts.of(Catalogue.of(lake.items()))
    names = [f.name for f in USER_FEATURES]
    offline, served = [], []
    for when in TIMES:
        # The newest load is served: what happened after `when` is in the rows and must not count.
        features.run(lake, None, online if when == NOW else None, when, lambda *_: None)
        table = read_user_table(lake, when)
        offline.append(table.select(pl.col(names).fill_null(float("nan"))).to_numpy())
        served.append(
            read_users(online.fetch(table["user_id"].to_list()), Context(cutoff_day(when), items))
        )
    expected, actual = np.concatenate(offline), np.concatenate(served)

    assert len(expected) >= 1000
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)
    assert (np.nan_to_num(expected) != 0).any(axis=0).sum() > 15  # enough features say something
