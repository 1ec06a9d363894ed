"""A tiny shop with forty subscribers in real stores: what the tests of the graph start from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl
from sqlalchemy import update
from sqlalchemy.engine import Engine

from reco.campaigns.campaign import Campaign
from reco.catalogue import Catalogue
from reco.database import METADATA, SUBSCRIBERS, open_database
from reco.embedded import Services, connect_redis
from reco.events.lake import Lake
from reco.features.history import from_events
from reco.features.online import FeaturesMeta, OnlineStore
from reco.subscribers.store import SubscriberStore
from reco.subscribers.suppression import SuppressionList, SuppressionReason
from reco.tables import EVENTS, ITEMS, item_keys
from reco.tables import SUBSCRIBERS as SUBSCRIBERS_TABLE

SUBSCRIBER_COUNT = 40
ITEM_COUNT = 60
NO_ADDRESS, NO_CONSENT, NO_PROFILING, SUPPRESSED, TRACKED = "u00", "u01", "u02", "u03", "u04"
WITHHELD = {NO_ADDRESS: "no_address", NO_CONSENT: "no_consent", SUPPRESSED: "unsubscribe"}
USERS = [f"u{i:02d}" for i in range(SUBSCRIBER_COUNT)]
MAILED = [user for user in USERS if user not in WITHHELD]
POPULAR = [f"item-{i:02d}" for i in range(20)]


@dataclass(frozen=True)
class World:
    """The stores of the shop."""

    services: Services
    engine: Engine
    catalogue: Catalogue
    online: OnlineStore


def items() -> pl.DataFrame:
    """item-00 .. item-59 in five categories; the last one is out of stock."""
    rows = [
        {
            "item_id": f"item-{i:02d}",
            "title": f"Thing number {i}",
            "category": f"aisle {i % 5}",
            "price": 1.0 + i,
            "stock": 0.0 if i == ITEM_COUNT - 1 else None,
        }
        for i in range(ITEM_COUNT)
    ]
    return _table(rows, pl.from_arrow(ITEMS.empty_table()).schema)


def events() -> pl.DataFrame:
    """Each subscriber bought five items of their own in November 2017, twice."""
    rows = [
        {
            "event_id": f"{user}-{j}-{again}",
            "user_id": user,
            "type": "purchase",
            "timestamp": datetime(2017, 11, 1, tzinfo=UTC) + timedelta(days=j + 10 * again),
            "item_id": f"item-{(7 * i + j) % (ITEM_COUNT - 1):02d}",
            "value": 2.0,
        }
        for i, user in enumerate(USERS)
        for j in range(5)
        for again in range(2)
    ]
    return _table(rows, pl.from_arrow(EVENTS.empty_table()).schema)


@contextmanager
def small_world(services: Services, more: int = 0) -> Iterator[World]:
    """The shop in the stores of `services`, with `more` subscribers x0000, x0001, … who never
    bought; whatever the stores held is gone.
    """
    client = connect_redis(services.redis_url)
    client.flushdb()
    engine = open_database(services.database_url)
    tables = ", ".join(table.name for table in METADATA.sorted_tables)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"truncate {tables}")
    lake = Lake(services.lake)
    lake.write_items(items())
    _people(engine, services, more)
    online = OnlineStore(client)
    online.load(USERS, from_events(events(), USERS))
    online.write_meta(
        FeaturesMeta(datetime(2017, 12, 4, tzinfo=UTC), SUBSCRIBER_COUNT, item_keys(POPULAR))
    )
    try:
        yield World(services, engine, Catalogue.of(items()), online)
    finally:
        engine.dispose()
        client.close()


def campaign(campaign_id: str = "spring", **changes: object) -> Campaign:
    """A campaign with two arms and the stock template."""
    settings = {
        "id": campaign_id,
        "template": "digest",
        "from_name": "Corner Shop",
        "from_email": "news@shop.example",
        "postal_address": "Corner Shop, 1 Example Street, 10115 Berlin",
        "arms": [
            {"name": "control", "weight": 1, "slate": "editorial"},
            {"name": "personal", "weight": 1, "slate": "model"},
        ],
    }
    return Campaign.model_validate(settings | changes)


def _people(engine: Engine, services: Services, more: int) -> None:
    rows: list[dict[str, object]] = [
        {
            "user_id": user,
            "email": None if user == NO_ADDRESS else f"{user}@mail.example",
            "first_name": f"Name{i}",
            "region": "north" if i % 2 else "south",
            "consent": user != NO_CONSENT,
        }
        for i, user in enumerate(USERS)
    ]
    rows += [{"user_id": f"x{i:04d}", "email": f"x{i:04d}@mail.example"} for i in range(more)]
    store = SubscriberStore(engine)
    store.upsert(_table(rows, pl.from_arrow(SUBSCRIBERS_TABLE.empty_table()).schema))
    with engine.begin() as connection:
        for user, column, value in (
            (NO_PROFILING, "consent_profiling", False),
            (TRACKED, "consent_tracking", True),
        ):
            where = SUBSCRIBERS.c.user_id == user
            connection.execute(update(SUBSCRIBERS).where(where).values({column: value}))
    suppressions = SuppressionList(engine, services.link_key)
    suppressions.add([f"{SUPPRESSED}@mail.example"], SuppressionReason.UNSUBSCRIBE, "test")


def _table(rows: list[dict[str, object]], schema: pl.Schema) -> pl.DataFrame:
    return pl.DataFrame([dict.fromkeys(schema) | row for row in rows], schema=schema)
