"""From a source row to a row of reco.tables, or to the reason why it is none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl

from reco.events.attributes import is_json_object, with_attributes
from reco.events.conversion import convert, kind_of, to_text
from reco.events.mapping import Kind
from reco.events.mapping import Mapping as Rules
from reco.tables import REQUIRED, TABLES

EARLIEST: Final = datetime(1990, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)
CLOCK_SKEW: Final = timedelta(days=1)  # clocks and zones are off by hours, typing errors by years
MOST_ID_BYTES: Final = 255  # of UTF-8; a signed link holds no more
CONTROL: Final = r"\p{Cc}"  # also a line break
UNREADABLE: Final = {
    "number": "{} is not a number",
    "time": "unreadable {}",
    "boolean": "{} is not true or false",
}
Rule = tuple[str, pl.Expr]  # reason, and where it holds


@dataclass(frozen=True, slots=True)
class Checked:
    """Rows of our table, and beside each the reason why it is refused, null for a good one."""

    rows: pl.DataFrame
    reasons: pl.Series


def read_as(frame: pl.DataFrame, kinds: Mapping[str, Kind], rules: Rules) -> Checked:
    """The columns of `kinds` as those kinds; refused is a row with a value that cannot be read."""
    read = frame.select(
        convert(pl.col(name), frame.schema[name], kind, rules).alias(name)
        for name, kind in kinds.items()
    )
    filled = frame.with_columns(
        to_text(pl.col(name), frame.schema[name]).is_not_null().alias(f"filled {name}")
        for name in kinds
    )
    unreadable = [
        (UNREADABLE[kind].format(name), pl.col(f"filled {name}") & pl.col(name).is_null())
        for name, kind in kinds.items()
        if kind in UNREADABLE
    ]
    return Checked(read, _first_reason(filled.with_columns(read.get_columns()), unreadable))


def check(frame: pl.DataFrame, rules: Rules) -> Checked:
    """Rows under our names (mapping.renamed) as our types, further columns in `attributes`.

    Columns of the table that the source lacks are left out, so that a merge keeps what is known.
    """
    schema = TABLES[rules.table]
    kinds = {f.name: kind_of(f) for f in schema if f.name in frame.columns}
    kinds.pop("attributes", None)
    read = read_as(frame, kinds, rules)
    rows = with_attributes(read.rows, frame, schema.names)
    faults = [*_missing(rules.table, rows.columns), *_ids(rows.columns), *_bounds(rows)]
    wrong = _first_reason(rows, faults)
    return Checked(rows, first_of(read.reasons, wrong))


def first_of(*reasons: pl.Series) -> pl.Series:
    """Of each row the first reason that there is."""
    return pl.select(pl.coalesce(*reasons).alias("reason")).to_series()


def _missing(table: str, columns: Sequence[str]) -> list[Rule]:
    may_be_null = ("timestamp",)  # of a shop that knows no times
    return [
        (f"missing {name}", pl.col(name).is_null())
        for name in REQUIRED[table]
        if name in columns and name not in may_be_null
    ]


def _ids(columns: Sequence[str]) -> list[Rule]:
    """A quote that is never closed makes one long id of the lines that follow."""
    rules: list[Rule] = []
    for name in columns:
        if name == "type" or name.endswith("_id"):
            rules.append((f"{name} holds a control character", pl.col(name).str.contains(CONTROL)))
            too_long = pl.col(name).str.len_bytes() > MOST_ID_BYTES
            rules.append((f"{name} longer than {MOST_ID_BYTES} bytes", too_long))
    return rules


def _bounds(typed: pl.DataFrame) -> list[Rule]:
    rules: list[Rule] = []
    for name, kind in typed.schema.items():
        if kind.is_float():
            rules.append((f"{name} is not finite", ~pl.col(name).is_finite()))
    if "timestamp" in typed.columns:
        rules.append(("timestamp before 1990", pl.col("timestamp") < EARLIEST))
        rules.append(("timestamp after 2100", pl.col("timestamp") >= LATEST))
        soon = datetime.now(UTC) + CLOCK_SKEW
        rules.append(("timestamp in the future", pl.col("timestamp") > soon))
    if "type" in typed.columns:
        rules += _returns(typed.columns)
    if "price" in typed.columns:
        rules.append(("price is negative", pl.col("price") < 0))
    if "attributes" in typed.columns:
        rules.append(("attributes is no JSON object", pl.lit(~is_json_object(typed["attributes"]))))
    return rules


def _returns(columns: Sequence[str]) -> list[Rule]:
    """A purchase that gives money or goods back is a return: it must not count as a liking."""
    signed = [name for name in ("value", "quantity") if name in columns]
    if not signed:
        return []
    negative = pl.any_horizontal(pl.col(name) < 0 for name in signed)
    rules: list[Rule] = [("return", (pl.col("type") == "purchase") & negative)]
    if "quantity" in columns:
        taken_back = pl.col("type") == "return"
        rules.append(("quantity is negative", (pl.col("quantity") < 0) & ~taken_back))
    return rules


def _first_reason(frame: pl.DataFrame, rules: Sequence[Rule]) -> pl.Series:
    whens = [pl.when(holds).then(pl.lit(reason)) for reason, holds in rules]
    if not whens:
        return pl.Series("reason", [None] * len(frame), dtype=pl.String)
    return frame.select(pl.coalesce(whens).alias("reason")).to_series()
