"""Ids for events that came without one: a hash of what happened, and how often it happened alike.

Equal rows of one import are told apart by their ordinal, so two equal purchases in one basket both
count, and importing the same file again, in any order of rows, gives the same ids.
"""

from typing import Final

import polars as pl
import xxhash

from reco.tables import EVENTS

CONTENT: Final = tuple(name for name in EVENTS.names if name != "event_id")
ID_BYTES: Final = 12  # 16 letters of base64; two of 10^9 contents clash with a chance of 10^-11


def fill_event_ids(events: pl.DataFrame) -> pl.DataFrame:
    """Give every row of tables.EVENTS without an event_id one; the order of rows is kept.

    All equal rows must be in `events`; those of one bucket are, since they share their user.
    """
    missing = events["event_id"].is_null()
    if not missing.any():
        return events
    made = _content_hashes(events.filter(missing)).to_frame("hash")
    ordinal = pl.int_range(pl.len()).over("hash")
    ids = made.select(
        pl.when(ordinal == 0).then("hash").otherwise(pl.format("{}.{}", "hash", ordinal))
    ).to_series()
    filled = events["event_id"].scatter(missing.arg_true(), ids)
    return events.with_columns(filled.alias("event_id"))


def _content_hashes(events: pl.DataFrame) -> pl.Series:
    """Hash of all columns but the id; should joined texts clash, their ordinals still differ."""
    text = pl.concat_str([_text(name) for name in CONTENT], separator="\x1f")
    contents = events.select(text.cast(pl.Binary)).to_series().to_list()
    digest = xxhash.xxh3_128_digest
    hashes = pl.Series([digest(content)[:ID_BYTES] for content in contents], dtype=pl.Binary)
    return hashes.bin.encode("base64")


def _text(name: str) -> pl.Expr:
    column = pl.col(name).dt.epoch("us") if name == "timestamp" else pl.col(name)
    return column.cast(pl.String).fill_null("\x00")
