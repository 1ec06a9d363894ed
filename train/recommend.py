"""Recommendations as a table: Ray Data over the buckets of the lake, one Scorer a worker process.

Takes a model, subscribers and a time, gives tables.RECOMMENDATIONS as Parquet. Histories are read
from the lake before that time and not from the online store, so what came later changes no byte
of the file.
"""

import pickle
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.parquet as pq
import ray
import ray.data
import structlog

from reco.catalogue import Catalogue
from reco.embedded import Services, connect_redis
from reco.errors import InputError
from reco.events.lake import Lake
from reco.features.history import cutoff_day, from_events
from reco.features.profile import profiles_of
from reco.models.artifact import Artifact, read_config
from reco.models.registry import require_champion
from reco.models.rivals import Rival, rival
from reco.models.scorer import Scorer
from reco.models.slates import Reason, Slates
from reco.subscribers.store import SubscriberStore
from reco.tables import RECOMMENDATIONS, type_code, user_bucket
from reco.terminal import Report
from train.examples import COLUMNS, join, open_store, subscribers, subscribers_of
from train.offers import rank_offers, read_ids, read_offers, weigh

CHUNK: Final = 256
OFFER_DEPTH: Final = 2_000  # items scored to rank offers that hold many
MODEL: Final = "model"
log = structlog.get_logger()


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
    """What every task shares.

    items   only these; None for all
    offers  rows offer_id, item_id: offers are ranked instead (offers.rank_offers)
    by      "model", or another recommender (models.rivals.NAMES) over the model's items
    rival   that recommender, once it is fitted
    """

    lake: Lake
    store: SubscriberStore | None
    directory: str
    k: int
    as_of: datetime
    items: frozenset[str] | None = None
    offers: pl.DataFrame | None = None
    novel_only: bool = False
    by: str = MODEL
    rival: Rival | None = None


def ask(
    services: Services, lake: Lake, out: Path, as_of: datetime, progress: Report, *,
    users: str, k: int, items: Path | None = None, offers: Path | None = None,
    novel_only: bool = False, by: str = MODEL,
) -> RecommendSummary:  # fmt: skip
    """Ask the champion, or another recommender `by` its name.

    `users` is "all" or a file of ids, `items` and `offers` are files.

    Raises NotFound without a champion, InputError when a file cannot be read or names nothing
    known.
    """
    with closing(connect_redis(services.redis_url)) as redis, open_store(services) as store:
        question = Question(
            lake=lake,
            store=store,
            directory=require_champion(redis).directory,
            k=k,
            as_of=as_of,
            items=frozenset(read_ids(items, "item_id")) if items else None,
            offers=read_offers(offers) if offers else None,
            novel_only=novel_only,
            by=by,
        )
        who = read_ids(Path(users), "user_id") if users != "all" else users
        return run(question, who, out, progress)


def run(
    question: Question, users: Sequence[str] | str, out: Path, progress: Report
) -> RecommendSummary:
    """Write `question.k` ranked items for each of `users`, or for everybody who is known.

    Raises NotFound without a model, InputError when none of the items is known.
    """
    began = time.perf_counter()
    if question.by != MODEL:
        question = replace(question, rival=_fitted(question))
    if cutoff_day(question.as_of) < read_config(question.directory).as_of_day:
        # Its histories end in time, but what the model knows of the items does not.
        log.warning("the model has learned from events after --as-of", as_of=question.as_of)
    rows = [
        {"bucket": bucket, "users": ids} for bucket, ids in enumerate(_by_bucket(question, users))
    ]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        Answerer,  # type: ignore[arg-type]  # a callable class
        fn_constructor_args=(question.lake, question.directory, users == "all"),
        fn_args=([ray.put(_weighed(question))],),  # in a list, or Ray would copy what is behind it
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=len(rows)),
    )
    parts: dict[int, pl.DataFrame] = {}
    for row in dataset.iter_rows():
        parts[row["bucket"]] = pickle.loads(row["table"])
        progress("recommend", len(parts), len(rows))
    table = pl.concat([parts[bucket] for bucket in sorted(parts)]).sort("user_id", "rank")
    if not len(table):
        raise InputError(
            "There is nothing to recommend.",
            "No user is known, or none of the items that were asked for.",
            "Check --users, --items and --offers against the imported tables.",
        )
    write(table, out)
    return RecommendSummary(
        users=table["user_id"].n_unique(),
        rows=len(table),
        items=table["item_id"].n_unique(),
        model=Path(question.directory).name if question.rival is None else question.by,
        as_of=question.as_of,
        out=str(out),
        seconds=round(time.perf_counter() - began, 1),
    )


