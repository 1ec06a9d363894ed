"""Which files of the lake are live: one JSON document, replaced in one step.

A reader sees the state before an append or after it, never a half.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

from reco.errors import InputError
from reco.events.files import Files
from reco.tables import type_code


@dataclass(frozen=True, slots=True)
class Part:
    """One immutable file of events; times are ISO 8601, null when no row has one."""

    path: str  # below the root of the lake
    rows: int
    types: tuple[str, ...]
    first: str | None
    last: str | None
    untimed: int = 0  # rows without a timestamp
    generation: int = 0  # of the manifest that listed it first

    def may_hold_before(self, when: datetime) -> bool:
        """Whether a row of the part can lie before `when`; a row without a time always does."""
        return self.untimed > 0 or self.first is None or datetime.fromisoformat(self.first) < when

    def holds_from(self, when: datetime) -> bool:
        """Whether a row of the part lies at `when` or later."""
        return self.last is not None and datetime.fromisoformat(self.last) >= when


@dataclass(frozen=True, slots=True)
class Gone:
    """Users who lost events in the last upkeep: rows user_id, bucket in a file of its own.

    It becomes visible with the loss itself, so whoever serves these users finds out, whatever died.
    """

    path: str  # below the root of the lake
    buckets: tuple[int, ...]
    generation: int  # of the manifest that listed it first


@dataclass(frozen=True, slots=True)
class Manifest:
    """The live parts of each bucket; `generation` counts the replacements."""

    generation: int = 0
    parts: tuple[tuple[Part, ...], ...] = field(default=())
    gone: Gone | None = None

    def of_bucket(self, bucket: int) -> tuple[Part, ...]:
        """Live parts of a bucket."""
        return self.parts[bucket] if bucket < len(self.parts) else ()

    def version(self, bucket: int) -> int:
        """Generation in which a bucket last got or lost rows; 0 for one that never did."""
        lost = self.gone.generation if self.gone and bucket in self.gone.buckets else 0
        return max((part.generation for part in self.of_bucket(bucket)), default=lost)

    def files(self) -> int:
        """Number of files with events."""
        return sum(map(len, self.parts))

    def paths(self) -> set[str]:
        """Every live path."""
        gone = {self.gone.path} if self.gone else set()
        return gone.union(part.path for bucket in self.parts for part in bucket)

    def types(self) -> set[str]:
        """Every event type in the lake."""
        return {name for bucket in self.parts for part in bucket for name in part.types}

    def rows(self) -> int:
        """Number of events in the lake."""
        return sum(part.rows for bucket in self.parts for part in bucket)

    def replaced(self, parts: tuple[tuple[Part, ...], ...], gone: Gone | None = None) -> "Manifest":
        """The next generation, with these parts and, where there was a loss, another one of it."""
        gone = gone or self.gone
        return replace(self, generation=self.generation + 1, parts=parts, gone=gone)

    def dumps(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def loads(cls, text: bytes) -> "Manifest":
        """From JSON."""
        raw = json.loads(text)
        parts = tuple(
            tuple(Part(**{**part, "types": tuple(part["types"])}) for part in bucket)
            for bucket in raw["parts"]
        )
        gone = raw.get("gone")
        if gone is not None:
            gone = Gone(**{**gone, "buckets": tuple(gone["buckets"])})
        return cls(raw["generation"], parts, gone)


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


def read_manifest(files: Files) -> Manifest:
    """The live files as of now."""
    text = files.read("events", "manifest.json")
    return Manifest.loads(text) if text else Manifest()
