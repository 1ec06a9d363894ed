"""Events that the tests of the features share: random ones, and those of the committed slice."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from reco.catalogue import Catalogue
from reco.events.lake import Lake
from reco.events.schema import conform
from reco.tables import EVENTS, ITEMS

NOON = datetime(2017, 12, 4, 12, tzinfo=UTC)
TYPES = ("purchase", "click", "open", "view", "delivery", "rating", "nudge")
USERS = tuple(f"u{i}" for i in range(6))
ITEM_IDS = tuple(f"i{i}" for i in range(9))


def event_rows(seed: int, count: int) -> list[dict[str, object]]:
    """Random events of USERS around NOON; some lack item, time or money, some name no item."""
    chance = random.Random(seed)
    return [
        {
            "event_id": f"e{i}",
            "user_id": chance.choice(USERS),
            "type": chance.choice(TYPES),
            "item_id": chance.choice((*ITEM_IDS, "unknown", None)),
            "timestamp": None
            if chance.random() < 0.05
            else NOON - timedelta(seconds=int(chance.triangular(-9e5, 9e6, 4e5))),
            "value": chance.choice((None, round(chance.uniform(0, 50), 2))),
            "price": chance.choice((None, round(chance.uniform(0, 9), 2))),
            "quantity": chance.choice((None, 2.0)),
        }
        for i in range(count)
    ]


def event_frame(rows: list[dict[str, object]]) -> pl.DataFrame:
    """Rows as a frame of tables.EVENTS."""
    columns = {name: [row.get(name) for row in rows] for name in EVENTS.names}
    return conform(pl.DataFrame(columns, strict=False), EVENTS)


def shop() -> Catalogue:
    """ITEM_IDS in three categories and none, with rising prices, one without."""
    rows = [
        {
            "item_id": name,
            "category": None if i % 4 == 3 else f"c{i % 4}",
            "price": None if i == 4 else 1.0 + i,
            "margin": 0.25 if i % 2 else None,
            "published_at": datetime(2017, 11, 1, tzinfo=UTC) if i == 2 else None,
        }
        for i, name in enumerate(ITEM_IDS)
    ]
    columns = {name: [row.get(name) for row in rows] for name in ITEMS.names}
    return Catalogue.of(conform(pl.DataFrame(columns), ITEMS))


def slice_events(folder: Path) -> pl.DataFrame:
    """Purchases of the committed slice as rows of tables.EVENTS."""
    transactions = pl.read_parquet(folder / "transactions.parquet")
    return conform(
        transactions.select(
            event_id=pl.int_range(pl.len()).cast(pl.String),
            user_id=pl.col("household_id").cast(pl.String),
            type=pl.lit("purchase"),
            timestamp=pl.col("transaction_timestamp").dt.replace_time_zone("UTC"),
            item_id=pl.col("product_id").cast(pl.String),
            value=pl.col("sales_value"),
            quantity=pl.col("quantity").cast(pl.Float64),
        ),
        EVENTS,
    )


def slice_items(folder: Path) -> pl.DataFrame:
    """Items of the committed slice as rows of tables.ITEMS, with the median price."""
    sold = pl.read_parquet(folder / "transactions.parquet").filter(pl.col("quantity") > 0)
    price = (pl.col("sales_value") / pl.col("quantity")).median()
    prices = sold.group_by("product_id").agg(price.alias("price"))
    products = pl.read_parquet(folder / "products.parquet").join(
        prices, on="product_id", how="left"
    )
    return conform(
        products.select(
            "price", item_id=pl.col("product_id").cast(pl.String), category=pl.col("department")
        ),
        ITEMS,
    )


def fill(lake: Lake, events: pl.DataFrame, items: pl.DataFrame) -> Lake:
    """The lake with these events and items."""
    lake.append(events)
    lake.write_items(items)
    return lake
