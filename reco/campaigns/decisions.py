"""The decision record of every mail: what was known, considered and shown, kept in the lake.

Senders add the records of a chunk and write them by the group, never by the mail, under
decisions/records/<campaign>/. What many mails share (configuration, template, catalogue) stands
there once, under the hash of its content (`made_of`, serve.archive).
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from threading import Lock
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq
import structlog

from reco.events.lake import Lake
from reco.tables import TIMESTAMP

log = structlog.get_logger()

FOLDER: Final = "decisions"
GROUP: Final = 4_096  # records a file, while mails come fast
FLUSH_S: Final = 5.0  # after which fewer are written too
MOST_WAITING: Final = 50_000  # then the lake has been away for long, and the oldest are given up
_ROWS: Final = pa.list_(pa.int32())
_CODES: Final = pa.list_(pa.uint8())
_SCORES: Final = pa.list_(pa.float32())

DECISIONS: Final = pa.schema(
    [
        pa.field("delivery", pa.string(), nullable=False),
        pa.field("made_of", pa.string(), nullable=False),  # what its mails share
        pa.field("made_at", TIMESTAMP, nullable=False),  # the clock of the mail
        pa.field("arm", pa.string(), nullable=False),
        pa.field("model", pa.string()),
        pa.field("features", pa.string()),  # as of when, and the hash of their definition
        pa.field("fallback", pa.string()),  # why a better rung was not reached, "" it was
        pa.field("copy", pa.string()),  # JSON of the variants drawn, "" none
        pa.field("propensity", pa.float64()),  # of each pick in its place; 0: not drawn
        pa.field("email", pa.string()),
        pa.field("first_name", pa.string()),
        pa.field("language", pa.string()),
        pa.field("segment", pa.string()),
        pa.field("tracked", pa.bool_()),
        pa.field("curious", pa.bool_()),
        # Shown, in their order: rows of the catalogue named by `made_of`.
        pa.field("rows", _ROWS),
        pa.field("scores", _SCORES),
        pa.field("reasons", _CODES),  # models.slates.Reason
        pa.field("rungs", _CODES),  # models.slates.Rung
        pa.field("gaps", pa.list_(pa.int16())),  # usual days between two purchases
        pa.field("bought", _ROWS),  # of what they took that a pick goes with, -1 none
        pa.field("popular", _ROWS),  # what the block of favourites drew from
        # Considered, best first.
        pa.field("candidates", _ROWS),
        pa.field("candidate_scores", _SCORES),
        pa.field("candidate_rungs", _CODES),
        pa.field("fates", _CODES),  # rules.fates.Fate
        pa.field("message_hash", pa.uint64()),  # xxh3 of the whole message
        pa.field("fence", pa.int64()),  # of the claim: the last one of a delivery is what was sent
    ]
)


class DecisionLog:
    """Gathers the records of one sender's mails and writes them by the group; threads may share it.

    A sender that dies takes those of its last seconds along; its mails are in the ledger.
    """

    def __init__(self, lake: Lake, campaign_id: str) -> None:
        self._lake = lake
        self._campaign_id = campaign_id
        self._lock = Lock()
        self._waiting: list[pa.RecordBatch] = []

    def add(self, records: pa.RecordBatch, places: Sequence[int], fence: int) -> None:
        """Take the records at these places; a full group is written."""
        batch = records.take(pa.array(places, pa.int32()))
        column = DECISIONS.get_field_index("fence")
        batch = batch.set_column(
            column, "fence", pa.repeat(pa.scalar(fence, pa.int64()), len(batch))
        )
        with self._lock:
            self._waiting.append(batch)
            full = sum(map(len, self._waiting)) >= GROUP
        if full:
            self.flush()

    @asynccontextmanager
    async def watching(self, every_s: float = FLUSH_S) -> AsyncIterator[None]:
        """Write what waits now and then, and at the end."""

        async def watch() -> None:
            while True:
                await asyncio.sleep(every_s)
                await asyncio.to_thread(self.flush)

        task = asyncio.create_task(watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.to_thread(self.flush)

    def flush(self) -> None:
        """Write what waits. A lake that does not take it keeps it waiting, and no mail."""
        with self._lock:
            batches, self._waiting = self._waiting, []
        if not batches:
            return
        table = pa.Table.from_batches(batches, DECISIONS)
        try:
            write(self._lake, self._campaign_id, table)
        except OSError as error:
            log.warning("decision records are not written", why=str(error), mails=len(table))
            with self._lock:
                self._waiting = [*batches, *self._waiting]
                while sum(map(len, self._waiting)) > MOST_WAITING:
                    self._waiting.pop(0)


def write(lake: Lake, campaign_id: str, table: pa.Table) -> None:
    """One file of records. Raises OSError."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:12]}.parquet"
    put(lake, sink.getvalue(), "records", campaign_id, name)


def put(lake: Lake, content: bytes | pa.Buffer, *parts: str) -> None:
    """A file below FOLDER, which shows once it is whole. Raises OSError."""
    *folders, name = parts
    folder = lake.path(FOLDER, *folders)
    lake.filesystem.create_dir(folder)
    draft = f"{folder}/.{name}.{uuid.uuid4().hex}.tmp"
    with lake.filesystem.open_output_stream(draft) as stream:
        stream.write(content)
    lake.filesystem.move(draft, f"{folder}/{name}")


def campaigns(lake: Lake) -> list[str]:
    """Campaigns that have records."""
    selector = pyarrow.fs.FileSelector(lake.path(FOLDER, "records"), allow_not_found=True)
    found = lake.filesystem.get_file_info(selector)
    return sorted(info.base_name for info in found if info.type == pyarrow.fs.FileType.Directory)


def files(lake: Lake, campaign_id: str) -> list[str]:
    """Files of records of a campaign, the oldest first."""
    folder = lake.path(FOLDER, "records", campaign_id)
    selector = pyarrow.fs.FileSelector(folder, allow_not_found=True)
    names = (info.path for info in lake.filesystem.get_file_info(selector) if info.is_file)
    return sorted(path for path in names if path.endswith(".parquet"))


def records(lake: Lake, campaign_id: str, delivery: str | None = None) -> pl.DataFrame:
    """Records of a campaign, or of one delivery, with the columns of DECISIONS; the last of each.

    An attempt that was put off left a record too: the highest fence is what was sent.
    """
    wanted = None if delivery is None else pc.field("delivery") == delivery
    tables = [
        pq.read_table(path, filesystem=lake.filesystem, schema=DECISIONS, filters=wanted)
        for path in files(lake, campaign_id)
    ]
    table = pa.concat_tables([DECISIONS.empty_table(), *tables])
    frame = pl.DataFrame(table).sort("fence", maintain_order=True)
    return frame.unique("delivery", keep="last", maintain_order=True)
