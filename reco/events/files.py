"""Files below a root on any pyarrow filesystem: read, replaced in one step, locked by writers."""

import fcntl
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet as pq

from reco.errors import ConfigError, Conflict
from reco.events.schema import polars_schema

LOCK_TIMEOUT_S: Final = 600.0  # an append holds the lock for seconds; more means something hangs


class Files:
    """The files of a lake. `root` is a path or any URI that pyarrow knows (s3://, gs://, file://)."""

    def __init__(self, root: str) -> None:
        """Open the root, made when missing; raises ConfigError when it cannot be used."""
        self.filesystem, self.root = _open(root)
        self.is_local = isinstance(self.filesystem, pyarrow.fs.LocalFileSystem)
        self._swept_at = 0.0

    def path(self, *parts: str) -> str:
        """Path below the root, as `filesystem` wants it."""
        return "/".join((self.root, *parts))

    def read(self, *parts: str) -> bytes | None:
        """Content of a file, None when there is none."""
        try:
            with self.filesystem.open_input_stream(self.path(*parts)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def replace(self, content: bytes, *parts: str) -> None:
        """Write a file in one step: a reader sees the old content or the new one."""
        path = self.path(*parts)
        folder, name = path.rsplit("/", 1)
        draft = f"{folder}/.{name}.{uuid.uuid4().hex}.tmp"
        with self.filesystem.open_output_stream(draft) as stream:
            stream.write(content)
        self._flush(draft)
        self.filesystem.move(draft, path)

    def write_parquet(self, table: pa.Table, *parts: str, dictionary: Sequence[str] = ()) -> None:
        """Write a Parquet file under a name that nobody reads yet; `flush` it before they do."""
        path = self.path(*parts)
        self.filesystem.create_dir(path.rsplit("/", 1)[0])
        pq.write_table(
            table,
            path,
            filesystem=self.filesystem,
            compression="zstd",
            use_dictionary=list(dictionary),
        )

    def flush(self, paths: Sequence[str]) -> None:
        """Bring written files onto the disk, together: the first flush pays for most of all."""
        for path in paths:
            self._flush(self.path(path))

    def _flush(self, path: str) -> None:
        """Onto the disk before anybody is told of it; object stores do so by themselves."""
        if self.is_local:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def scan(self, schema: pa.Schema, paths: Sequence[str]) -> pl.LazyFrame:
        """Rows of Parquet files of one schema, lazily, in the order of the files."""
        if not paths:
            return pl.LazyFrame(schema=polars_schema(schema))
        if self.is_local:
            return pl.scan_parquet([self.path(path) for path in paths], hive_partitioning=False)
        return pl.scan_pyarrow_dataset(
            pyarrow.dataset.dataset(
                [self.path(path) for path in paths],
                schema=schema,
                format="parquet",
                filesystem=self.filesystem,
            )
        )

    def sweep_is_due(self, every_s: float) -> bool:
        """Whether nothing was swept by this object for so long; asking counts as sweeping."""
        now = time.monotonic()
        is_due = now > self._swept_at + every_s
        if is_due:
            self._swept_at = now
        return is_due

    def sweep(self, folder: str, keep: set[str], grace_s: float) -> None:
        """Delete what is neither in `keep` nor younger than `grace_s`: Parquet files and drafts."""
        selector = pyarrow.fs.FileSelector(self.path(folder), recursive=True, allow_not_found=True)
        kept = {self.path(path) for path in keep}
        deadline = time.time() - grace_s
        for info in self.filesystem.get_file_info(selector):
            disposable = info.is_file and info.path.endswith((".parquet", ".tmp"))
            if disposable and info.path not in kept and info.mtime.timestamp() < deadline:
                self.filesystem.delete_file(info.path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let no other writer in, of any process or thread of this machine.

        The system drops the lock when its holder dies. Object stores have none: a writer there
        finds out at the end (Conflict). Raises Conflict after LOCK_TIMEOUT_S.
        """
        if not self.is_local:
            yield
            return
        descriptor = os.open(self.path("lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _acquire(descriptor, self.path("lock"))
            yield
        finally:
            os.close(descriptor)


def _acquire(descriptor: int, path: str) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Conflict(
                    f"The lake is locked by another writer: {path}.",
                    f"It has held the lock for {LOCK_TIMEOUT_S:.0f} s.",
                    "Look for a hanging `reco import` and end it, then try again.",
                ) from None
            time.sleep(0.02)


def _open(root: str) -> tuple[pyarrow.fs.FileSystem, str]:
    if "://" not in root:
        root = Path(root).absolute().as_uri()
    try:
        filesystem, path = pyarrow.fs.FileSystem.from_uri(root)
        filesystem.create_dir(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(
            f"The lake at {root} cannot be opened.",
            str(error),
            "Set RECO_LAKE to a folder or a URI that can be written.",
        ) from error
    return filesystem, path.rstrip("/")
