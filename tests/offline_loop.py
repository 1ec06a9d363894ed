"""The closed loop of bench_loop without servers: SIMULATED shoppers, fits in this process.

Same shop, same truth, same code of training and scoring; what the doors would have recorded is
written down as they would have. A fit takes seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch

from reco.catalogue import Catalogue
from reco.events.lake import Lake
from reco.events.schema import conform
from reco.features.history import Histories, cutoff_day
from reco.models.artifact import Artifact
from reco.models.scorer import Scorer
from reco.outcomes.bots import TRAP_SLOT
from reco.outcomes.impressions import DRAWN, MAILED, impressions_of
from reco.tables import EVENTS, ITEMS, user_bucket
from tests import taste_world as world
from tests.taste_world import BROWSER, Deed, Habits, Shoppers, deeds
from train.checkpoints import Course
from train.config import TrainConfig
from train.examples import Job, join, read_shard, write_shard
from train.loop import LoopJob, build, calibrate, load_problem, taught_by_mails, train
from train.stages import Stage
from train.workers import Workers

NOW: Final = datetime(2026, 3, 2, 9, tzinfo=UTC)
WEEK: Final = timedelta(days=7)
CLOSED: Final = timedelta(days=11)  # after the mails: all windows are over
EVENING: Final = NOW + timedelta(hours=14)
PICKS: Final = 3


class Silent:
    """Reports no epoch and has no checkpoint."""

    def begin(self, stage: Stage, course: Course) -> int:
        """Every stage starts at its first epoch."""
        return 0

    def epoch(self, *_: Any) -> None:
        """Nothing is told."""


@dataclass
class Offline:
    """A shop in a lake; `config` of every fit."""

    root: Path
    shop: Shoppers
    config: TrainConfig

    def __post_init__(self) -> None:
        self.lake = Lake(str(self.root / "lake"))
        items = pl.DataFrame(
            {"item_id": self.shop.items, "price": [9.0] * world.ITEMS,
             "title": [f"Thing {i}" for i in range(world.ITEMS)],
             "category": [f"aisle {i % world.CATEGORIES}" for i in range(world.ITEMS)]}
        )  # fmt: skip
        empty = pl.DataFrame(pl.from_arrow(ITEMS.empty_table()))
        self.lake.write_items(pl.concat([empty, items], how="diagonal_relaxed"))
        self.catalogue = Catalogue.of(self.lake.items())
        self._fits = 0

    def happened(self, events: Sequence[dict[str, Any]]) -> None:
        """Write events down."""
        times = [e["timestamp"] for e in events]
        times = [datetime.fromisoformat(t) if isinstance(t, str) else t for t in times]
        frame = pl.DataFrame([e | {"timestamp": t} for e, t in zip(events, times, strict=True)])
        self.lake.append(conform(frame, EVENTS))

    def shards(self, as_of: datetime) -> tuple[str, ...]:
        """Examples of everything before a time."""
        self._fits += 1
        job = Job(self.lake, None, f"r{self._fits}", as_of, "purchase", 4.0)
        users: list[list[str]] = [[] for _ in range(self.lake.buckets)]
        for user in self.shop.ids:
            users[user_bucket(user, self.lake.buckets)].append(user)
        return tuple(write_shard(job, i, ids).path for i, ids in enumerate(users))

    def fit(self, as_of: datetime, impressions: pl.DataFrame | None = None) -> Artifact:
        """As the train stage does: a fit that stops at the cut calibrates the one on everything."""
        end, shards = cutoff_day(as_of), self.shards(as_of)
        name = ""
        if impressions is not None:
            name = f"shown{self._fits}"
            self.lake.write_table(name, impressions)
        calibrations, way = None, ""
        for day in (end - self.config.horizon_days, end):
            job = LoopJob(
                self.lake, shards, "", "", self.config, "purchase", as_of.isoformat(), day, False,
                True, calibrations, impressions=name if day == end else "", way=way,
            )  # fmt: skip
            problem = load_problem(job, Workers())
            parts = train(problem, torch.device("cpu"), Silent(), way)  # type: ignore[arg-type]
            way = parts.way
            calibrations = job.calibrations or calibrate(problem, parts)
            artifact = build(problem, job, parts, calibrations)
        return taught_by_mails(problem, job, artifact, Silent()) if name else artifact  # type: ignore[arg-type]

    def histories(self, as_of: datetime) -> Histories:
        """Of all shoppers in their order."""
        shards = self.shards(as_of)
        whole = join([read_shard(self.lake, path) for path in shards])
        users = [u for i in range(self.lake.buckets) for u in self.shop.ids
                 if user_bucket(u, self.lake.buckets) == i]  # fmt: skip
        place = {user: i for i, user in enumerate(users)}
        parts = [whole.take(place[u], place[u] + 1) for u in self.shop.ids]
        return join(parts)

    def policy(self, model: Artifact, past: Histories, as_of: datetime) -> list[list[str]]:
        """What a model shows to each shopper."""
        slates = Scorer(model, self.catalogue, "v").score(past, as_of, PICKS)
        rows = self.catalogue.index.rows(slates.items.ravel()).reshape(slates.items.shape)
        return [[str(self.catalogue.item_ids[i]) for i in row if i >= 0] for row in rows]


def mailed(shown: dict[str, list[str]], followed: set[str], at: datetime) -> pl.DataFrame:
    """The ledger's rows of a campaign, ten mails a second."""
    rows = [("loop", u, u, items, at + i * timedelta(seconds=0.1), u in followed)
            for i, (u, items) in enumerate(sorted(shown.items()))]  # fmt: skip
    return pl.DataFrame(rows, schema=MAILED, orient="row")


