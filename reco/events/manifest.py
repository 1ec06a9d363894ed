"""Which files of the lake are live: one JSON document, replaced in one step.

A reader sees the state before an append or after it, never a half. Writers take turns by a lock.
"""

import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pyarrow.fs

from reco.errors import Conflict, InputError
from reco.tables import type_code

LOCK_TIMEOUT_S = 600.0  # an append holds the lock for seconds; more means something hangs


@dataclass(frozen=True, slots=True)
class Part:
    """One immutable file of events; times are ISO 8601, null when no row has one."""

    path: str  # below the root of the lake
    rows: int
    types: tuple[str, ...]
    first: str | None
    last: str | None
    untimed: int = 0  # rows without a timestamp

    def may_hold_before(self, when: datetime) -> bool:
        """Whether a row of the part can lie before `when`; a row without a time always does."""
        return self.untimed > 0 or self.first is None or datetime.fromisoformat(self.first) < when


@dataclass(frozen=True, slots=True)
class Manifest:
    """The live parts of each bucket; `generation` counts the replacements."""

    generation: int = 0
    parts: tuple[tuple[Part, ...], ...] = field(default=())

    def of_bucket(self, bucket: int) -> tuple[Part, ...]:
        """Live parts of a bucket."""
        return self.parts[bucket] if bucket < len(self.parts) else ()

    def paths(self) -> set[str]:
        """Every live path."""
        return {part.path for bucket in self.parts for part in bucket}

    def types(self) -> set[str]:
        """Every event type in the lake."""
        return {name for bucket in self.parts for part in bucket for name in part.types}

    def rows(self) -> int:
        """Number of events in the lake."""
        return sum(part.rows for bucket in self.parts for part in bucket)

    def replaced(self, parts: tuple[tuple[Part, ...], ...]) -> "Manifest":
        """The next generation, with these parts."""
        return replace(self, generation=self.generation + 1, parts=parts)

    def dumps(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def loads(cls, text: bytes) -> "Manifest":
        """From JSON."""
        raw = json.loads(text)
        parts = tuple(
            tuple(Part(**{**part, "types": tuple(part["types"])}) for part in bucket)
            for bucket in raw["parts"]
        )
        return cls(raw["generation"], parts)


def check_types(types: set[str]) -> None:
    """Raises InputError when two types share a code (tables.type_code): histories would mix."""
    taken: dict[int, str] = {}
    for name in sorted(types):
        other = taken.setdefault(type_code(name), name)
        if other != name:
            raise InputError(
                f"The event types {other!r} and {name!r} cannot live in one lake.",
                "Both have the same one-byte code in a packed history.",
                "Rename one of them in the mapping, for example `values: {type: {"
                f"{name}: {name}_2}}}}`, and import again.",
            )


def write_file(filesystem: pyarrow.fs.FileSystem, path: str, content: bytes) -> None:
    """Replace a file in one step: a reader sees the old content or the new one."""
    folder, name = path.rsplit("/", 1)
    draft = f"{folder}/.{name}.{uuid.uuid4().hex}.tmp"
    with filesystem.open_output_stream(draft) as stream:
        stream.write(content)
    filesystem.move(draft, path)


def read_file(filesystem: pyarrow.fs.FileSystem, path: str) -> bytes | None:
    """Content of a file, None when there is none."""
    try:
        with filesystem.open_input_stream(path) as stream:
            return bytes(stream.read())
    except FileNotFoundError:
        return None


@contextmanager
def local_lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, of all processes and threads of this machine.

    The system drops it when its holder dies. Raises Conflict after LOCK_TIMEOUT_S.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Conflict(
                        f"The lake is locked by another writer: {path}.",
                        f"It has held the lock for {LOCK_TIMEOUT_S:.0f} s.",
                        "Look for a hanging `reco import` and end it, then try again.",
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)
