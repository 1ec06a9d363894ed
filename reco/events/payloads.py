"""From the JSON of a micro-batch to rows of tables.EVENTS, or to the reason why one is none.

The same rules as for files (validation.check), and those of a stream: a size, a time that can be.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl
import xxhash
from pydantic_core import from_json

from reco.events.mapping import Mapping
from reco.events.schema import conform
from reco.events.sinks import with_money
from reco.events.validation import check, first_of
from reco.tables import EVENTS, type_code

MOST_BYTES: Final = 65_536  # of one event; a click has 300
MOST_LETTERS: Final = 200  # of an id or a type
AHEAD: Final = timedelta(days=1)  # clocks of phones are wrong; more than this is a mistake
COLUMNS: Final = [name for name in EVENTS.names if name != "attributes"]
NUMBERS: Final = ("value", "price", "quantity", "slot")
RULES: Final = Mapping(table="events")
KNOWN: Final = frozenset(EVENTS.names)


@dataclass(frozen=True, slots=True)
class Parsed:
    """Good rows, and the position and reason of every payload that is none."""

    rows: pl.DataFrame
    refused: dict[int, str]


def parse(payloads: Sequence[bytes], now: datetime, types: set[str]) -> Parsed:
    """Rows of the payloads; `types` are those that the lake has already.

    An event without event_id gets a hash of its bytes, so it is the same when it comes again.
    """
    refused: dict[int, str] = {}
    places, found = [], []
    for place, payload in enumerate(payloads):
        event = _read(payload)
        if isinstance(event, str):
            refused[place] = event
        else:
            places.append(place)
            found.append(event)
    rows, reasons = _rows(found, now, types)
    refused |= {places[i]: reason for i, reason in reasons.items()}
    return Parsed(rows, refused)


def event_id_of(payload: bytes) -> str:
    """Id of an event that has none."""
    return xxhash.xxh3_128_hexdigest(payload)


def _read(payload: bytes) -> dict[str, Any] | str:
    """The event, or why it is none."""
    if len(payload) > MOST_BYTES:
        return f"larger than {MOST_BYTES:,} bytes"
    try:
        event = from_json(payload)
    except ValueError:
        return "no JSON"
    if not isinstance(event, dict):
        return "no JSON object"
    if not event.get("event_id"):
        event["event_id"] = event_id_of(payload)
    return event


def _rows(
    events: Sequence[dict[str, Any]], now: datetime, types: set[str]
) -> tuple[pl.DataFrame, dict[int, str]]:
    """Rows of events; if a value breaks the reading of the whole, the halves are read apart."""
    try:
        return _checked(events, now, types)
    except (pl.exceptions.PolarsError, ValueError, TypeError, OverflowError) as error:
        if len(events) == 1:
            return conform(pl.DataFrame(), EVENTS), {0: f"unreadable: {type(error).__name__}"}
    half = len(events) // 2
    left, left_reasons = _rows(events[:half], now, types)
    right, right_reasons = _rows(events[half:], now, types | set(left["type"].unique()))
    later = {half + i: reason for i, reason in right_reasons.items()}
    return pl.concat([left, right]), left_reasons | later


def _checked(
    events: Sequence[dict[str, Any]], now: datetime, types: set[str]
) -> tuple[pl.DataFrame, dict[int, str]]:
    if not events:
        return conform(pl.DataFrame(), EVENTS), {}
    frame = pl.DataFrame([_column(name, [event.get(name) for event in events]) for name in COLUMNS])
    checked = check(frame, RULES)
    rows = checked.rows.with_columns(_attributes(events))
    reasons = first_of(checked.reasons, _stream_reasons(rows, now), _clashes(rows["type"], types))
    good = conform(with_money(rows.filter(reasons.is_null())), EVENTS)
    where = reasons.is_not_null().arg_true().to_list()
    return good, dict(zip(where, reasons.drop_nulls().to_list(), strict=True))


def _column(name: str, values: list[Any]) -> pl.Series:
    """Numbers as they are, and anything else as text, of which `check` makes what it can."""
    kinds = set(map(type, values))
    if name in NUMBERS and kinds <= {int, float, type(None)}:
        return pl.Series(name, values, pl.Float64, strict=False)
    if not kinds <= {str, type(None)}:
        values = [None if v is None else v if type(v) is str else json.dumps(v) for v in values]
    return pl.Series(name, values, pl.String)


def _attributes(events: Sequence[dict[str, Any]]) -> pl.Series:
    """Every further field of each event as one JSON object; null where there is none."""
    texts = []
    for event in events:
        given = event.get("attributes")
        further = {name: event[name] for name in event.keys() - KNOWN if event[name] is not None}
        if given is not None:
            further = _given(given) | further
        texts.append(json.dumps(further, sort_keys=True) if further else None)
    return pl.Series("attributes", texts, pl.String)


def _given(attributes: Any) -> dict[str, Any]:
    """Attributes that came as an object, or as the text of one."""
    if isinstance(attributes, str):
        try:
            attributes = from_json(attributes)
        except ValueError:
            return {"attributes": attributes}
    return attributes if isinstance(attributes, dict) else {"attributes": attributes}


def _stream_reasons(rows: pl.DataFrame, now: datetime) -> pl.Series:
    rules = [
        ("missing timestamp", pl.col("timestamp").is_null()),
        ("timestamp in the future", pl.col("timestamp") > now + AHEAD),
        ("slot is no small number", ~pl.col("slot").fill_null(0).is_between(0, 2**31 - 1)),
    ]
    rules += [
        (f"{name} longer than {MOST_LETTERS}", pl.col(name).str.len_chars() > MOST_LETTERS)
        for name in ("event_id", "user_id", "item_id", "type")
    ]
    whens = [pl.when(holds).then(pl.lit(reason)) for reason, holds in rules]
    return rows.select(pl.coalesce(whens).alias("reason")).to_series()


def _clashes(column: pl.Series, types: set[str]) -> pl.Series:
    """Reason of a type whose one-byte code another type has: the lake would refuse the batch."""
    taken = {type_code(name): name for name in sorted(types)}
    refused = {}
    for name in column.drop_nulls().unique().sort():
        other = taken.setdefault(type_code(name), name)
        if other != name:
            refused[name] = "type has the code of another one"
    return column.replace_strict(refused, default=None, return_dtype=pl.String)
