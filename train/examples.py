"""Training data: one Ray Data task a bucket compacts its events into histories and writes them.

Takes the lake, gives shards under lake.path("training", run): the very histories that serving
reads, so that features of any past day come from the same code. Written before Ray Train starts,
since on a small machine the two would starve each other.
"""

import io
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import ray
import ray.data

from reco.database import open_database
from reco.embedded import Services
from reco.events.lake import Lake
from reco.features.history import Histories, from_events
from reco.features.profile import profiles_of
from reco.subscribers.store import Subscriber, SubscriberStore
from reco.tables import item_keys, user_bucket
from reco.terminal import Report
from train.hygiene import Hygiene, pages

COLUMNS: Final = ("user_id", "type", "timestamp", "item_id", "value", "price", "quantity")
READ: Final = (*COLUMNS, "event_id")
PAGE: Final = 5_000


@dataclass(frozen=True, slots=True)
class Shard:
    """One bucket, written; `path` within the lake's filesystem, `left_out` by hygiene."""

    path: str
    users: int
    events: int
    left_out: int
    items: set[str]
    first: datetime | None
    last: datetime | None


@dataclass(frozen=True, slots=True)
class Job:
    """What every task of a run shares."""

    lake: Lake
    store: SubscriberStore | None
    run: str
    as_of: datetime
    target: str
    rating_from: float
    hygiene: Hygiene = field(default_factory=Hygiene)


def materialise(job: Job, progress: Report) -> list[Shard]:
    """Shards of all buckets, by bucket."""
    members: list[list[str]] = [[] for _ in range(job.lake.buckets)]
    for user_id in subscribers(job.store):
        members[user_bucket(user_id, job.lake.buckets)].append(user_id)
    rows = [{"bucket": bucket, "members": ids} for bucket, ids in enumerate(members)]
    task = partial(_task, shared=ray.put(job))
    shards: dict[str, Shard] = {}
    for row in ray.data.from_items(rows, override_num_blocks=len(rows)).map(task).iter_rows():
        shard: Shard = pickle.loads(row["shard"])
        shards[shard.path] = shard
        progress("examples", len(shards), len(rows))
    return [shards[path] for path in sorted(shards)]


def write_shard(job: Job, bucket: int, members: Sequence[str]) -> Shard:
    """Compact one bucket: everybody with events before `as_of`, and the subscribers `members`."""
    found = job.lake.read_bucket(bucket, before=job.as_of, columns=READ)
    clean = job.hygiene.cleaned(found)
    events = _targets(clean, job)
    users = sorted({*events["user_id"].unique(), *members})
    tokens, flags = profiles_of(subscribers_of(job.store, users))
    histories = from_events(events, users, tokens, flags)
    path = job.lake.path("training", job.run, f"bucket={bucket:03d}.npz")
    buffer = io.BytesIO()
    np.savez(
        buffer, records=histories.records, offsets=histories.offsets, tokens=tokens, flags=flags,
        users=item_keys(users),
    )  # fmt: skip
    job.lake.filesystem.create_dir(path.rsplit("/", 1)[0])
    with job.lake.filesystem.open_output_stream(path) as sink:
        sink.write(buffer.getvalue())
    times = events["timestamp"].drop_nulls()
    items = set(events["item_id"].drop_nulls().unique())
    left_out = len(found) - len(clean)
    return Shard(path, len(users), len(events), left_out, items, times.min(), times.max())  # type: ignore[arg-type]


def read_shard(lake: Lake, path: str) -> Histories:
    """The histories of a shard."""
    with lake.filesystem.open_input_file(path) as source:
        arrays = np.load(io.BytesIO(source.read()))
        return Histories(*(arrays[name] for name in ("records", "offsets", "tokens", "flags")))


def read_user_keys(lake: Lake, path: str) -> npt.NDArray[np.uint64]:
    """Who a shard's histories belong to: keys of the user ids, made as those of items."""
    with lake.filesystem.open_input_file(path) as source:
        keys: npt.NDArray[np.uint64] = np.load(io.BytesIO(source.read()))["users"]
        return keys


def join(parts: Sequence[Histories]) -> Histories:
    """Histories of several shards as one chunk."""
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    return Histories(
        np.concatenate([part.records for part in parts]),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.flags for part in parts]),
    )


def _targets(events: pl.DataFrame, job: Job) -> pl.DataFrame:
    """Events without ratings that say "disliked", where ratings are the target."""
    if job.target != "rating":
        return events
    return events.filter((pl.col("type") != "rating") | (pl.col("value") >= job.rating_from))


def _task(row: dict[str, Any], shared: "ray.ObjectRef[Job]") -> dict[str, bytes]:
    return {"shard": pickle.dumps(write_shard(ray.get(shared), row["bucket"], row["members"]))}


@contextmanager
def open_store(services: Services) -> Iterator[SubscriberStore]:
    """The subscribers of an installation."""
    engine = open_database(services.database_url)
    try:
        yield SubscriberStore(engine)
    finally:
        engine.dispose()


def subscribers(store: SubscriberStore | None) -> Iterator[str]:
    """All subscribers in order; nobody without a store."""
    for page in pages(store, PAGE) if store else ():
        yield from page


def subscribers_of(store: SubscriberStore | None, users: Sequence[str]) -> list[Subscriber | None]:
    """The subscribers of these ids, None for who is not one."""
    if store is None:
        return [None] * len(users)
    parts = [store.get(users[start : start + PAGE]) for start in range(0, len(users), PAGE)]
    return [subscriber for part in parts for subscriber in part]
