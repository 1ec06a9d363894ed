"""Shown items as rows for the response heads: written before the fit, read by every worker.

Takes the labels of mails (reco.outcomes.impressions) as known at the fit's cut, gives features as
of the day of each mail, from the same code that serves. Items that the model would not have been
able to show are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from reco.database import open_database
from reco.embedded import Services
from reco.events.lake import Lake
from reco.features.history import Histories
from reco.models.artifact import Artifact
from reco.models.response import RESPONSE_FEATURES, features
from reco.models.scorer import Scorer
from reco.outcomes.impressions import impressions
from reco.tables import item_keys
from train.examples import read_user_keys
from train.problem import CHUNK, Problem, Reference

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
START: Final = datetime(1970, 1, 1, tzinfo=UTC)
DATES: Final = 8  # latest days with mails that are learned from: each takes statistics of its own
CLIP: Final = 10.0  # largest weight of a draw, in average ones


@dataclass(frozen=True, slots=True)
class Rows:
    """r shown items, ascending by mail; NaN where nobody can know.

    x       float32 [r, RESPONSE_FEATURES]
    mail    int64 [r]    rows of one mail share it
    clicked, bought, left  float32 [r]
    trust   float32 [r]  weight of the label `clicked`
    """

    x: Floats
    mail: npt.NDArray[np.int64]
    clicked: Floats
    bought: Floats
    left: Floats
    trust: Floats

    def take(self, keep: npt.NDArray[np.generic]) -> "Rows":
        """Some of the rows, or all in another order."""
        return Rows(*(getattr(self, f.name)[keep] for f in fields(self)))

    @classmethod
    def join(cls, parts: Sequence["Rows"]) -> "Rows":
        """All rows, ascending by mail."""
        whole = cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))
        return whole.take(np.argsort(whole.mail, kind="stable"))


def write_impressions(
    services: Services, lake: Lake, run: str, cuts: Sequence[datetime], days: int
) -> tuple[str, ...]:
    """Files of what was shown before each cut, as known at the cut; "" where that is nothing."""
    engine = open_database(services.database_url)
    try:
        return tuple(
            _written(lake, run, cut, impressions(lake, engine, services.database_url, cut, days))
            for cut in cuts
        )
    finally:
        engine.dispose()


def _written(lake: Lake, run: str, cut: datetime, found: pl.DataFrame) -> str:
    """Name of a table with the rows that have any label; "" without."""
    found = found.filter(pl.col("clicked").is_not_null() | pl.col("left").is_not_null())
    if found.is_empty():
        return ""
    table = f"training/{run}/impressions-until-{cut:%Y%m%dT%H%M%S}"
    lake.write_table(table, found)
    return table


def rows_of(
    problem: Problem, artifact: Artifact, lake: Lake, table: str, shards: Sequence[str]
) -> Rows:
    """Rows of the subscribers of all workers, on every worker; all must call it.

    `shards` are those of this worker.
    """
    shown = lake.read_table(table)
    age = pl.col("accepted_at") - START
    shown = shown.with_columns(
        age.dt.total_days().alias("day"),
        user_key=pl.Series(item_keys(shown["user_id"].to_list()), dtype=pl.UInt64),
        drawn=drawn_weight(shown["propensity"].to_numpy()),
    )
    keys = np.concatenate([read_user_keys(lake, path) for path in shards])
    mine = shown.join(
        pl.DataFrame({"user_key": keys, "owner": np.arange(len(keys))}), on="user_key"
    )
    parts = [nothing()]
    for day in shown["day"].unique().sort().tail(DATES):
        reference = Reference(problem, day)
        parts.append(rows_on(reference, artifact, mine.filter(pl.col("day") == day)))
    return Rows.join(problem.workers.gather(Rows.join(parts)))


def rows_on(reference: Reference, artifact: Artifact, shown: pl.DataFrame) -> Rows:
    """Rows of the mails of one day, by what was known when it began."""
    known = replace(artifact, statistics=reference.statistics, lookalike=reference.lookalike())
    scorer = Scorer(known, reference.problem.catalogue, "")
    owners, parts = shown["owner"].unique().sort().to_numpy(), [nothing()]
    for start in range(0, len(owners), CHUNK):
        some = owners[start : start + CHUNK]
        past = selected(reference.taken, some)
        picks, taste, _ = scorer.candidates(past, START + timedelta(days=reference.day), 1)
        part = shown.filter(pl.col("owner").is_between(some[0], some[-1]))
        user = np.searchsorted(some, part["owner"].to_numpy())
        row = reference.problem.index.rows(item_keys(part["item_id"].to_list()))
        here = (picks.row[user] == row[:, None]) & (row >= 0)[:, None]
        could, at = np.flatnonzero(here.any(axis=1)), here.argmax(axis=1)
        user, at, part = user[could], at[could], part[could]
        slots = np.zeros(picks.row.shape, np.float32)
        slots[user, at] = part["slot"].to_numpy()
        x = features(picks, taste, known.statistics, slots)[user, at]
        parts.append(_labelled(x, part))
    return Rows.join(parts)


def _labelled(x: Floats, shown: pl.DataFrame) -> Rows:
    """Features with the labels of the same rows."""
    clicked, bought, left = (
        shown[name].cast(pl.Float32).fill_null(np.nan).to_numpy()
        for name in ("clicked", "bought", "left")
    )
    trust = (shown["weight"] * shown["drawn"]).cast(pl.Float32).to_numpy()
    return Rows(x, shown["mail"].cast(pl.Int64).to_numpy(), clicked, bought, left, trust)


def nothing() -> Rows:
    """No rows."""
    none = np.zeros(0, np.float32)
    empty = none.reshape(0, len(RESPONSE_FEATURES))
    return Rows(empty, none.astype(np.int64), none, none, none, none)


def drawn_weight(propensity: Doubles) -> Doubles:
    """Inverse propensity weights: rare draws count for all that could have stood there.

    1 on average over the draws, at most CLIP, and 1 for items that were not drawn, of which nobody
    knows the chance.
    """
    drawn = np.isfinite(propensity) & (propensity > 0)
    weight = np.ones(len(propensity))
    if drawn.any():
        inverse = 1 / propensity[drawn]
        weight[drawn] = np.minimum(inverse / inverse.mean(), CLIP)
    return weight


def selected(histories: Histories, who: npt.NDArray[np.int64]) -> Histories:
    """Histories of the subscribers at these ascending positions."""
    counts = np.diff(histories.offsets)[who]
    mask = np.zeros(len(histories), np.bool_)
    mask[who] = True
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    kept = histories.records[mask[histories.owner]]
    return Histories(kept, offsets, histories.tokens[who], histories.flags[who])
