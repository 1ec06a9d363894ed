"""Import: files of a shop become rows of the lake or the database; bad rows are quarantined.

read -> join, cast, drop -> name -> check -> quarantine or write, batch by batch; all is visible at
once at the end, or nothing is.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl
from sqlalchemy.engine import Engine

from reco.errors import ConfigError, InputError
from reco.events.joining import Joins
from reco.events.lake import Lake
from reco.events.mapping import Mapping, check_expressions, check_names, renamed
from reco.events.notes import what_is_missing
from reco.events.quarantine import Quarantine
from reco.events.reading import Source
from reco.events.sinks import Sink, open_sink
from reco.events.validation import check, first_of, read_as
from reco.tables import REQUIRED, TABLES

MOST_BAD: Final = 0.5  # of the rows; more means that the mapping is wrong, not the rows
Progress = Callable[[str, int, int], None]  # what, bytes done, bytes in all


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What an import did: rows = new + duplicates + dropped + quarantined."""

    table: str
    rows: int
    new: int
    duplicates: int
    dropped: int  # by an expression of the mapping
    quarantined: int
    reasons: dict[str, int]
    quarantine_file: Path | None
    notes: list[str]


def import_table(
    table: str,
    files: Sequence[Path],
    mapping: Mapping | None,
    lake: Lake,
    engine: Engine | None,
    quarantine_dir: Path,
    progress: Progress | None = None,
) -> ImportSummary:
    """Import files of one table: events and items into the lake, subscribers into the database.

    Raises ConfigError when the mapping does not fit, InputError when a required column is missing,
    a file cannot be read, or most rows are bad. Nothing is written then.
    """
    mapping = mapping or Mapping.model_validate({"table": table})
    if mapping.table != table:
        raise ConfigError(
            f"{mapping.name} makes {mapping.table}, not {table}.",
            "Its key `table` says so.",
            f"Run `reco import {mapping.table}`, or give another mapping.",
        )
    sources = [Source(path, mapping) for path in files]
    with (
        Quarantine(quarantine_dir / _quarantine_name(table, files[0])) as quarantine,
        open_sink(table, lake, engine) as sink,
    ):
        run = _Import(mapping, files[0].parent, quarantine, sink)
        total = sum(source.bytes for source in sources)
        done = 0
        for source in sources:
            for raw in source.batches():
                run.add(raw)
                if progress is not None:
                    progress(f"import {table}", done + source.read_bytes, total)
            run.add_torn(source.torn)
            done += source.bytes
        return run.finish()


class _Import:
    """One import under way: `add` every batch, then `finish`."""

    def __init__(self, mapping: Mapping, folder: Path, quarantine: Quarantine, sink: Sink) -> None:
        self._mapping = mapping
        self._quarantine = quarantine
        self._sink = sink
        self._joins = Joins(mapping, folder)
        self._columns: list[str] = []  # of the source
        self._given: set[str] = set()  # of our table
        self._rows = self._dropped = self._addresses = 0

    def add(self, raw: pl.DataFrame) -> None:
        """Map, check and hand on the rows of a batch."""
        wide = self._joins.widen(raw)
        self._check_shape(raw)
        check_names(wide.columns, self._mapping)
        read = read_as(wide, self._mapping.cast, self._mapping)
        cast = wide.with_columns(read.rows)
        check_expressions(cast, self._mapping)
        try:
            keep = ~_dropped(cast, self._mapping)
            frame = renamed(cast.filter(keep), self._mapping)
            self._check_required(frame, raw)
            checked = check(frame, self._mapping)
        except pl.exceptions.PolarsError as error:
            raise InputError(
                f"An expression of {self._mapping.name} fails on the data, or a column has a type "
                "that cannot be stored.",
                str(error).splitlines()[0],
                "Use `cast: {column: number}`, which quarantines what cannot be read, or `ignore`.",
            ) from error
        reasons = first_of(read.reasons.filter(keep), checked.reasons)
        self._quarantine.add(raw.filter(keep), reasons)
        good = checked.rows.filter(reasons.is_null())
        if len(frame):
            self._sink.add(good)
        if "user_id" in good.columns:
            like_address = pl.col("user_id").str.contains("@", literal=True)
            self._addresses += len(good.filter(like_address))
        self._given |= set(frame.columns)
        self._rows += len(raw)
        self._dropped += len(raw) - len(frame)

    def add_torn(self, lines: Sequence[str]) -> None:
        """Refuse lines of a CSV that could not be split into fields."""
        self._rows += len(lines)
        self._quarantine.add_torn(lines, self._columns)

    def finish(self) -> ImportSummary:
        """Show the rows; raises InputError instead when most of them are bad."""
        bad = self._quarantine.reasons.total()
        reasons = dict(self._quarantine.reasons.most_common())
        if bad > MOST_BAD * (self._rows - self._dropped):
            raise InputError(
                f"{bad:,} of {self._rows - self._dropped:,} rows are bad; nothing was imported.",
                "; ".join(f"{reason}: {n:,}" for reason, n in reasons.items()),
                "Correct the mapping: its columns, units, `timestamp_format` or `decimal_comma`.",
            )
        appended = self._sink.commit()
        return ImportSummary(
            table=self._mapping.table,
            rows=self._rows,
            new=appended.new,
            duplicates=appended.duplicates,
            dropped=self._dropped,
            quarantined=bad,
            reasons=reasons,
            quarantine_file=self._quarantine.keep(),
            notes=[*self._notes(), *self._sink.notes()],
        )

    def _notes(self) -> list[str]:
        if not self._rows:
            return ["the files have no rows"]
        if self._dropped == self._rows:
            return ["every row was left out by `drop` of the mapping"]
        notes = what_is_missing(self._mapping.table, self._given)
        if self._addresses:
            notes.append(
                f"{self._addresses:,} rows have a user_id with an @: no mail can be made for them, "
                "since ids stand in links and links get logged; `rename` another column to "
                "user_id, or hash the ids before the import, the same way in every file"
            )
        return notes

    def _check_shape(self, raw: pl.DataFrame) -> None:
        self._columns = self._columns or raw.columns
        if raw.columns != self._columns:
            raise InputError(
                "The files have different columns.",
                f"{', '.join(self._columns)} and {', '.join(raw.columns)}.",
                "Import them one after the other.",
            )

    def _check_required(self, frame: pl.DataFrame, raw: pl.DataFrame) -> None:
        table = self._mapping.table
        missing = [name for name in REQUIRED[table] if name not in frame.columns]
        if missing:
            example = ", ".join(f"<your column>: {name}" for name in missing)
            raise InputError(
                f"The {table} have no column {' and no column '.join(missing)}.",
                f"Columns are: {', '.join(raw.columns)}.",
                f"Give a mapping: `table: {table}` and `rename: {{{example}}}`; for a value that "
                f"never changes, `constants: {{{missing[0]}: …}}`. "
                f"Known columns are {', '.join(TABLES[table].names)}.",
            )


def _quarantine_name(table: str, file: Path) -> str:
    """One name for each source, so that no other import of a file named alike removes it."""
    place = hashlib.blake2b(str(file.absolute()).encode(), digest_size=4).hexdigest()
    return f"{table}-{file.stem}-{place}.parquet"


def _dropped(raw: pl.DataFrame, mapping: Mapping) -> pl.Series:
    holds = [pl.sql_expr(sql).cast(pl.Boolean).fill_null(False) for sql in mapping.drop]
    if not holds:
        return pl.Series([False] * len(raw), dtype=pl.Boolean)
    return raw.select(pl.any_horizontal(holds).alias("drop")).to_series()
