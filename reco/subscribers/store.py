"""Subscribers in PostgreSQL: upsert by COPY, reads by lists of ids in the order of the caller."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Final

import polars as pl
from psycopg import Connection, Cursor, DataError
from sqlalchemy import create_engine, select
from sqlalchemy.engine import Engine

from reco.database import LONGEST_NOTE, PROFILE_CHANNEL
from reco.database import SUBSCRIBERS as TABLE
from reco.errors import InputError
from reco.tables import SUBSCRIBERS

# One consent of an import speaks for both; tracking is never taken from a file.
CONSENTS: Final = ("consent_mail", "consent_profiling")
BLOCK_CHARACTERS: Final = 1 << 20
CLOCKS: Final = timedelta(minutes=1)  # by which those of two machines may differ


@dataclass(frozen=True, slots=True)
class Subscriber:
    """One who may be recommended to; mailed only with an address and `consent_mail`."""

    user_id: str
    email: str | None = None
    first_name: str | None = None
    language: str | None = None
    region: str | None = None
    timezone: str | None = None
    device: str | None = None
    plan: str | None = None
    signup_at: datetime | None = None
    signup_source: str | None = None
    consent_mail: bool = True
    consent_profiling: bool = True
    consent_tracking: bool = False
    attributes: Mapping[str, object] = field(default_factory=dict)


COLUMNS: Final = tuple(f.name for f in fields(Subscriber))
# Attributes come last. Most have none: to parse "{}" for each takes a third of the time.
_SELECT: Final = (
    f"SELECT {', '.join(COLUMNS[:-1])}, nullif(attributes, '{{}}') FROM subscribers "
    "WHERE user_id = ANY(%(ids)s)"
)

_SHARED: Final = """
    select user_id, address from (
        select user_id, lower(email) as address, count(*) over (partition by lower(email)) as n
        from subscribers
        where email <> '' and consent_mail and strpos(user_id, '@') = 0
    ) as mailable where n > 1
"""


class SubscriberStore:
    """The subscribers of one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __reduce__(self) -> tuple[object, ...]:
        """Travels to worker processes as its address; they connect for themselves."""
        return _reopened, (self._engine.url.render_as_string(hide_password=False),)

    def upsert(self, frame: pl.DataFrame) -> int:
        """Write rows of tables.SUBSCRIBERS, all or none; gives how many were new.

        A column that `frame` lacks keeps what is known. A consent that is null counts as given by
        somebody new and changes nothing for the others. The last row of a user_id wins.
        Raises InputError when PostgreSQL cannot read a value.
        """
        rows = _storable(frame.unique("user_id", keep="last", maintain_order=True))
        with self._engine.begin() as connection:
            driver: Connection | None = connection.connection.driver_connection
            assert driver is not None
            try:
                return _write(driver, rows)
            except DataError as error:
                raise InputError(
                    "The subscribers cannot be stored; nothing was written.",
                    str(error).replace("\n", " "),
                    "Correct the row that it names: attributes are JSON objects.",
                ) from error

    def get(self, user_ids: Sequence[str]) -> list[Subscriber | None]:
        """Subscribers in the order of their ids, None for who is unknown."""
        with self._engine.connect() as connection:
            found = connection.exec_driver_sql(_SELECT, {"ids": list(user_ids)})
            rows = [[*row[:-1], row[-1] or {}] for row in found]
        known = {row[0]: Subscriber(*row) for row in rows}
        return [known.get(user_id) for user_id in user_ids]

    def shared_addresses(self) -> dict[str, str]:
        """Address of each subscriber who may be mailed and shares it with another one."""
        with self._engine.connect() as connection:
            rows = connection.exec_driver_sql(_SHARED).all()
        return {row.user_id: row.address for row in rows}

    def known(self, user_ids: Sequence[str]) -> set[str]:
        """Those of the ids that are subscribers."""
        found = self.get(user_ids)
        return {user for user, person in zip(user_ids, found, strict=True) if person is not None}

    def ids(self, after: str = "", limit: int = 1000) -> list[str]:
        """A page of ids in the database's order; the next one begins after its last id."""
        key = TABLE.c.user_id
        query = select(TABLE.c.user_id).where(key > after).order_by(key).limit(limit)
        with self._engine.connect() as connection:
            return list(connection.execute(query).scalars())

    def followed(self, user_ids: Sequence[str]) -> set[str]:
        """Who of these agreed that their clicks and opens are counted."""
        query = "SELECT user_id FROM subscribers WHERE user_id = ANY(%(ids)s) AND consent_tracking"
        with self._engine.connect() as connection:
            return set(connection.exec_driver_sql(query, {"ids": list(user_ids)}).scalars())

    def timezones(self) -> pl.DataFrame:
        """Columns user_id, timezone of those whose zone is known."""
        query = "SELECT user_id, timezone FROM subscribers WHERE timezone IS NOT NULL"
        with self._engine.connect() as connection:
            rows = connection.exec_driver_sql(query).all()
        names = {"user_id": pl.String, "timezone": pl.String}
        return pl.DataFrame([tuple(row) for row in rows], names, orient="row")

    def announce(self, since: datetime) -> None:
        """Name those who changed from then on to listeners once more (reco.database)."""
        query = f"SELECT pg_notify('{PROFILE_CHANNEL}', user_id) FROM subscribers "
        with self._engine.begin() as connection:
            connection.exec_driver_sql(
                query + "WHERE updated_at > %(since)s AND octet_length(user_id) <= %(longest)s",
                {"since": since - CLOCKS, "longest": LONGEST_NOTE},
            ).all()

    def count(self) -> int:
        """Number of subscribers."""
        with self._engine.connect() as connection:
            number: int = connection.exec_driver_sql(
                "SELECT count(*) FROM subscribers"
            ).scalar_one()
        return number