def touched(
    done: Sequence[Deed], shown: dict[str, list[str]], at: datetime
) -> list[dict[str, Any]]:
    """Clicks of people an hour after the mail, those of scanners at once, and what was bought."""
    out = []
    for number, deed in enumerate(done):
        own = {"user_id": deed.user_id, "delivery_id": deed.user_id, "campaign_id": "loop"}

        def click(slot: int, when: datetime, own: dict[str, str] = own) -> dict[str, Any]:
            seen = f'{{"user_agent": "{BROWSER.format(1)}", "method": "GET"}}'
            return own | {"event_id": f"c{when:%d%H%M%S%f}-{own['user_id']}-{slot}",
                          "type": "click", "slot": slot,
                          "timestamp": when, "attributes": seen}  # fmt: skip

        when = at + timedelta(hours=1, seconds=20 * number)
        if deed.bot:
            places = [*range(len(shown[deed.user_id])), TRAP_SLOT]
            out += [click(slot, when - timedelta(minutes=30)) for slot in places]
        out += [click(slot, when) for slot in deed.clicks]
        out += [
            {"event_id": f"mail-{deed.user_id}-{item}", "user_id": deed.user_id,
             "type": "purchase", "timestamp": when + timedelta(minutes=5), "item_id": item,
             "value": 9.0}
            for item in deed.bought
        ]  # fmt: skip
    return out


def shown_before(loop: Offline, mails: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """What training is told of the mails at a time."""
    none = pl.DataFrame(schema=DRAWN)
    return impressions_of(mails, loop.lake.events(before=now), none, now)


@dataclass(frozen=True)
class Week:
    """What there is to learn from when a week of mails is over; `value` [n] of the first model."""

    first: Artifact
    mails: pl.DataFrame
    past: Histories
    value: world.Floats


def a_week(loop: Offline, habits: Habits) -> Week:
    """A first model of before the new items; a campaign of it and of an editor; what came of it.

    The week's purchases come in with it.
    """
    shop, week_ago = loop.shop, NOW - WEEK
    since = week_ago - timedelta(days=world.HISTORY_DAYS)
    loop.happened(shop.purchases(6, since, week_ago, world.ITEMS - world.NEW, 1))
    first = loop.fit((week_ago + timedelta(days=1)).replace(hour=0))
    picked = loop.policy(first, loop.histories(NOW), NOW)
    rng = np.random.default_rng((shop.seed, 5))
    personal, follow = rng.random(shop.n) < 0.7, rng.random(shop.n) < 0.8
    shown = {
        user: slate if own else shop.items[:PICKS]
        for user, slate, own in zip(shop.ids, picked, personal, strict=True)
    }
    followed = {user for user, yes in zip(shop.ids, follow, strict=True) if yes}
    loop.happened(touched(deeds(shop, habits, shown, followed), shown, NOW))
    loop.happened(shop.purchases(2, week_ago, NOW, world.ITEMS, 2))
    past = loop.histories(EVENING)
    value = shop.value(loop.policy(first, past, EVENING))
    return Week(first, mailed(shown, followed, NOW), past, value)
