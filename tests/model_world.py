"""A small model made of random numbers: the right shapes without a training run."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import torch

from reco.catalogue import Catalogue
from reco.events.lake import Lake
from reco.events.schema import conform
from reco.features.history import RECORD, Histories
from reco.models.artifact import Artifact, ModelConfig
from reco.models.calibration import Calibration
from reco.models.explore import EXPLORE_FEATURES
from reco.models.item_statistics import ITEM_FEATURES, ItemStatistics
from reco.models.lookalike import Lookalike
from reco.models.ranker import Head
from reco.models.repeat import REPEAT_FEATURES
from reco.models.spectral import unit
from reco.models.taste import USER_COLUMNS
from reco.models.towers import Towers
from reco.tables import EVENTS, ITEMS, item_keys, type_code

DAY = 17_500  # 2017-11-30
START = datetime(1970, 1, 1, tzinfo=UTC)
LEVEL = (0.0,) * len(USER_COLUMNS)


def catalogue_of(items: int, seed: int = 0) -> Catalogue:
    """Items i00000.. with a category, a brand and a price."""
    draw = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "item_id": [f"i{i:05d}" for i in range(items)],
            "title": [f"thing number {i % 97}" for i in range(items)],
            "category": [f"c{i % 60}" for i in range(items)],
            "brand": [f"b{i % 40}" for i in range(items)],
            "price": draw.lognormal(1, 0.7, items),
        }
    )
    schema = pl.DataFrame(pl.from_arrow(ITEMS.empty_table())).schema
    missing = [pl.lit(None).cast(schema[c]).alias(c) for c in ITEMS.names if c not in frame.columns]
    return Catalogue.of(frame.with_columns(missing))


def artifact_of(catalogue: Catalogue, candidates: int = 200, repeats: bool = True) -> Artifact:
    """A model over all items of a catalogue."""
    draw = np.random.default_rng(1)
    n, d = len(catalogue), 128
    share = np.sort(draw.pareto(1.2, n).astype(np.float32))[::-1].copy()
    share /= share.max() * 5
    weights = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)  # the heads' weights too are the same in every run
        for name, features in (("repeat", REPEAT_FEATURES), ("explore", EXPLORE_FEATURES)):
            for key, value in Head(len(features)).state_dict().items():
                weights[f"{name}.{key}"] = value.numpy()
    return Artifact(
        config=ModelConfig(
            target="purchase", as_of="2017-11-30T00:00:00+00:00", as_of_day=DAY, horizon_days=28,
            repeats=repeats, candidates=candidates, popularity_penalty=0.05, seed=0,
            repeat_calibration=Calibration(1, -2, LEVEL), settings={},
            explore_calibration=Calibration(1, -4, LEVEL),
        ),
        item_ids=catalogue.item_ids.tolist(),
        heads=weights,
        towers=Towers(
            taken=draw.standard_normal((n, d)).astype(np.float32),
            item=7 * unit(draw.standard_normal((n, d)).astype(np.float32)),
            bias=np.log(share),
            profile=np.zeros((64, d), np.float32),
            activity=np.zeros((d, len(USER_COLUMNS)), np.float32),
        ),
        statistics=ItemStatistics(
            features=draw.random((n, len(ITEM_FEATURES))).astype(np.float32),
            gap=np.full(n, 30, np.float32),
            share=share,
            price=catalogue.price,
            category=catalogue.category + 1,
            brand=catalogue.brand + 1,
            kind=catalogue.category,
        ),
        lookalike=Lookalike.of(
            takers=np.array([[9.0] * 20 + [0] * 30, [0] * 30 + [9.0] * 20]),
            members=np.array([10.0, 10.0]),
            tokens=np.array([11, 22], np.uint32),
            share=share[:50],
            rows=np.arange(50, dtype=np.int32),
        ),
    )  # fmt: skip


def histories_of(
    catalogue: Catalogue, sizes: list[int], tokens: list[int] | None = None, seed: int = 2
) -> Histories:
    """Subscribers with so many purchases each, of popular items more often, in the last year."""
    draw = np.random.default_rng(seed)
    total = sum(sizes)
    records = np.zeros(total, RECORD)
    row = np.minimum((draw.pareto(0.6, total) * 30).astype(np.int64), len(catalogue) - 1)
    records["item"] = item_keys(catalogue.item_ids.tolist())[row] if total else 0
    records["day"] = DAY - 1 - draw.integers(0, 330, total)
    records["count"], records["cents"] = 1, draw.integers(50, 2_000, total)
    records["type"] = type_code("purchase")
    profile = np.zeros((len(sizes), 4), np.uint32)
    profile[:, 0] = 0 if tokens is None else tokens
    return Histories.of(np.repeat(np.arange(len(sizes)), sizes), records, len(sizes), profile)


def small_lake(root: Path, catalogue: Catalogue, users: int = 40, seed: int = 3) -> Lake:
    """A lake with purchases of a year, the last 28 days of which lie after DAY."""
    draw = np.random.default_rng(seed)
    n = users * 30
    when = [START + timedelta(days=float(d)) for d in DAY - 330 + draw.random(n) * 358]
    events = pl.DataFrame(
        {
            "event_id": [f"e{i}" for i in range(n)],
            "user_id": [f"u{i % users:03d}" for i in range(n)],
            "type": "purchase",
            "timestamp": pl.Series(when, dtype=pl.Datetime("us", "UTC")),
            "item_id": catalogue.item_ids[draw.integers(0, len(catalogue), n)],
            "value": draw.random(n) * 9,
        }
    )
    lake = Lake(str(root))
    lake.write_items(catalogue.frame)
    lake.append(conform(events, EVENTS))
    return lake
