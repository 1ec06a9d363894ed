"""First touches: what a signup, a session or an answer tells of a person, as events like any other.

Takes new rows of tables.EVENTS, gives profiles: the source (UTM, landing page, referrer) and the
device of the earliest event that names them, and the categories that somebody asked a shop for.
The earliest wins in whatever order they come, and the same event twice changes nothing. What an
import says of somebody is not overwritten.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import polars as pl
from psycopg.types.json import Jsonb
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError

from reco.errors import ServiceUnavailable
from reco.subscribers.interests import ATTRIBUTE as INTERESTS

SIGNUP: Final = "signup"
ANSWER: Final = "preference"
TYPES: Final = (SIGNUP, "session", ANSWER)
ATTRIBUTES: Final = (
    "utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "landing_page",
    "referrer",
)  # fmt: skip
# Column of the subscriber, and the attributes of an event that tell it, best first.
COLUMNS: Final = {"signup_source": ("signup_source", "utm_source"), "device": ("device",)}
ASKED_FOR: Final = "asked for "  # before the category, in `field`
LONGEST: Final = 500  # characters of a value; addresses of pages have no end

_NEWCOMERS: Final = """
    insert into subscribers (user_id, signup_at)
    select * from unnest(%(users)s::text[], %(times)s::timestamptz[]) as g(user_id, at)
    where not exists (
        select from departures d where d.user_id = g.user_id and d.left_at >= g.at
    )
    on conflict do nothing returning user_id
"""
# Both parts see the table as it was before, so `old` is what was known of the field.
_RECORD: Final = """
    with given as (
        select * from unnest(
            %(users)s::text[], %(fields)s::text[], %(values)s::text[], %(times)s::timestamptz[]
        ) as g(user_id, field, value, touched_at)
        where not exists (
            select from departures d
            where d.user_id = g.user_id and d.left_at >= g.touched_at
        )
    ), changed as (
        insert into first_touches as t (user_id, field, value, touched_at) select * from given
        on conflict (user_id, field) do update
            set value = excluded.value, touched_at = excluded.touched_at
            where (excluded.touched_at, excluded.value) < (t.touched_at, t.value)
        returning user_id, field, value
    )
    select changed.*, old.value as before from changed
    left join first_touches old using (user_id, field) order by user_id, field
"""
# A newcomer was here before signing up: what sessions told then is news as well.
_EARLIER: Final = """
    select user_id, field, value, null as before from first_touches
    where user_id = any(%(users)s) order by user_id, field
"""
_KNOWN: Final = """
    select user_id, signup_source, device, attributes from subscribers
    where user_id = any(%(users)s) order by user_id for update
"""
_WRITE: Final = """
    update subscribers set signup_source = %(signup_source)s, device = %(device)s,
        attributes = %(attributes)s where user_id = %(user_id)s
"""


class Touch(NamedTuple):
    """What an event tells of a person."""

    user_id: str
    field: str
    value: str
    touched_at: datetime


class FirstTouches:
    """The first touches of one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, events: pl.DataFrame) -> int:
        """Take events into the profiles; how many profiles changed. Raises ServiceUnavailable."""
        telling = events.filter(pl.col("type").is_in(TYPES))
        if telling.is_empty():
            return 0
        try:
            with self._engine.begin() as connection:
                return _record(connection, telling)
        except OperationalError as error:
            raise ServiceUnavailable(
                "Profiles cannot be written.",
                str(error.orig).strip(),
                "Check RECO_DATABASE_URL; the call may be repeated.",
            ) from error


def _record(connection: Connection, events: pl.DataFrame) -> int:
    signups = events.filter(pl.col("type") == SIGNUP).group_by("user_id").agg(pl.min("timestamp"))
    people = signups.sort("user_id")
    newcomers = {"users": people["user_id"].to_list(), "times": people["timestamp"].to_list()}
    new = set(connection.exec_driver_sql(_NEWCOMERS, newcomers).scalars())
    touches = _earliest(_touches(events))
    names = ("users", "fields", "values", "times")
    given = {name: [touch[i] for touch in touches] for i, name in enumerate(names)}
    told = [row for row in connection.exec_driver_sql(_RECORD, given) if row.user_id not in new]
    told += connection.exec_driver_sql(_EARLIER, {"users": sorted(new)})
    news: defaultdict[str, list[Any]] = defaultdict(list)
    for row in told:
        news[row.user_id].append(row)
    changed = []
    for person in connection.exec_driver_sql(_KNOWN, {"users": sorted(news)}):
        before = dict(person._mapping)
        after = _touched(before, news[person.user_id])
        if after != before:
            changed.append(after | {"attributes": Jsonb(after["attributes"])})
    if changed:
        connection.exec_driver_sql(_WRITE, changed)
    return len(new.union(row["user_id"] for row in changed))


def _touched(person: Mapping[str, Any], news: Sequence[Any]) -> dict[str, Any]:
    """A person with what is new, where nobody else has said something else."""
    after = dict(person)
    attributes = after["attributes"] = dict(person["attributes"])
    for one in news:
        if one.field.startswith(ASKED_FOR):
            said = attributes.get(INTERESTS)
            asked = {*(said if isinstance(said, list) else ()), one.value}
            attributes[INTERESTS] = sorted(asked)
            continue
        place = after if one.field in COLUMNS else attributes
        if place.get(one.field) in (None, one.before):
            place[one.field] = one.value
    return after


def _earliest(touches: Iterator[Touch]) -> list[Touch]:
    """The first of each person and field, in an order in which two writers do not lock each other.

    Equally early ones: the smaller value.
    """
    first: dict[tuple[str, str], Touch] = {}
    for touch in touches:
        key = (touch.user_id, touch.field)
        known = first.get(key)
        if known is None or (touch.touched_at, touch.value) < (known.touched_at, known.value):
            first[key] = touch
    return [first[key] for key in sorted(first)]


def _touches(events: pl.DataFrame) -> Iterator[Touch]:
    columns = ("user_id", "type", "timestamp", "delivery_id", "attributes")
    for user_id, kind, when, delivery, text in events.select(columns).iter_rows():
        said = json.loads(text) if text else {}
        if kind == ANSWER:
            # Answers of our own page are with the profile already, and may have been taken back.
            given = said.get("category") if delivery is None else None
            for name in given if isinstance(given, list) else [given]:
                if value := _text(name):
                    yield Touch(user_id, ASKED_FOR + value, value, when)
            continue
        for field, names in COLUMNS.items():
            if value := next(filter(None, (_text(said.get(name)) for name in names)), ""):
                yield Touch(user_id, field, value, when)
        for field in ATTRIBUTES:
            if value := _text(said.get(field)):
                yield Touch(user_id, field, value, when)


def _text(value: object) -> str:
    """A value as text; "" for what is none. PostgreSQL keeps no NUL."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value).replace("\0", "").strip()[:LONGEST]
    return ""
