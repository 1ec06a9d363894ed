"""Every further column of a source as one JSON object a row, without its empty fields."""

import json
import re

import polars as pl

COLUMN = "attributes"


def with_attributes(typed: pl.DataFrame, source: pl.DataFrame, known: list[str]) -> pl.DataFrame:
    """`typed` with the column `attributes`, when `source` has columns that are not `known`.

    An `attributes` column of the source holds JSON objects and is kept, further columns beside it.
    """
    further = [name for name in source.columns if name not in known]
    if COLUMN in source.columns:
        given = source.get_column(COLUMN)
        text = given if given.dtype == pl.String else given.struct.json_encode()
        typed = typed.with_columns(text.alias(COLUMN))
    if not further:
        return typed
    made = sparse_json(source.select(further))
    if COLUMN not in typed.columns:
        return typed.with_columns(made.alias(COLUMN))
    both = pl.col(COLUMN).str.strip_suffix("}") + "," + made.str.strip_prefix("{")
    return typed.with_columns(
        pl.when(pl.col(COLUMN).is_null() | (pl.col(COLUMN) == "{}"))
        .then(made)
        .when(made.is_null())
        .then(pl.col(COLUMN))
        .otherwise(both)
        .alias(COLUMN)
    )


def is_json_object(column: pl.Series) -> pl.Series:
    """Whether each text is a JSON object; true where there is none."""
    distinct = column.drop_nulls().unique()
    good = [text for text in distinct if _is_object(text)]
    return column.is_in(good) | column.is_null()


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def sparse_json(frame: pl.DataFrame) -> pl.Series:
    """JSON object of each row without its null fields; null for a row of nulls.

    A quote in a text is escaped, so that no text can look like an empty field.
    """
    text = pl.struct(frame.columns).struct.json_encode()
    for name in frame.columns:
        if frame[name].null_count():
            field = re.escape(json.dumps(name, ensure_ascii=False))
            text = text.str.replace(f"{field}:null,?", "")
    text = text.str.replace(r",\}$", "}")
    return frame.select(pl.when(text != "{}").then(text).alias(COLUMN)).to_series()
