"""The tables of reco.tables as Polars schemas."""

import polars as pl
import pyarrow as pa


def polars_schema(schema: pa.Schema) -> pl.Schema:
    """The Polars types of an Arrow schema."""
    frame = pl.from_arrow(schema.empty_table())
    assert isinstance(frame, pl.DataFrame)
    return frame.schema


def conform(frame: pl.DataFrame, schema: pa.Schema) -> pl.DataFrame:
    """Exactly the columns and types of `schema`; a column that is missing becomes null."""
    types = polars_schema(schema)
    if not frame.width:
        return pl.DataFrame(schema=types)
    columns = [
        pl.col(name) if name in frame.columns else pl.lit(None).alias(name) for name in types
    ]
    return frame.select(columns).cast(types)
