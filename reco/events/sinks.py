"""Where good rows go: events and items to the lake, subscribers to the database, each at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import polars as pl
from sqlalchemy.engine import Engine

from reco.errors import ConfigError
from reco.events.append import Appended, Writer
from reco.events.lake import Lake
from reco.subscribers.hygiene import normalise_many
from reco.subscribers.store import SubscriberStore
from reco.tables import KNOWN_TYPES


class Sink(Protocol):
    """Takes checked rows of one table; nothing is visible before `commit`."""

    def add(self, rows: pl.DataFrame) -> None:
        """Take rows; columns that the source lacks are missing."""

    def commit(self) -> Appended:
        """Make all rows visible in one step."""

    def notes(self) -> list[str]:
        """What was found in the values, and what gets weaker for it."""


@contextmanager
def open_sink(table: str, lake: Lake, engine: Engine | None) -> Iterator[Sink]:
    """The sink of a table; raises ConfigError when there is no database for subscribers."""
    if table == "events":
        with lake.writer() as writer:
            yield EventSink(writer, has_items=lake.has_items())
    elif table == "items":
        yield ItemSink(lake)
    elif engine is None:
        raise ConfigError(
            "Subscribers cannot be imported.",
            "They live in PostgreSQL and no database is open.",
            "Set RECO_DATABASE_URL, or leave it out to use the embedded server.",
        )
    else:
        yield SubscriberSink(SubscriberStore(engine))


class EventSink:
    """Events; a purchase without a value gets price x quantity."""

    def __init__(self, writer: Writer, *, has_items: bool = True) -> None:
        self._writer, self._has_items = writer, has_items
        self._untimed = self._named = 0
        self._types: set[str] = set()

    def add(self, rows: pl.DataFrame) -> None:
        """Take events."""
        self._untimed += rows["timestamp"].null_count()
        self._named += len(rows) - rows["item_id"].null_count() if "item_id" in rows.columns else 0
        self._types |= set(rows["type"].unique())
        self._writer.add(with_money(rows))

    def commit(self) -> Appended:
        """Append them to the lake."""
        return self._writer.commit()

    def notes(self) -> list[str]:
        """No items yet, events without a time, and types that mean nothing to us."""
        notes = []
        if self._named and not self._has_items:
            notes.append(
                "no items yet: those that events name are recommended, called by their ids; "
                "`reco import items` brings titles, categories, prices and stock"
            )
        if self._untimed:
            notes.append(
                f"{self._untimed:,} events have no timestamp: features of time are off for them"
            )
        unknown = sorted(self._types - {*KNOWN_TYPES, "return"})
        if unknown:
            notes.append(
                f"types of the shop's own: {', '.join(unknown)}; if one is a "
                f"{', '.join(KNOWN_TYPES[:7])}, say so in the mapping by `values`"
            )
        return notes


class ItemSink:
    """Items; the last row of an item wins."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._frames: list[pl.DataFrame] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Take items."""
        self._frames.append(rows)

    def commit(self) -> Appended:
        """Merge them into the lake."""
        return self._lake.write_items(pl.concat(self._frames)) if self._frames else Appended(0, 0)

    def notes(self) -> list[str]:
        """Nothing that the columns do not tell."""
        return []


class SubscriberSink:
    """Subscribers; an address that cannot exist is left out, and its owner never mailed."""

    def __init__(self, store: SubscriberStore) -> None:
        self._store = store
        self._frames: list[pl.DataFrame] = []
        self._invalid = 0

    def add(self, rows: pl.DataFrame) -> None:
        """Take subscribers."""
        if "email" in rows.columns:
            checked = pl.Series(normalise_many(rows["email"].to_list()), dtype=pl.String)
            self._invalid += checked.null_count() - rows["email"].null_count()
            email = pl.when(checked.is_not_null()).then("email")
            rows = rows.with_columns(email.alias("email"))
        self._frames.append(rows)

    def commit(self) -> Appended:
        """Write them to the database."""
        if not self._frames:
            return Appended(0, 0)
        rows = pl.concat(self._frames)
        new = self._store.upsert(rows)
        return Appended(new, len(rows) - new)

    def notes(self) -> list[str]:
        """Addresses that cannot exist."""
        if not self._invalid:
            return []
        return [f"{self._invalid:,} invalid addresses: kept without one, never mailed"]


def with_money(events: pl.DataFrame) -> pl.DataFrame:
    """Purchases without a value get price x quantity; all other rows stay."""
    if not {"price", "quantity"} <= set(events.columns):
        return events
    value = pl.col("value") if "value" in events.columns else pl.lit(None, pl.Float64)
    product = pl.when(pl.col("type") == "purchase").then(pl.col("price") * pl.col("quantity"))
    return events.with_columns(pl.coalesce(value, product).alias("value"))
