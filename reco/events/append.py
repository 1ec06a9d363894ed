"""Adding events to the lake: any number of frames, little memory, visible at once or not at all."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from reco.errors import Conflict
from reco.events.identity import fill_event_ids
from reco.events.manifest import Manifest, Part, check_types, write_file
from reco.events.schema import conform, polars_schema
from reco.tables import EVENTS, user_bucket

if TYPE_CHECKING:
    from reco.events.lake import Lake

ORDER: Final = (
    "user_id",
    "timestamp",
    "event_id",
)  # total, so the order of rows never depends on files
SPILL_ROWS: Final = 1_000_000  # rows held in memory before they go to staging files, about 250 MB
MAX_PARTS: Final = 8  # more parts of a bucket than these become one
GRACE_S: Final = 3600.0  # a file that no manifest lists stays so long: a reader may still be at it
# Ids that are nearly all different gain nothing from a dictionary.
DICTIONARIES: Final = [name for name in EVENTS.names if name not in ("event_id", "timestamp")]


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append did: rows that were new, and rows that were known already."""

    new: int
    duplicates: int


class Writer:
    """Collects events by bucket; nothing is visible before `commit`. Use it in a `with`."""

    def __init__(self, lake: "Lake") -> None:
        self._lake = lake
        self._staging = f"staging/{uuid.uuid4().hex}"
        self._held: list[list[pl.DataFrame]] = [[] for _ in range(lake.buckets)]
        self._spilled: list[list[str]] = [[] for _ in range(lake.buckets)]
        self._held_rows = self._rows = self._spills = 0

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._spills:
            self._lake.filesystem.delete_dir(self._lake.path(self._staging))
            self._spills = 0

    def add(self, events: pl.DataFrame) -> None:
        """Add rows of tables.EVENTS; a row without an event_id gets one by its content."""
        frame = conform(events, EVENTS)
        for (bucket,), rows in (
            _with_bucket(frame, self._lake.buckets)
            .partition_by("bucket", as_dict=True, include_key=False, maintain_order=True)
            .items()
        ):
            self._held[int(bucket)].append(rows)
        self._rows += len(frame)
        self._held_rows += len(frame)
        if self._held_rows >= SPILL_ROWS:
            self._spill()

    def commit(self) -> Appended:
        """Make the rows visible in one step.

        Raises InputError when two event types share a code, Conflict when another writer won.
        """
        lake = self._lake
        with lake.lock():
            before = lake.manifest()
            written: list[Part] = []
            try:
                parts = [
                    self._write_bucket(before, bucket, written) for bucket in range(lake.buckets)
                ]
                after = before.replaced(tuple(parts))
                new = after.rows() - before.rows()
                if new:
                    check_types(after.types())
                    self._publish(before, after)
            except BaseException:
                for part in written:
                    lake.filesystem.delete_file(lake.path(part.path))
                raise
            _sweep(lake, after if new else before)
        self.__exit__(None, None, None)
        return Appended(new, self._rows - new)

    def _write_bucket(self, before: Manifest, bucket: int, written: list[Part]) -> tuple[Part, ...]:
        """Parts of the bucket after the append; what was made is added to `written`."""
        old = before.of_bucket(bucket)
        fresh = self._fresh(bucket, old)
        if fresh.is_empty():
            return old
        if len(old) >= MAX_PARTS:
            fresh = pl.concat([self._scan(old).collect(), fresh]).sort(ORDER)
            old = ()
        part = _write_part(self._lake, bucket, fresh)
        written.append(part)
        return (*old, part)

    def _fresh(self, bucket: int, old: Sequence[Part]) -> pl.DataFrame:
        """New rows of the bucket, in order, each event_id once."""
        staged = [self._read_staged(path) for path in self._spilled[bucket]]
        frames = staged + self._held[bucket]
        if not frames:
            return conform(pl.DataFrame(), EVENTS)
        rows = fill_event_ids(pl.concat(frames))
        if rows["event_id"].n_unique() < len(
            rows
        ):  # which of several is kept must not depend on their order
            rows = rows.sort(rows.columns).unique("event_id", keep="first", maintain_order=True)
        if old:
            rows = rows.join(
                self._scan(old).select("event_id").collect(), on="event_id", how="anti"
            )
        return rows.sort(ORDER)

    def _read_staged(self, path: str) -> pl.DataFrame:
        table = pq.read_table(path, filesystem=self._lake.filesystem)
        return pl.DataFrame(table, schema=polars_schema(EVENTS))

    def _scan(self, parts: Sequence[Part]) -> pl.LazyFrame:
        return self._lake.scan([self._lake.path(part.path) for part in parts])

    def _spill(self) -> None:
        self._lake.filesystem.create_dir(self._lake.path(self._staging))
        for bucket, frames in enumerate(self._held):
            if frames:
                path = self._lake.path(self._staging, f"{self._spills}-{bucket:02}.parquet")
                _write(self._lake.filesystem, path, _arrow(pl.concat(frames)))
                self._spilled[bucket].append(path)
                self._held[bucket] = []
        self._spills += 1
        self._held_rows = 0

    def _publish(self, before: Manifest, after: Manifest) -> None:
        if self._lake.manifest().generation != before.generation:
            raise Conflict(
                "Another writer changed the lake during this append; nothing of it was kept.",
                "Object stores give no lock, so two writers at a time race.",
                "Run the import again.",
            )
        write_file(self._lake.filesystem, self._lake.path("events", "manifest.json"), after.dumps())


def _with_bucket(events: pl.DataFrame, buckets: int) -> pl.DataFrame:
    users = events["user_id"].unique()
    codes = np.fromiter(
        (user_bucket(user, buckets) for user in users), dtype=np.int32, count=len(users)
    )
    table = pl.DataFrame({"user_id": users, "bucket": codes})
    return events.join(table, on="user_id", how="left", maintain_order="left")


def _write_part(lake: "Lake", bucket: int, rows: pl.DataFrame) -> Part:
    folder = f"events/bucket={bucket:02}"
    path = f"{folder}/part-{uuid.uuid4().hex}.parquet"
    lake.filesystem.create_dir(lake.path(folder))
    _write(lake.filesystem, lake.path(path), _arrow(rows).cast(EVENTS))
    times = rows["timestamp"]
    first, last = times.min(), times.max()
    return Part(
        path,
        len(rows),
        tuple(sorted(rows["type"].unique())),
        None if first is None else first.isoformat(),  # type: ignore[union-attr]
        None if last is None else last.isoformat(),  # type: ignore[union-attr]
        times.null_count(),
    )


def _write(filesystem: pyarrow.fs.FileSystem, path: str, rows: pa.Table) -> None:
    pq.write_table(
        rows, path, filesystem=filesystem, compression="zstd", use_dictionary=DICTIONARIES
    )


def _arrow(rows: pl.DataFrame) -> pa.Table:
    return rows.to_arrow(compat_level=pl.CompatLevel.oldest())


def _sweep(lake: "Lake", live: Manifest) -> None:
    """Delete event and staging files that no manifest lists and no reader can still hold."""
    keep = {lake.path(path) for path in live.paths()}
    for folder in ("events", "staging"):
        selector = pyarrow.fs.FileSelector(lake.path(folder), recursive=True, allow_not_found=True)
        for info in lake.filesystem.get_file_info(selector):
            old = info.mtime_ns is not None and info.mtime_ns / 1e9 < time.time() - GRACE_S
            if info.is_file and old and info.path.endswith(".parquet") and info.path not in keep:
                lake.filesystem.delete_file(info.path)
