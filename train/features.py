"""The features stage: one Ray Data task a bucket of the lake, one pass, no shuffle.

Takes events before a time, gives user and item tables in the lake and, if asked, the packed
histories in the online store; all of them are read from the same histories.
"""

import pickle
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import numpy as np
import polars as pl
import ray
import ray.data

from reco.catalogue import Catalogue
from reco.errors import NotFound, RecoError
from reco.events.lake import Lake
from reco.features.definitions import ITEM_FEATURES, USER_FEATURES, read_all
from reco.features.history import cutoff_day, from_events
from reco.features.items import ItemFacts
from reco.features.live import COLUMNS, load_rows
from reco.features.online import FeaturesMeta, Mark, OnlineStore
from reco.features.popularity import ItemCounts, ItemView, SomeCounts, count_items, popular_keys
from reco.features.profile import PAGE, read_profiles
from reco.features.table import frame_of, table_name, users_name
from reco.features.targets import strongest
from reco.features.view import Context, View
from reco.subscribers.store import SubscriberStore
from reco.tables import type_code, user_bucket
from reco.terminal import Report

POPULAR: Final = 500  # keys kept for the fallback ladder
CHUNK: Final = 4_096  # subscribers whose features are read at once; bounds a task's memory


@dataclass(frozen=True, slots=True)
class FeatureSummary:
    """What a run made."""

    as_of: datetime
    users: int
    events: int  # before as_of
    items: int  # of the catalogue
    seconds: float
    tables: list[str]


@dataclass(frozen=True, slots=True)
class BucketResult:
    """What a task gives back; the rest lies in the lake and in the online store."""

    users: int
    events: int
    items: SomeCounts


@dataclass(frozen=True, slots=True)
class Job:
    """What every task of a run shares; read once from Ray's object store, without a copy."""

    lake: Lake
    store: SubscriberStore | None
    online: OnlineStore | None
    as_of: datetime
    context: Context


def run(
    lake: Lake,
    store: SubscriberStore | None,
    online: OnlineStore | None,
    as_of: datetime,
    progress: Report,
    target: str | None = None,
) -> FeatureSummary:
    """Make the feature tables as of a time, and load the online store when there is one.

    `target` is the event type that stands for "wanted it": the strongest in the lake by default.
    Without `store` there are no profiles and only subscribers with events.
    Raises NotFound when the lake is empty, ServiceUnavailable.
    """
    began, began_at = time.perf_counter(), datetime.now(UTC)
    catalogue = Catalogue.of(lake.items(before=as_of))
    job = Job(lake, store, online, as_of, _context(lake, catalogue, as_of, target))
    counts, users, events = ItemCounts(len(catalogue)), 0, 0
    for done, part in enumerate(_map_buckets(job), start=1):
        counts.add(part.items)
        users, events = users + part.users, events + part.events
        progress("features", done, lake.buckets)
    if online is not None:
        if store is not None:  # whoever changed between the reading and the loading
            store.announce(began_at)
        online.write_meta(FeaturesMeta(as_of, users, popular_keys(catalogue, counts, POPULAR)))
    # Written last: where it lies, the user tables are complete.
    name = table_name(as_of, "items")
    values = read_all(ITEM_FEATURES, ItemView.of(catalogue, counts, job.context.as_of_day))
    ids = catalogue.frame.select("item_id")
    lake.write_table(name, ids.hstack(frame_of(values, ITEM_FEATURES)))
    seconds = time.perf_counter() - began
    tables = [table_name(as_of, "users"), name]
    return FeatureSummary(as_of, users, events, len(catalogue), seconds, tables)


def _context(lake: Lake, catalogue: Catalogue, as_of: datetime, target: str | None) -> Context:
    types = lake.manifest().types()
    if not types:
        raise NotFound(
            "There are no features without events.",
            f"The lake at {lake.path()} holds none.",
            "Run `reco import events FILE...` first.",
        )
    wanted = type_code(target or strongest(types))
    return Context(cutoff_day(as_of), ItemFacts.of(catalogue), wanted)


def build_bucket(job: Job, bucket: int, members: Sequence[str]) -> BucketResult:
    """Table and online rows of a bucket: everybody with events, and the subscribers `members`."""
    live = job.lake.manifest()
    events = job.lake.read_bucket(bucket, before=job.as_of, columns=COLUMNS, live=live)
    users = sorted({*events["user_id"].unique(), *members})
    tokens, flags = read_profiles(job.store, users)
    histories = from_events(events, users, tokens, flags)
    if job.online is not None:
        load_rows(job.online, bucket, Mark(live.version(bucket), job.as_of), users, histories)
    items, values = ItemCounts(len(job.context.items)), []
    for start in range(0, len(users), CHUNK):
        view = View(histories.take(start, min(start + CHUNK, len(users))), job.context)
        values.append(read_all(USER_FEATURES, view))
        items.add(count_items(view))
    matrix = np.concatenate([np.zeros((0, len(USER_FEATURES)), np.float32), *values])
    table = pl.DataFrame({"user_id": pl.Series(users, dtype=pl.String)})
    job.lake.write_table(
        users_name(job.as_of, bucket), table.hstack(frame_of(matrix, USER_FEATURES))
    )
    return BucketResult(len(users), len(events), items.some())


def _map_buckets(job: Job) -> Iterator[BucketResult]:
    """Results of all buckets, as they come; raises what a task raised on purpose."""
    members = _members(job.store, job.lake.buckets)
    rows = [{"bucket": bucket, "members": ids} for bucket, ids in enumerate(members)]
    task = partial(_task, shared=ray.put(job))
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(task)
    # Reserving resources for other operators, of which there are none, idles a CPU of two.
    dataset.context.op_resource_reservation_enabled = False
    for row in dataset.iter_rows():
        result = pickle.loads(row["result"])
        if isinstance(result, RecoError):
            raise result
        yield result


def _task(row: dict[str, Any], shared: ray.ObjectRef[Job]) -> dict[str, bytes]:
    try:
        result: object = build_bucket(ray.get(shared), row["bucket"], row["members"])
    except RecoError as error:  # raised here it would reach the driver as a text within a text
        result = error
    return {"result": pickle.dumps(result)}


def _members(store: SubscriberStore | None, buckets: int) -> list[list[str]]:
    """Ids of the subscribers of each bucket; tasks read the profiles themselves."""
    members: list[list[str]] = [[] for _ in range(buckets)]
    page = store.ids(limit=PAGE) if store else []
    while store and page:
        for user_id in page:
            members[user_bucket(user_id, buckets)].append(user_id)
        page = store.ids(after=page[-1], limit=PAGE)
    return members