class Answerer:
    """Answers a bucket at a time; holds the Scorer between buckets."""

    def __init__(self, lake: Lake, directory: str, everybody: bool) -> None:
        self.catalogue = Catalogue.of(lake.items())
        self.scorer = Scorer.load(directory, self.catalogue)
        self.everybody = everybody

    def __call__(
        self, row: dict[str, Any], shared: "list[ray.ObjectRef[Question]]"
    ) -> dict[str, Any]:
        """The bucket's number and its rows, pickled."""
        question, users = ray.get(shared[0]), list(row["users"])
        table = answer(question, self.scorer, self.catalogue, row["bucket"], users, self.everybody)
        return {"bucket": row["bucket"], "table": pickle.dumps(table)}


def answer(
    question: Question,
    scorer: Scorer,
    catalogue: Catalogue,
    bucket: int,
    users: list[str],
    everybody: bool,
) -> pl.DataFrame:
    """Rows of tables.RECOMMENDATIONS for the users of one bucket.

    With `everybody` those with events too.
    """
    events = question.lake.read_bucket(bucket, before=question.as_of, columns=COLUMNS)
    names = sorted({*users, *events["user_id"].unique()}) if everybody else sorted(users)
    tokens, flags = profiles_of(subscribers_of(question.store, names))
    histories = from_events(events, names, tokens, flags)
    allowed = mask(question, catalogue)
    depth = question.k if question.offers is None else OFFER_DEPTH
    parts = [empty()]
    for start in range(0, len(names), CHUNK):
        stop = min(start + CHUNK, len(names))
        part = histories.take(start, stop)
        slates = (question.rival or scorer).score(
            part, question.as_of, depth, allowed=allowed, novel_only=question.novel_only
        )
        parts.append(as_rows(slates, names[start:stop], catalogue))
    table = pl.concat(parts)
    if question.offers is None:
        return table
    had = events.filter(pl.col("type") == scorer.config.target)
    counts = had.group_by("user_id", "item_id").agg(pl.len().alias("count"))
    return rank_offers(table, counts, question.offers, names, question.k)


def mask(question: Question, catalogue: Catalogue) -> npt.NDArray[np.bool_] | None:
    """Rows of the catalogue that may be shown."""
    wanted = question.items
    if question.offers is not None:
        held = frozenset(question.offers["item_id"])
        wanted = held if wanted is None else wanted & held
    return None if wanted is None else np.isin(catalogue.item_ids.astype(str), sorted(wanted))


def as_rows(slates: Slates, names: Sequence[str], catalogue: Catalogue) -> pl.DataFrame:
    """Slates as rows of tables.RECOMMENDATIONS."""
    row = catalogue.index.rows(slates.items)
    user, place = np.nonzero(row >= 0)
    reasons = np.array([r.name.lower() for r in Reason], object)
    columns = {
        "user_id": np.asarray(names, object)[user],
        "item_id": catalogue.item_ids[row[user, place]],
        "rank": (place + 1).astype(np.int32),
        "score": slates.scores[user, place],
        "reason": reasons[slates.reasons[user, place]],
    }
    return pl.DataFrame(columns, schema=empty().schema)


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


def _fitted(question: Question) -> Rival:
    """The recommender that was asked for, fitted on everybody's events before the time."""
    catalogue = Catalogue.of(question.lake.items(before=question.as_of))
    config = read_config(question.directory)
    usable = np.isin(catalogue.item_ids.astype(str), Artifact.load(question.directory).item_ids)
    parts = []
    for bucket in range(question.lake.buckets):
        events = question.lake.read_bucket(bucket, before=question.as_of, columns=COLUMNS)
        names = events["user_id"].unique().sort().to_list()
        profiles = profiles_of(subscribers_of(question.store, names))  # whoever refuses has none
        parts.append(from_events(events, names, *profiles))
    day = cutoff_day(question.as_of)
    code = type_code(config.target)
    return rival(question.by, join(parts), catalogue, usable, day, code, config.repeats)


def _weighed(question: Question) -> Question:
    """The question with its offers weighed by how often they are taken."""
    if question.offers is None:
        return question
    target = read_config(question.directory).target
    return replace(question, offers=weigh(question.offers, question.lake, question.as_of, target))


def _by_bucket(question: Question, users: Sequence[str] | str) -> list[list[str]]:
    buckets: list[list[str]] = [[] for _ in range(question.lake.buckets)]
    for user_id in subscribers(question.store) if users == "all" else dict.fromkeys(users):
        buckets[user_bucket(user_id, len(buckets))].append(user_id)
    return buckets
