"""Upkeep of the lake: the files of a bucket become one, and events that are too old leave.

A reader sees the lake before it or after it: the manifest is replaced in one step, and files that
it lists no more stay for an hour. Who lost events is told by the same manifest (manifest.Gone).
"""

import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import polars as pl

from reco.events.append import GRACE_S, ORDER, publish, write_part
from reco.events.files import Files
from reco.events.manifest import Gone, Manifest, Part, read_manifest
from reco.tables import EVENTS

GONE: Final = pl.Schema({"user_id": pl.String(), "bucket": pl.Int64()})


@dataclass(slots=True)
class Tidied:
    """What the upkeep did; `gone` are the users of each bucket who lost events."""

    files_before: int = 0
    files: int = 0
    events: int = 0
    expired: Counter[str] = field(default_factory=Counter)  # events that left, by type
    gone: dict[int, list[str]] = field(default_factory=dict)


def tidy(files: Files, oldest: Mapping[str, datetime]) -> Tidied:
    """One file a bucket, without events of a type before `oldest`; those without a time stay.

    Raises Conflict when another writer changed an object store meanwhile; nothing is done then.
    """
    done, written = Tidied(), list[Part]()
    with files.lock():
        before = read_manifest(files)
        parts = tuple(
            _tidy_bucket(files, before, bucket, oldest, done, written)
            for bucket in range(len(before.parts))
        )
        gone = _write_gone(files, before, done) if done.gone else None
        after = before.replaced(parts, gone) if parts != before.parts else before
        files.flush([part.path for part in written] + ([gone.path] if gone else []))
        publish(files, before, after)  # what is written and not published, a later sweep removes
        files.sweep("events", after.paths(), GRACE_S)
    done.files_before, done.files = before.files(), after.files()
    done.events = after.rows()
    return done


def _tidy_bucket(
    files: Files,
    before: Manifest,
    bucket: int,
    oldest: Mapping[str, datetime],
    done: Tidied,
    written: list[Part],
) -> tuple[Part, ...]:
    parts = before.of_bucket(bucket)
    if len(parts) < 2 and not any(_may_expire(part, oldest) for part in parts):
        return parts
    rows = files.scan(EVENTS, [part.path for part in parts]).sort(ORDER).collect()
    limit = pl.col("type").replace_strict(
        dict(oldest), default=None, return_dtype=pl.Datetime("us", "UTC")
    )
    old = rows.select((pl.col("timestamp") < limit).fill_null(False)).to_series()
    left = rows.filter(old)
    if len(parts) < 2 and left.is_empty():
        return parts
    done.expired.update(left["type"].to_list())
    generation = before.version(bucket)  # other files, the same rows: nobody has to look again
    if len(left):
        done.gone[bucket] = left["user_id"].unique().sort().to_list()
        generation = before.generation + 1
    if old.all():
        return ()
    written.append(write_part(files, rows.filter(~old), bucket, generation))
    return (written[-1],)


def _write_gone(files: Files, before: Manifest, done: Tidied) -> Gone:
    path = f"events/gone-{uuid.uuid4().hex}.parquet"
    users = [(user, bucket) for bucket, some in done.gone.items() for user in some]
    frame = pl.DataFrame(users, GONE, orient="row")
    files.write_parquet(frame.to_arrow(compat_level=pl.CompatLevel.oldest()), path)
    return Gone(path, tuple(done.gone), before.generation + 1)


def _may_expire(part: Part, oldest: Mapping[str, datetime]) -> bool:
    return any(
        kind in part.types and part.first is not None and datetime.fromisoformat(part.first) < when
        for kind, when in oldest.items()
    )
