"""Values of any source as values of our types; what cannot be read becomes null.

Each function takes an expression and the type it has, and gives an expression.
"""

from typing import Final

import polars as pl
import pyarrow as pa

from reco.events.mapping import Kind, Mapping

MICROSECONDS: Final = {"epoch_s": 1e6, "epoch_ms": 1e3, "epoch_us": 1.0}
# Seconds until the year 5138, milliseconds from 1973 on, and so on: the units cannot be confused.
EPOCH_BOUNDS: Final = ((1e11, 1e6), (1e14, 1e3), (1e17, 1.0))
DATE: Final = r"^(\d{4})-?(\d{2})-?(\d{2})$"
ISO: Final = "%Y-%m-%dT%H:%M:%S%.f"
OFFSET: Final = r"T.*[+-]\d{2}:?\d{2}$"
TRUE: Final = ["true", "t", "yes", "y", "1"]
FALSE: Final = ["false", "f", "no", "n", "0"]


def kind_of(field: pa.Field) -> Kind:
    """The kind of a column of reco.tables."""
    if pa.types.is_string(field.type):
        return "text"
    if pa.types.is_timestamp(field.type):
        return "time"
    return "boolean" if pa.types.is_boolean(field.type) else "number"


def convert(column: pl.Expr, source: pl.DataType, kind: Kind, mapping: Mapping) -> pl.Expr:
    """The column as `kind`: String, Float64, Boolean or Datetime(us, UTC)."""
    if source == pl.Null:
        return column.cast(_TYPES[kind])
    if kind == "text":
        return to_text(column, source)
    if kind == "number":
        return to_number(column, source, mapping.decimal_comma)
    if kind == "boolean":
        return to_boolean(column, source)
    return to_time(column, source, mapping)


_TYPES: Final = {
    "text": pl.String(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "time": pl.Datetime("us", "UTC"),
}


def to_text(column: pl.Expr, source: pl.DataType) -> pl.Expr:
    """Trimmed; an empty text is none. Whole numbers lose their ".0", so 17850.0 is the id 17850."""
    if source.is_float():
        whole = (column == column.round()) & (column.abs() < 2**53)
        as_integer = column.cast(pl.Int64, strict=False).cast(pl.String)
        return pl.when(whole).then(as_integer).otherwise(column.cast(pl.String))
    text = column.cast(pl.String)
    if source == pl.String:  # no store of text takes a NUL
        text = text.str.replace_all("\x00", "", literal=True).str.strip_chars()
    return pl.when(text != "").then(text)


def to_number(column: pl.Expr, source: pl.DataType, decimal_comma: bool) -> pl.Expr:
    """Text such as "1.234,50" needs `decimal_comma`."""
    if source == pl.String:
        column = to_text(column, source)
        if decimal_comma:
            column = column.str.replace_all(".", "", literal=True)
            column = column.str.replace(",", ".", literal=True)
    return column.cast(pl.Float64, strict=False)


def to_boolean(column: pl.Expr, source: pl.DataType) -> pl.Expr:
    """true, yes, y, t, 1 and their opposites, in any case."""
    if source == pl.Boolean:
        return column
    word = to_text(column, source).str.to_lowercase()
    return (
        pl.when(word.is_in(TRUE))
        .then(pl.lit(True))
        .when(word.is_in(FALSE))
        .then(pl.lit(False))
        .otherwise(pl.lit(None, pl.Boolean))
    )


def to_time(column: pl.Expr, source: pl.DataType, mapping: Mapping) -> pl.Expr:
    """UTC from times, dates, epochs or text; a time without an offset is of the mapping's zone."""
    if isinstance(source, pl.Datetime):
        if source.time_zone is not None:
            return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        return _localised(column.cast(pl.Datetime("us")), mapping.timezone)
    if source == pl.Date:
        return _localised(column.cast(pl.Datetime("us")), mapping.timezone)
    if source.is_numeric():
        return _from_epoch(column.cast(pl.Float64), mapping.timestamp_format)
    return _from_text(to_text(column, source), mapping)


def _from_text(text: pl.Expr, mapping: Mapping) -> pl.Expr:
    form = mapping.timestamp_format
    epoch = text.cast(pl.Float64, strict=False)
    if form in MICROSECONDS:
        return _from_epoch(epoch, form)
    if form == "auto":
        is_epoch = epoch.is_not_null() & ~text.str.contains(DATE)
        return pl.when(is_epoch).then(_from_epoch(epoch, form)).otherwise(_iso(text, mapping))
    if "%z" in form or "%:z" in form:
        return text.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)
    return _localised(text.str.to_datetime(form, time_unit="us", strict=False), mapping.timezone)


def _iso(text: pl.Expr, mapping: Mapping) -> pl.Expr:
    """ISO 8601, also with a blank for the T, without seconds, or the day alone."""
    text = text.str.replace(DATE, "${1}-${2}-${3}T00:00:00")
    text = text.str.replace(r"^(\d{4}-\d{2}-\d{2})\s+", "${1}T")
    text = text.str.replace(r"\s*(?:Z|z|UTC|GMT)$", "+00:00").str.replace(r"\s+([+-]\d)", "${1}")
    text = text.str.replace(r"(T\d{1,2}:\d{2})($|[+-])", "${1}:00${2}")
    aware = text.str.to_datetime(f"{ISO}%z", time_unit="us", time_zone="UTC", strict=False)
    naive = text.str.to_datetime(ISO, time_unit="us", strict=False)
    local = _localised(naive, mapping.timezone)
    return pl.when(text.str.contains(OFFSET)).then(aware).otherwise(local)


def _localised(naive: pl.Expr, zone: str) -> pl.Expr:
    """UTC of a local time.

    Of an hour that comes twice the first is meant; one that the clocks skip counts as if they had
    not moved yet.
    """
    if zone == "UTC":
        return naive.dt.replace_time_zone("UTC")

    def in_zone(time: pl.Expr) -> pl.Expr:
        return time.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")

    skipped = in_zone(naive + pl.duration(hours=1))
    return pl.coalesce(in_zone(naive), skipped).dt.convert_time_zone("UTC")


def _from_epoch(number: pl.Expr, unit: str) -> pl.Expr:
    """From seconds, milliseconds or microseconds; nanoseconds only by their size."""
    if unit in MICROSECONDS:
        factor = pl.lit(MICROSECONDS[unit])
    else:
        factor = pl.lit(1e-3)
        for bound, scale in reversed(EPOCH_BOUNDS):
            factor = pl.when(number.abs() < bound).then(pl.lit(scale)).otherwise(factor)
    micros = (number * factor).round().cast(pl.Int64, strict=False)
    return micros.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
