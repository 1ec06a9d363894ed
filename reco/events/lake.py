"""The lake: events by user bucket, items and every other table, as Parquet on any filesystem.

events/bucket=BB/part-….parquet, BB = tables.user_bucket; events/manifest.json lists the live ones.
All of a user's events lie in one bucket, so features need no shuffle.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet as pq

from reco.errors import ConfigError, NotFound
from reco.events.append import ORDER, Appended, Writer
from reco.events.manifest import Manifest, local_lock, read_file, write_file
from reco.events.schema import conform, polars_schema
from reco.tables import EVENTS, ITEMS

LAYOUT: Final = 1  # version of the layout of files
BUCKETS: Final = 16


class Lake:
    """A lake at `root`, a path or any URI that pyarrow knows (s3://, gs://, hdfs://, file://)."""

    def __init__(self, root: str) -> None:
        """Open the lake; the layout is made when there is none.

        Raises ConfigError when the root cannot be used or holds another layout.
        """
        self.filesystem, self._root = _open(root)
        self._local = isinstance(self.filesystem, pyarrow.fs.LocalFileSystem)
        self.filesystem.create_dir(self.path("events"))
        text = read_file(self.filesystem, self.path("lake.json"))
        if text is None:
            with self.lock():
                text = read_file(self.filesystem, self.path("lake.json")) or self._found()
        layout = json.loads(text)
        if layout["layout"] != LAYOUT:
            raise ConfigError(
                f"The lake at {root} has layout {layout['layout']}, this program knows {LAYOUT}.",
                "It was made by another version of reco.",
                "Import the tables into a new lake, or use that version.",
            )
        self.buckets: int = layout["buckets"]

    def path(self, *parts: str) -> str:
        """Path below the root, as `filesystem` wants it."""
        return "/".join((self._root, *parts))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let no other writer in. Object stores have no lock; there the loser gets a Conflict."""
        if not self._local:
            yield
            return
        with local_lock(Path(self.path("events", "lock"))):
            yield

    # -- events ----------------------------------------------------------------------------------

    def append(self, events: pl.DataFrame) -> Appended:
        """Add rows of tables.EVENTS; an event_id that is known or stands twice is added once.

        All or nothing. Raises InputError when two event types share a code, Conflict when another
        writer won the race.
        """
        with self.writer() as writer:
            writer.add(events)
            return writer.commit()

    def writer(self) -> Writer:
        """A Writer: takes any number of frames in little memory, shows all at its commit."""
        return Writer(self)

    def manifest(self) -> Manifest:
        """The live files as of now."""
        text = read_file(self.filesystem, self.path("events", "manifest.json"))
        return Manifest.loads(text) if text else Manifest()

    def bucket_paths(self) -> list[list[str]]:
        """Live event files of each bucket, for `filesystem`; they stay for an hour at least."""
        manifest = self.manifest()
        return [
            [self.path(part.path) for part in manifest.of_bucket(b)] for b in range(self.buckets)
        ]

    def read_bucket(
        self, bucket: int, *, before: datetime | None = None, columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Events of a bucket, sorted by user_id, timestamp, event_id.

        `before` keeps what happened before that time, and what has no time.
        """
        return self._scan_bucket(self.manifest(), bucket, before, columns).collect()

    def events(
        self, *, before: datetime | None = None, columns: Sequence[str] | None = None
    ) -> pl.LazyFrame:
        """All events, lazily; bucket by bucket, sorted within."""
        manifest = self.manifest()
        return pl.concat(
            [self._scan_bucket(manifest, b, before, columns) for b in range(self.buckets)]
        )

    def _scan_bucket(
        self,
        manifest: Manifest,
        bucket: int,
        before: datetime | None,
        columns: Sequence[str] | None,
    ) -> pl.LazyFrame:
        parts = [
            p for p in manifest.of_bucket(bucket) if before is None or p.may_hold_before(before)
        ]
        frame = self.scan([self.path(p.path) for p in parts])
        if before is not None:
            frame = frame.filter((pl.col("timestamp") < before) | pl.col("timestamp").is_null())
        if len(parts) > 1:  # one part is sorted as it was written
            frame = frame.sort(ORDER, nulls_last=False)
        return frame if columns is None else frame.select(columns)

    def scan(self, paths: Sequence[str]) -> pl.LazyFrame:
        """Rows of event files, lazily, in the order of the files."""
        if not paths:
            return pl.LazyFrame(schema=polars_schema(EVENTS))
        if self._local:
            return pl.scan_parquet(list(paths))
        files = pyarrow.dataset.dataset(
            list(paths), schema=EVENTS, format="parquet", filesystem=self.filesystem
        )
        return pl.scan_pyarrow_dataset(files)

    # -- items and other tables ------------------------------------------------------------------

    def items(self) -> pl.DataFrame:
        """Rows of tables.ITEMS, sorted by item_id; empty before the first import."""
        try:
            return self.read_table("items")
        except NotFound:
            return conform(pl.DataFrame(), ITEMS)

    def write_items(self, items: pl.DataFrame) -> Appended:
        """Merge by item_id: a row replaces the old one, except in columns that `items` lacks."""
        incoming = items.unique("item_id", keep="last", maintain_order=True)
        with self.lock():
            known = self.items()
            kept = [name for name in ITEMS.names if name not in items.columns]
            merged = (
                incoming.join(known.select("item_id", *kept), on="item_id", how="left")
                if kept
                else incoming
            )
            rest = known.join(incoming, on="item_id", how="anti")
            self.write_table("items", pl.concat([rest, conform(merged, ITEMS)]).sort("item_id"))
        new = len(rest) + len(incoming) - len(known)
        return Appended(new, len(items) - new)

    def write_table(self, name: str, frame: pl.DataFrame) -> str:
        """Write or replace, in one step, the table `name`, such as "features/items"; its path."""
        path = self.path(f"{name}.parquet")
        self.filesystem.create_dir(path.rsplit("/", 1)[0])
        sink = pa.BufferOutputStream()
        pq.write_table(
            frame.to_arrow(compat_level=pl.CompatLevel.oldest()), sink, compression="zstd"
        )
        write_file(self.filesystem, path, sink.getvalue())
        return path

    def read_table(self, name: str) -> pl.DataFrame:
        """The table `name`; raises NotFound when there is none."""
        try:
            table = pq.read_table(
                self.path(f"{name}.parquet"), filesystem=self.filesystem, partitioning=None
            )
        except FileNotFoundError:
            raise NotFound(
                f"The lake has no table {name!r}.",
                f"{self.path(name)}.parquet does not exist.",
                "Run the stage that makes it first: reco import, features or train.",
            ) from None
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def _found(self) -> bytes:
        text = json.dumps({"layout": LAYOUT, "buckets": BUCKETS}).encode()
        write_file(self.filesystem, self.path("lake.json"), text)
        return text


def _open(root: str) -> tuple[pyarrow.fs.FileSystem, str]:
    if "://" not in root:
        path = Path(root).absolute()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"The lake cannot be made at {path}.", str(error), "Set RECO_LAKE to a folder."
            ) from None
        return pyarrow.fs.LocalFileSystem(), path.as_posix()
    try:
        filesystem, path_in = pyarrow.fs.FileSystem.from_uri(root)
        filesystem.create_dir(path_in)
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(
            f"The lake at {root} cannot be opened.", str(error), "Check RECO_LAKE."
        ) from error
    return filesystem, path_in.rstrip("/")
