"""Adding events to the lake: any number of frames, little memory, visible at once or not at all."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from reco.errors import Conflict
from reco.events.files import Files
from reco.events.identity import fill_event_ids
from reco.events.known_ids import KnownIds
from reco.events.manifest import Manifest, Part, check_types, read_manifest
from reco.events.schema import conform, polars_schema
from reco.tables import EVENTS, user_bucket

ORDER: Final = ("user_id", "timestamp", "event_id")  # total: no order depends on files
SPILL_ROWS: Final = 1_000_000  # rows held before they go to staging files, about 250 MB
GRACE_S: Final = 3600.0  # a file that is not listed any more stays so long for its last readers
SWEEP_S: Final = 60.0  # between two looks for such files, in a stream
# Columns of nearly distinct values gain nothing from a dictionary.
DICTIONARY: Final = [name for name in EVENTS.names if name not in ("event_id", "timestamp")]


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append did: rows that were new, and rows that were known already."""

    new: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class Landed:
    """New rows of a bucket, and between which of its versions they came."""

    bucket: int
    before: int  # Manifest.version without these rows
    version: int  # and with them
    rows: pl.DataFrame


class Writer:
    """Collects events by bucket; nothing is visible before `commit`. Use it in a `with`.

    With `known`, ids are looked up there and `landed` holds what the commit added.
    """

    def __init__(self, files: Files, buckets: int, known: KnownIds | None = None) -> None:
        self.landed: list[Landed] = []
        self._files = files
        self._known = known
        self._staging = f"staging/{uuid.uuid4().hex}"
        self._held: list[list[pl.DataFrame]] = [[] for _ in range(buckets)]
        self._spilled: list[list[str]] = [[] for _ in range(buckets)]
        self._held_rows = self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if any(self._spilled):
            self._files.filesystem.delete_dir(self._files.path(self._staging))

    def add(self, events: pl.DataFrame) -> None:
        """Add rows of tables.EVENTS; a row without an event_id gets one by its content."""
        frame = _with_bucket(conform(events, EVENTS), len(self._held))
        for (bucket,), rows in frame.partition_by(
            "bucket", as_dict=True, include_key=False, maintain_order=True
        ).items():
            self._held[int(bucket)].append(rows)
        self._rows += len(frame)
        self._held_rows += len(frame)
        if self._held_rows >= SPILL_ROWS:
            self._spill()

    def commit(self) -> Appended:
        """Make the rows visible in one step.

        Raises InputError when two event types share a code, Conflict when another writer won.
        """
        with self._files.lock():
            before = read_manifest(self._files)
            written: list[Part] = []
            try:
                buckets = range(len(self._held))
                parts = [self._write_bucket(before, bucket, written) for bucket in buckets]
                after = before.replaced(tuple(parts)) if written else before
                check_types(after.types())
                self._files.flush([part.path for part in written])
                publish(self._files, before, after)
            except Exception:  # an interrupt may come after the publishing: then they are in use
                for part in written:
                    self._files.filesystem.delete_file(self._files.path(part.path))
                raise
            # A stream appends several times a second; looking at every file each time would cost.
            if self._known is None or self._files.sweep_is_due(SWEEP_S):
                self._files.sweep("events", after.paths(), GRACE_S)
                self._files.sweep("staging", set(), GRACE_S)
        new = after.rows() - before.rows()
        return Appended(new, self._rows - new)

    def _write_bucket(self, before: Manifest, bucket: int, written: list[Part]) -> tuple[Part, ...]:
        """Parts of the bucket after the append; a part that was made is added to `written`."""
        old = before.of_bucket(bucket)
        rows = self._fresh(bucket, old)
        if rows.is_empty():
            return old
        generation = before.generation + 1
        if self._known is not None:
            self.landed.append(Landed(bucket, before.version(bucket), generation, rows))
        old, swallowed = _compacted(old, len(rows))
        if swallowed:
            rows = pl.concat([self._scan(swallowed).collect(), rows]).sort(ORDER)
        part = write_part(self._files, rows, bucket, generation)
        written.append(part)
        if self._known is not None:
            self._known.add(bucket, part, rows["event_id"])
        return (*old, part)

    def _fresh(self, bucket: int, old: Sequence[Part]) -> pl.DataFrame:
        """New rows of the bucket, in order, each event_id once."""
        frames = [self._read_staged(path) for path in self._spilled[bucket]] + self._held[bucket]
        if not frames:
            return conform(pl.DataFrame(), EVENTS)
        rows = fill_event_ids(pl.concat(frames))
        if rows["event_id"].n_unique() < len(rows):
            # Which of several rows is kept must not depend on their order in the file.
            rows = rows.sort(rows.columns).unique("event_id", keep="first", maintain_order=True)
        if self._known is not None:
            old = self._known.holders(bucket, rows["event_id"], old, self._ids_of)
        if old:
            known = self._scan(old).select("event_id").collect()
            rows = rows.join(known, on="event_id", how="anti")
        return rows.sort(ORDER)

    def _ids_of(self, part: Part) -> pl.Series:
        return self._scan([part]).select("event_id").collect()["event_id"]

    def _scan(self, parts: Sequence[Part]) -> pl.LazyFrame:
        return self._files.scan(EVENTS, [part.path for part in parts])

    def _read_staged(self, path: str) -> pl.DataFrame:
        table = pq.read_table(self._files.path(path), filesystem=self._files.filesystem)
        return pl.DataFrame(table, schema=polars_schema(EVENTS))

    def _spill(self) -> None:
        for bucket, frames in enumerate(self._held):
            if frames:
                path = f"{self._staging}/{bucket:02}-{len(self._spilled[bucket])}.parquet"
                self._files.write_parquet(_arrow(pl.concat(frames)), path, dictionary=DICTIONARY)
                self._spilled[bucket].append(path)
                self._held[bucket] = []
        self._held_rows = 0


