"""The lake: events by user bucket, items and every other table, as Parquet on any filesystem.

events/bucket=BB/part-….parquet, BB = tables.user_bucket; events/manifest.json lists the live ones.
All of a user's events lie in one bucket, so features need no shuffle.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from reco.errors import ConfigError, NotFound
from reco.events.append import ORDER, Appended, Landed, Writer
from reco.events.files import Files
from reco.events.known_ids import KnownIds
from reco.events.manifest import Gone, Manifest, read_manifest
from reco.events.schema import conform
from reco.events.upkeep import Tidied, tidy
from reco.tables import EVENTS, ITEMS

LAYOUT: Final = 1  # version of the layout of files
BUCKETS: Final = 16

__all__ = ["Appended", "Lake", "Landed", "Writer"]


class Lake:
    """A lake at `root`, a path or any URI that pyarrow knows (s3://, gs://, hdfs://, file://)."""

    def __init__(self, root: str) -> None:
        """Open the lake; the layout is made when there is none.

        Raises ConfigError when the root cannot be used or holds another layout.
        """
        self._files = Files(root)
        layout = self._layout()
        if layout["layout"] != LAYOUT:
            raise ConfigError(
                f"The lake at {root} has layout {layout['layout']}, this program knows {LAYOUT}.",
                "It was made by another version of reco.",
                "Import the tables into a new lake, or use that version.",
            )
        self.buckets: int = layout["buckets"]

    @property
    def filesystem(self) -> pyarrow.fs.FileSystem:
        """Where the files lie."""
        return self._files.filesystem

    def path(self, *parts: str) -> str:
        """Path below the root, as `filesystem` wants it."""
        return self._files.path(*parts)

    # -- events ------------------------------------------------------------------------------

    def append(self, events: pl.DataFrame) -> Appended:
        """Add rows of tables.EVENTS; an event_id that is known or stands twice is added once.

        All or nothing. Raises InputError when two event types share a code, Conflict when another
        writer won the race.
        """
        with self.writer() as writer:
            writer.add(events)
            return writer.commit()

    def land(self, events: pl.DataFrame, known: KnownIds) -> list[Landed]:
        """Append as `append` does, for a stream of small batches; what was new, by bucket.

        `known` is kept from one batch to the next by the process that appends.
        """
        with Writer(self._files, self.buckets, known) as writer:
            writer.add(events)
            writer.commit()
            return writer.landed

    def writer(self) -> Writer:
        """A Writer: takes any number of frames in little memory, shows all at its commit."""
        return Writer(self._files, self.buckets)

    def tidy(self, oldest: Mapping[str, datetime]) -> Tidied:
        """One file a bucket, without events of a type before `oldest`. Raises Conflict."""
        return tidy(self._files, oldest)

    def manifest(self) -> Manifest:
        """The live files as of now."""
        return read_manifest(self._files)

    def users_since(
        self, live: Manifest, bucket: int, version: int, late: datetime | None = None
    ) -> list[str]:
        """Users of a bucket with rows that came or went after its `version`, or lie at `late` on.

        Compaction mixes old rows into new files, so users whose rows did not change may be named.
        """
        parts = live.of_bucket(bucket)
        newer = [part.path for part in parts if part.generation > version]
        found = [self._files.scan(EVENTS, newer)]
        if late is not None:
            rest = [part.path for part in parts if part.path not in newer and part.holds_from(late)]
            found.append(self._files.scan(EVENTS, rest).filter(pl.col("timestamp") >= late))
        if live.gone is not None and live.gone.generation > version:
            found.append(self._gone(live.gone).filter(pl.col("bucket") == bucket))
        users = pl.concat([frame.select("user_id") for frame in found])
        return users.unique().collect()["user_id"].sort().to_list()

    def gone(self) -> dict[int, list[str]]:
        """Users of each bucket who lost events in the last upkeep that took any."""
        live = self.manifest()
        if live.gone is None:
            return {}
        rows = self._gone(live.gone).collect()
        return {
            int(bucket): some["user_id"].to_list() for (bucket,), some in rows.group_by("bucket")
        }

    def _gone(self, gone: Gone) -> pl.LazyFrame:
        return pl.DataFrame(pq.read_table(self.path(gone.path), filesystem=self.filesystem)).lazy()

    def bucket_paths(self) -> list[list[str]]:
        """Live event files of each bucket, for `filesystem`; they stay for an hour at least."""
        live = self.manifest()
        return [[self.path(part.path) for part in live.of_bucket(b)] for b in range(self.buckets)]

    def read_bucket(
        self,
        bucket: int,
        *,
        before: datetime | None = None,
        columns: Sequence[str] | None = None,
        live: Manifest | None = None,
    ) -> pl.DataFrame:
        """Events of a bucket, sorted by user_id, timestamp, event_id.

        `before` keeps what happened before that time, and what has no time. `live` is a manifest
        of the last hour, to read what was there then; by default it is what is there now.
        """
        return self._scan(live or self.manifest(), bucket, before, columns).collect()

    def events(
        self, *, before: datetime | None = None, columns: Sequence[str] | None = None
    ) -> pl.LazyFrame:
        """All events as of now, lazily; bucket by bucket, sorted within."""
        live = self.manifest()
        return pl.concat([self._scan(live, b, before, columns) for b in range(self.buckets)])

    def _scan(
        self, live: Manifest, bucket: int, before: datetime | None, columns: Sequence[str] | None
    ) -> pl.LazyFrame:
        parts = live.of_bucket(bucket)
        if before is not None:
            parts = tuple(part for part in parts if part.may_hold_before(before))
        frame = self._files.scan(EVENTS, [part.path for part in parts])
        if before is not None:
            frame = frame.filter((pl.col("timestamp") < before) | pl.col("timestamp").is_null())
        if len(parts) > 1:  # one part is sorted as it was written
            frame = frame.sort(ORDER)
        return frame if columns is None else frame.select(columns)

    # -- items and other tables --------------------------------------------------------------

    def items(self, *, before: datetime | None = None) -> pl.DataFrame:
        """Rows of tables.ITEMS, sorted by item_id.

        Before any items were imported they are those that events name, or those `before` a time.
        An item without a title is called by its category and id.
        """
        name = pl.concat_str("category", "item_id", separator=" ", ignore_nulls=True)
        stored = self._stored_items()
        items = stored if len(stored) else self._named_by_events(before)
        return items.with_columns(pl.coalesce("title", name).alias("title"))

    def items_version(self) -> str:
        """Changes whenever items were written."""
        info = self.filesystem.get_file_info(self.path("items.parquet"))
        return f"{info.mtime_ns}-{info.size}"

    def has_items(self) -> bool:
        """Whether items were imported; if not, they are known by the events that name them."""
        return len(self._stored_items()) > 0

    def _named_by_events(self, before: datetime | None) -> pl.DataFrame:
        named = (
            self.events(before=before, columns=["item_id"]).drop_nulls().unique().sort("item_id")
        )
        return conform(named.collect(), ITEMS)

    def _stored_items(self) -> pl.DataFrame:
        try:
            return self.read_table("items")
        except NotFound:
            return conform(pl.DataFrame(), ITEMS)

    def write_items(self, items: pl.DataFrame) -> Appended:
        """Merge by item_id: a row replaces the old one, except in columns that `items` lacks."""
        incoming = items.unique("item_id", keep="last", maintain_order=True)
        with self._files.lock():
            known = self._stored_items()
            kept = [name for name in ITEMS.names if name not in items.columns]
            merged = incoming
            if kept:
                merged = incoming.join(known.select("item_id", *kept), on="item_id", how="left")
            rest = known.join(incoming, on="item_id", how="anti")
            every = pl.concat([rest, conform(merged, ITEMS)]).sort("item_id")
            self.write_table("items", every)
        new = len(every) - len(known)
        return Appended(new, len(items) - new)

    def write_table(self, name: str, frame: pl.DataFrame) -> str:
        """Write or replace, in one step, the table `name`, such as "features/items"; its path."""
        path = f"{name}.parquet"
        self.filesystem.create_dir(self.path(path).rsplit("/", 1)[0])
        sink = pa.BufferOutputStream()
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        pq.write_table(table, sink, compression="zstd")
        self._files.replace(sink.getvalue(), path)
        return self.path(path)

    def read_table(self, name: str) -> pl.DataFrame:
        """The table `name`; raises NotFound when there is none."""
        content = self._files.read(f"{name}.parquet")
        if content is None:
            raise NotFound(
                f"The lake has no table {name!r}.",
                f"{self.path(name)}.parquet does not exist.",
                "Run the stage that makes it first: reco import, features or train.",
            )
        return pl.DataFrame(pq.read_table(pa.BufferReader(content)))

    def _layout(self) -> dict[str, int]:
        text = self._files.read("lake.json")
        if text is None:
            with self._files.lock():
                text = self._files.read("lake.json")
                if text is None:
                    text = json.dumps({"layout": LAYOUT, "buckets": BUCKETS}).encode()
                    self.filesystem.create_dir(self.path("events"))
                    self._files.replace(text, "lake.json")
        layout: dict[str, int] = json.loads(text)
        return layout