def _reopened(url: str) -> SubscriberStore:
    return SubscriberStore(create_engine(url))


def _storable(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns of the database that `frame` fills."""
    known = [name for name in SUBSCRIBERS.names if name in frame.columns and name != "consent"]
    consents = [pl.col("consent").alias(name) for name in CONSENTS if "consent" in frame.columns]
    return frame.select(*known, *consents)


def _write(driver: Connection, rows: pl.DataFrame) -> int:
    with driver.cursor() as cursor:
        before = _count(cursor)
        _copy(cursor, rows)
        cursor.execute(_merge(rows.columns))
        return _count(cursor) - before


def _copy(cursor: Cursor, rows: pl.DataFrame) -> None:
    cursor.execute(
        "CREATE TEMP TABLE incoming (LIKE subscribers) ON COMMIT DROP;"
        + "".join(f"ALTER TABLE incoming ALTER {name} DROP NOT NULL;" for name in _NOT_NULL)
    )
    text = rows.write_csv(include_header=False)  # null is empty, an empty text is ""
    statement = f"COPY incoming ({', '.join(rows.columns)}) FROM STDIN (FORMAT csv)"
    with cursor.copy(statement) as copy:
        for start in range(0, len(text), BLOCK_CHARACTERS):
            copy.write(text[start : start + BLOCK_CHARACTERS])


_NOT_NULL: Final = (*CONSENTS, "consent_tracking", "attributes", "updated_at")


def _merge(columns: Sequence[str]) -> str:
    """Insert what is new, update what differs; rows that stay the same are not touched."""
    named = ", ".join(columns)
    defaults = dict.fromkeys(CONSENTS, "true") | {"attributes": "'{}'"}
    values = ", ".join(f"coalesce({c}, {defaults[c]})" if c in defaults else c for c in columns)
    changes = {c: f"i.{c}" for c in columns if c != "user_id"}
    changes |= {c: f"coalesce(i.{c}, s.{c})" for c in CONSENTS if c in columns}
    changes |= {c: "coalesce(i.attributes, '{}')" for c in columns if c == "attributes"}
    insert = (
        f"INSERT INTO subscribers ({named}) SELECT {values} FROM incoming "
        "ON CONFLICT (user_id) DO NOTHING;"
    )
    if not changes:
        return insert
    assigned = ", ".join(f"{c} = {value}" for c, value in changes.items())
    differs = " OR ".join(f"s.{c} IS DISTINCT FROM {value}" for c, value in changes.items())
    update = (
        f"UPDATE subscribers s SET {assigned}, updated_at = now() FROM incoming i "
        f"WHERE s.user_id = i.user_id AND ({differs});"
    )
    return update + insert


def _count(cursor: Cursor) -> int:
    row = cursor.execute("SELECT count(*) FROM subscribers").fetchone()
    assert row is not None
    number: int = row[0]
    return number
