"""Before the first fit: the target, the examples, the validation cut and a report of the data."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import polars as pl
import scipy.sparse as sp
import structlog

from reco.catalogue import Catalogue
from reco.database import open_database
from reco.embedded import Services
from reco.errors import InputError, NotFound
from reco.events.lake import Lake
from reco.features.history import Histories, cutoff_day
from reco.features.pairs import Pairs, pairs
from reco.features.targets import strongest
from reco.features.touches import touched
from reco.subscribers.store import SubscriberStore
from reco.tables import type_code
from reco.terminal import Report
from train.config import TrainConfig
from train.examples import Job as ExampleJob
from train.examples import Shard, join, materialise, read_shard
from train.hygiene import Hygiene
from train.impressions import START, write_impressions
from train.loop import LoopJob
from train.problem import cells
from train.timeline import Timeline

PERIODS: Final = 4  # a past, labels of a reference date, validation, and one for good measure
SHORTEST_DAYS: Final = 14  # of a history from which anything can be learned
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DataReport:
    """What there is to learn from."""

    target: str
    events: int
    left_out: int  # events of programs, and of addresses known to be invalid
    users: int
    items: int
    first: datetime | None
    last: datetime | None
    horizon_days: int  # as configured, or shorter where the history is
    repeat_share: float  # of what is taken in the last horizon, what the subscriber had before
    repeats: bool  # so these are recommended again
    touch_share: float  # of what is taken in it, what they had looked at before and not had
    touches: bool  # so views and carts are evidence


@dataclass(frozen=True, slots=True)
class Plan:
    """A run before its first fit; `job` is the fit that stops at the validation cut.

    `impressions` is the table of the final fit (LoopJob.impressions).
    """

    version: str
    as_of: datetime
    job: LoopJob
    histories: Histories
    catalogue: Catalogue
    timeline: Timeline
    report: DataReport
    impressions: str = ""


def prepare(
    config: TrainConfig, services: Services, lake: Lake, as_of: datetime | None, progress: Report
) -> Plan:
    """Choose the target, write the examples, look at the data."""
    types = lake.manifest().types()
    if not types:
        raise NotFound(
            "There is nothing to train on.",
            "The lake holds no events.",
            "Run `reco import events FILE...`.",
        )
    target = strongest(types) if config.target == "auto" else config.target
    as_of = as_of or end_of(lake)
    version = f"{as_of:%Y%m%dT%H%M%S}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    engine = open_database(services.database_url)
    try:
        clean = Hygiene.of(lake, engine, services.database_url, services.link_key)
        store = SubscriberStore(engine)
        examples = ExampleJob(lake, store, version, as_of, target, config.rating_from, clean)
        shards = materialise(examples, progress)
    finally:
        engine.dispose()
    histories = join([read_shard(lake, shard.path) for shard in shards])
    catalogue = Catalogue.of(lake.items(before=as_of))
    config = with_horizon(config, histories, type_code(target), cutoff_day(as_of))
    timeline, report = look_at(histories, catalogue, shards, target, config, cutoff_day(as_of))
    cuts = (START + timedelta(days=timeline.end_day), as_of)
    shown = (
        ("", "")
        if timeline.timeless
        else write_impressions(services, lake, version, cuts, config.response.days)
    )
    job = LoopJob(
        lake=lake,
        shards=tuple(shard.path for shard in shards),
        directory=lake.path("models", f"{version}-validation"),
        checkpoints=str(services.home / "checkpoints"),
        config=config,
        target=target,
        as_of=as_of.isoformat(),
        end_day=timeline.end_day,
        timeless=timeline.timeless,
        repeats=report.repeats,
        touches=report.touches,
        impressions=shown[0],
    )
    return Plan(version, as_of, job, histories, catalogue, timeline, report, shown[1])


def with_horizon(
    config: TrainConfig, histories: Histories, event_type: int, end_day: int
) -> TrainConfig:
    """The settings, with a horizon that fits PERIODS times into a short history of the target."""
    days = histories.records["day"][histories.records["type"] == event_type].astype(np.int64)
    span = end_day - int(days[days > 0].min(initial=end_day))
    if not SHORTEST_DAYS <= span < PERIODS * config.horizon_days:
        return config
    log.info("the history is short, and so is the horizon", days=span // PERIODS)
    return config.model_copy(update={"horizon_days": span // PERIODS})


def look_at(
    histories: Histories,
    catalogue: Catalogue,
    shards: Sequence[Shard],
    target: str,
    config: TrainConfig,
    end_day: int,
) -> tuple[Timeline, DataReport]:
    """The validation cut and the data report.

    Raises InputError when there is too little to learn from.
    """
    records = histories.records[histories.records["type"] == type_code(target)]
    timeless = not (records["day"] > 0).any()
    timeline = Timeline(
        0 if timeless else end_day - config.horizon_days, config.horizon_days, timeless
    )
    labels = timeline.labels(
        histories, timeline.end_day, type_code(target), catalogue.index, len(catalogue)
    )
    past, code = timeline.everything(histories), type_code(target)
    day = 1 if timeless else timeline.end_day
    had = pairs(past, day, code)
    if not labels.nnz or not len(had):
        raise InputError(
            f"There is too little to learn from: no {target} events on both sides of the cut.",
            f"There are {len(records)} compacted {target} events of known and unknown items; "
            f"the validation cut lies {config.horizon_days} days before the end.",
            "Import the items and a longer history, or change `target` or `horizon_days`.",
        )
    again = _share(labels, had, catalogue)
    wide = past if timeless else touched(past, code)
    looked = 0.0 if wide is past else _share(labels, pairs(wide, day, code), catalogue) - again
    touches = (
        looked >= config.touches_from
        if config.touches == "auto"
        else config.touches == "count" and not timeless
    )
    repeats = again >= config.repeats_from if config.repeats == "auto" else config.repeats == "keep"
    first, last = [s.first for s in shards if s.first], [s.last for s in shards if s.last]
    report = DataReport(
        target=target,
        events=sum(s.events for s in shards),
        left_out=sum(s.left_out for s in shards),
        users=sum(s.users for s in shards),
        items=len(set().union(*(s.items for s in shards))),
        first=min(first, default=None),
        last=max(last, default=None),
        horizon_days=config.horizon_days,
        repeat_share=round(again, 4),
        repeats=bool(repeats),
        touch_share=round(looked, 4),
        touches=touches,
    )
    return timeline, report


def _share(labels: sp.csr_matrix, had: Pairs, catalogue: Catalogue) -> float:
    """Share of the labels that are among these pairs."""
    row = catalogue.index.rows(had.item)
    return float(cells(labels, had.owner[row >= 0], row[row >= 0]).sum() / labels.nnz)


def end_of(lake: Lake) -> datetime:
    """Midnight after the last event, never later than now; now where events have no time."""
    last = lake.events(columns=["timestamp"]).select(pl.col("timestamp").max()).collect().item()
    if last is None:
        return datetime.now(UTC)
    midnight = (last + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return min(midnight, datetime.now(UTC))
