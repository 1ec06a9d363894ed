"""Recommendations as a table: Ray Data over the buckets of the lake, one Scorer a worker process.

Takes a model, subscribers and a time, gives tables.RECOMMENDATIONS as Parquet. Histories are read from the
lake before that time and not from the online store, so what came later changes no byte of the file.
"""

import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from reco.catalogue import Catalogue
from reco.errors import InputError, NotFound
from reco.events.lake import Lake
from reco.features.history import from_events
from reco.features.profile import profiles_of
from reco.models.scorer import Scorer
from reco.models.slates import Reason
from reco.subscribers.store import SubscriberStore
from reco.tables import RECOMMENDATIONS, user_bucket
from train.examples import COLUMNS, subscribers, subscribers_of

CHUNK: Final = 256
OFFER_DEPTH: Final = 2_000  # items scored to rank offers that hold many


@dataclass(frozen=True, slots=True)
class RecommendSummary:
    """What was written."""

    users: int
    rows: int
    items: int  # different ones
    model: str
    as_of: datetime
    out: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Question:
    """What every task shares. `items`: only these; `offers`: rows offer_id, item_id, ranked instead of items."""

    lake: Lake
    store: SubscriberStore | None
    directory: str
    k: int
    as_of: datetime
    items: frozenset[str] | None
    offers: pl.DataFrame | None
    novel_only: bool


def run(
    question: Question,
    users: Sequence[str] | Literal["all"],
    out: Path,
    progress: Callable[[str, int, int], None],
) -> RecommendSummary:
    """Write `question.k` ranked items for each of `users`, or for everybody who is known.

    Raises NotFound without a model, InputError when none of the items is known.
    """
    began = time.perf_counter()
    wanted = _by_bucket(question, users)
    rows = [{"bucket": bucket, "users": ids} for bucket, ids in enumerate(wanted)]
    shared = ray.put(question)
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        Answerer,
        fn_constructor_args=(shared, users == "all"),
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    parts: dict[int, pl.DataFrame] = {}
    for row in dataset.iter_rows():
        parts[row["bucket"]] = pickle.loads(row["table"])
        progress("recommend", len(parts), len(rows))
    table = pl.concat([parts[bucket] for bucket in sorted(parts)]).sort("user_id", "rank")
    write(table, out)
    return RecommendSummary(
        users=table["user_id"].n_unique(),
        rows=len(table),
        items=table["item_id"].n_unique(),
        model=Path(question.directory).name,
        as_of=question.as_of,
        out=str(out),
        seconds=round(time.perf_counter() - began, 1),
    )


class Answerer:
    """Answers a bucket at a time; holds the Scorer between buckets."""

    def __init__(self, shared: "ray.ObjectRef[Question]", everybody: bool) -> None:
        self.question: Question = ray.get(shared)
        self.everybody = everybody
        self.catalogue = Catalogue.of(self.question.lake.items())
        self.scorer = Scorer.load(self.question.directory, self.catalogue)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        table = answer(
            self.question,
            self.scorer,
            self.catalogue,
            row["bucket"],
            list(row["users"]),
            self.everybody,
        )
        return {"bucket": row["bucket"], "table": pickle.dumps(table)}


def answer(
    question: Question,
    scorer: Scorer,
    catalogue: Catalogue,
    bucket: int,
    users: list[str],
    everybody: bool,
) -> pl.DataFrame:
    """Rows of tables.RECOMMENDATIONS for the users of one bucket; with `everybody` those with events too."""
    events = question.lake.read_bucket(bucket, before=question.as_of, columns=COLUMNS)
    names = sorted({*users, *events["user_id"].unique()}) if everybody else sorted(users)
    tokens, flags = profiles_of(subscribers_of(question.store, names))
    histories = from_events(events, names, tokens, flags)
    allowed = (
        np.isin(catalogue.item_ids, list(question.items)) if question.items is not None else None
    )
    parts = [empty()]
    for start in range(0, len(names), CHUNK):
        stop = min(start + CHUNK, len(names))
        part = histories.take(start, stop)
        slates = scorer.score(
            part, question.as_of, question.k, allowed=allowed, novel_only=question.novel_only
        )
        row = catalogue.index.rows(slates.items)
        user, place = np.nonzero(row >= 0)
        parts.append(
            pl.DataFrame(
                {
                    "user_id": np.asarray(names[start:stop], object)[user],
                    "item_id": catalogue.item_ids[row[user, place]],
                    "rank": (place + 1).astype(np.int32),
                    "score": slates.scores[user, place],
                    "reason": [Reason(r).name.lower() for r in slates.reasons[user, place]],
                },
                schema=empty().schema,
            )
        )
    return pl.concat(parts)


def empty() -> pl.DataFrame:
    """No rows of tables.RECOMMENDATIONS."""
    return pl.DataFrame(pl.from_arrow(RECOMMENDATIONS.empty_table()))


def write(table: pl.DataFrame, out: Path) -> None:
    """Write the table; equal rows give equal bytes, and the file appears at once."""
    out.parent.mkdir(parents=True, exist_ok=True)
    arrow = table.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(RECOMMENDATIONS)
    work = out.with_name(f".{out.name}.part")
    pq.write_table(arrow, work, compression="zstd")
    work.replace(out)


def _by_bucket(question: Question, users: Sequence[str] | Literal["all"]) -> list[list[str]]:
    buckets: list[list[str]] = [[] for _ in range(question.lake.buckets)]
    for user_id in subscribers(question.store) if users == "all" else dict.fromkeys(users):
        buckets[user_bucket(user_id, len(buckets))].append(user_id)
    return buckets
