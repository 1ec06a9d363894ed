"""The second gate: what a new model would have earned on the mails of arms that explore.

Takes the log of drawn places (reco.outcomes.explored), the new model and the champion; gives a
verdict in words. The new policy shows its best items in the places of each mail. A log without
such mails, or one that says too little of the new policy, is no obstacle, and the verdict says so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
import polars as pl

from reco.database import open_database
from reco.embedded import Services
from reco.events.lake import Lake
from reco.experiments.off_policy import Policy, evaluate
from reco.experiments.statistics import Floats, Interval, Sample
from reco.features.history import Histories, from_events
from reco.features.profile import profiles_of
from reco.models.scorer import Scorer
from reco.models.slates import Slates
from reco.outcomes.explored import explored
from reco.subscribers.store import SubscriberStore
from reco.tables import item_keys
from train.examples import COLUMNS, subscribers_of

LEAST: Final = 100  # mails; with fewer nothing is tried
NO_LOG: Final = "no off-policy check: {mails} mails of arms that explore have a closed window"

Pasts = Callable[[list[str]], Histories]  # whole histories of subscribers


@dataclass(frozen=True, slots=True)
class PolicyVerdict:
    """Whether the log speaks against the new model, and what it says."""

    passed: bool
    why: str


def judge_policy(
    log: pl.DataFrame, pasts: Pasts, model: Scorer, champion: Scorer | None
) -> PolicyVerdict:
    """Judge `model` by clicks a place, against what the draws earned and against the champion."""
    mails = log.select("campaign_id", "delivery_id").n_unique()
    if mails < LEAST:
        return PolicyVerdict(True, NO_LOG.format(mails=mails))
    log = log.sort("campaign_id", "delivery_id", "place")
    reward, logged = log["reward"].to_numpy(), log["propensity"].to_numpy()
    units = log.select(pl.struct("campaign_id", "delivery_id").rank("dense")).to_series().to_numpy()
    ours = chances(log, pasts, model)
    found = evaluate(reward, logged, Policy(ours), units=units)
    if not found.estimates:
        return PolicyVerdict(True, f"no off-policy number: {found.overlap.warning}")
    best = found.estimates[-1]
    said = (
        f"off-policy on {mails} mails: {_interval(best.value)} clicks a place, "
        f"the draws {found.logged.value:.4f}"
    )
    passed = best.gain.high >= 0  # only a model that surely earns less is refused
    if champion is not None:
        gain = gain_over(chances(log, pasts, champion), ours, reward / logged, units)
        said += f", gain over the champion {_interval(gain)}"
        passed = passed and gain.high >= 0
    return PolicyVerdict(passed, said if passed else f"{said}: it would lose clicks")


def logged_verdict(
    services: Services,
    lake: Lake,
    span: tuple[datetime, datetime],
    model: Scorer,
    champion: Scorer | None,
) -> PolicyVerdict:
    """The verdict on the mails of `span`, from which the model has not learned.

    Their click windows have ended at its end: nothing later is known.
    """
    engine = open_database(services.database_url)
    try:
        log = explored(engine, lake, *span)
        store = SubscriberStore(engine)
        return judge_policy(log, lambda users: pasts_of(lake, store, users), model, champion)
    finally:
        engine.dispose()


def pasts_of(lake: Lake, store: SubscriberStore, users: list[str]) -> Histories:
    """Whole histories of these subscribers."""
    events = lake.events(columns=COLUMNS).filter(pl.col("user_id").is_in(users)).collect()
    tokens, flags = profiles_of(subscribers_of(store, users))
    return from_events(events, users, tokens, flags)


def chances(log: pl.DataFrame, pasts: Pasts, scorer: Scorer) -> Floats:
    """Propensity [n] of each logged place under a model that shows its best in any order."""
    numbered = log.with_row_index("row").with_columns(
        pl.len().over("campaign_id", "delivery_id").alias("k"),
        pl.col("sent_at").dt.date().alias("day"),
    )
    out = np.zeros(len(log))
    for (day, k), part in numbered.group_by("day", "k"):
        when = datetime.combine(day, datetime.min.time(), UTC)
        users = part["delivery_id"].unique(maintain_order=True).to_list()
        slates = scorer.score(pasts(users), when, int(k))
        out[part["row"].to_numpy()] = _in_slates(part, users, slates) / int(k)
    return out


def _in_slates(part: pl.DataFrame, users: list[str], slates: Slates) -> Floats:
    """1 where the logged item is in its user's slate."""
    place = {user: i for i, user in enumerate(users)}
    rows = np.array([place[user] for user in part["delivery_id"]])
    items = item_keys(part["item_id"].to_list())
    there: Floats = (slates.items[rows] == items[:, None]).any(axis=1).astype(np.float64)
    return there


def gain_over(old: Floats, new: Floats, earned: Floats, units: np.ndarray) -> Interval:
    """New less old, in reward a place: one value a mail, so that both lean on the same clicks."""
    size = np.bincount(units)[1:]
    by_mail = np.bincount(units, (new - old) * earned)[1:]
    return Sample.of(by_mail / size.mean()).interval()


def _interval(found: Interval) -> str:
    return f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})"