def write_part(files: Files, rows: pl.DataFrame, bucket: int, generation: int) -> Part:
    """A new file of a bucket, in the order of the lake; nobody sees it before `publish`."""
    path = f"events/bucket={bucket:02}/part-{uuid.uuid4().hex}.parquet"
    part = _describe(rows, path, generation)
    files.write_parquet(_arrow(rows).cast(EVENTS), path, dictionary=DICTIONARY)
    return part


def publish(files: Files, before: Manifest, after: Manifest) -> None:
    """Replace the manifest in one step, if it is still `before`. Raises Conflict."""
    if after == before:
        return
    if read_manifest(files).generation != before.generation:
        raise Conflict(
            "Another writer changed the lake meanwhile; nothing of this was kept.",
            "Object stores give no lock, so two writers at a time race.",
            "Run it again.",
        )
    files.replace(after.dumps(), "events", "manifest.json")


def _compacted(parts: tuple[Part, ...], rows: int) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Parts that stay, and the newest ones that a new part of `rows` rows swallows.

    A part swallows all that are not larger, as in a log-structured merge tree: a bucket of n rows
    has at most log2(n) parts, and each row is written again at most log2(n) times.
    """
    stay = len(parts)
    while stay and parts[stay - 1].rows <= rows:
        stay -= 1
        rows += parts[stay].rows
    return parts[:stay], parts[stay:]


def _with_bucket(events: pl.DataFrame, buckets: int) -> pl.DataFrame:
    users = events["user_id"].unique()
    codes = np.fromiter((user_bucket(user, buckets) for user in users), np.int32, len(users))
    table = pl.DataFrame({"user_id": users, "bucket": codes})
    return events.join(table, on="user_id", how="left", maintain_order="left")


def _describe(rows: pl.DataFrame, path: str, generation: int) -> Part:
    times = rows.select(
        pl.col("timestamp").min().dt.to_string("iso:strict").alias("first"),
        pl.col("timestamp").max().dt.to_string("iso:strict").alias("last"),
        pl.col("timestamp").null_count().alias("untimed"),
    )
    types = tuple(sorted(rows["type"].unique()))
    return Part(
        path=path, rows=len(rows), types=types, generation=generation, **times.row(0, named=True)
    )


def _arrow(rows: pl.DataFrame) -> pa.Table:
    return rows.to_arrow(compat_level=pl.CompatLevel.oldest())
