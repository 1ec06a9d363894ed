"""Copy that learns: Thompson sampling in batches over subject lines, calls to action, blocks.

Takes the outcomes of closed windows, gives the weights of the next batch; assignment draws with
them as with any other weights, and the weight of the drawn arm is its logged propensity.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from reco.errors import ConfigError
from reco.experiments.assignment import arms
from reco.experiments.statistics import Floats, Interval, Sample, linearise

DRAWS: Final = 8_192  # of the posterior; the chance of an arm is then known to about 0.5 points
POOLED_TRIALS: Final = 50.0  # weight that a segment gives to what all segments know of an arm

Weights = dict[str, float]


def closed(outcomes: pl.DataFrame, now: datetime, window: timedelta) -> pl.DataFrame:
    """Trials and successes by segment and arm, from mails whose window is over at `now`.

    outcomes: segment, arm, sent_at, succeeded_at (null: not yet, or never). An open window is not
    a failure, and a success after its window does not count, so that early mails gain nothing.
    """
    in_time = pl.col("succeeded_at") - pl.col("sent_at") <= window
    return (
        outcomes.filter(pl.col("sent_at") + window <= now)
        .group_by("segment", "arm")
        .agg(in_time.fill_null(value=False).sum().alias("successes"), pl.len().alias("trials"))
        .sort("segment", "arm")
    )


def next_weights(
    evidence: pl.DataFrame,
    names: Sequence[str],
    segments: Sequence[str],
    *,
    floor: float = 0.05,
    seed: int = 0,
) -> dict[str, Weights]:
    """Weights of the next batch by segment: the chance that an arm is best, never under the floor.

    evidence: as `closed` gives it; none at all makes all arms equal. Raises ConfigError when the
    floors of all arms leave nothing to choose.
    """
    if not 0 <= floor * len(names) < 1:
        raise ConfigError(
            f"A floor of {floor} for each of {len(names)} arms leaves nothing to choose.",
            "The floors must add up to less than 1.",
            "Lower the floor, or test fewer arms at once.",
        )
    rng = np.random.default_rng(seed)
    overall = _counts(evidence, names)
    own = {s: _counts(evidence.filter(pl.col("segment") == s), names) for s in segments}
    return {s: _weights(overall, own[s], names, floor, rng) for s in segments}


def draw(
    salt: str,
    batch: int,
    user_ids: Sequence[str],
    segments: Sequence[str],
    weights: Mapping[str, Weights],
) -> list[tuple[str, float]]:
    """Arm and propensity of each subscriber of a batch, by the weights of the segment."""
    out: list[tuple[str, float]] = [("", 0.0)] * len(user_ids)
    for segment in dict.fromkeys(segments):
        places = [i for i, own in enumerate(segments) if own == segment]
        chosen = arms(f"{salt}/{batch}", [user_ids[i] for i in places], weights[segment])
        for i, arm in zip(places, chosen, strict=True):
            out[i] = (arm, weights[segment][arm])
    return out


def fair_rates(log: pl.DataFrame) -> dict[str, Interval]:
    """Success rate of each arm, weighted by 1 / propensity; approximate 95 % limits.

    log: arm, propensity, success (0 or 1). The plain mean of a bandit's arm leans towards the
    batches and segments in which it was favoured; this one does not.
    """
    rates = {}
    for arm in sorted(log["arm"].unique()):
        part = log.filter(pl.col("arm") == arm)
        weight = 1 / part["propensity"].to_numpy()
        success = part["success"].cast(pl.Float64).to_numpy()
        rates[arm] = Sample.of(linearise(success * weight, weight)).interval()
    return rates


def _counts(evidence: pl.DataFrame, names: Sequence[str]) -> Floats:
    """[arms, 2]: successes and failures."""
    sums = evidence.group_by("arm").agg(pl.col("successes", "trials").sum())
    known = {arm: (s, t - s) for arm, s, t in sums.select("arm", "successes", "trials").iter_rows()}
    return np.array([known.get(name, (0, 0)) for name in names], np.float64)


def _weights(
    overall: Floats,
    own: Floats,
    names: Sequence[str],
    floor: float,
    rng: np.random.Generator,
) -> Weights:
    """Chance of being best under Beta posteriors whose prior is what the other segments know."""
    if not overall.sum():
        return dict.fromkeys(names, 1 / len(names))
    others = overall - own
    trials = others.sum(axis=1, keepdims=True)
    prior = others * np.minimum(1.0, POOLED_TRIALS / np.maximum(trials, 1.0))
    posterior = 1.0 + prior + own
    best = rng.beta(posterior[:, 0], posterior[:, 1], (DRAWS, len(names))).argmax(axis=1)
    chance = np.bincount(best, minlength=len(names)) / DRAWS
    kept = floor + (1 - floor * len(names)) * chance
    return dict(zip(names, kept.tolist(), strict=True))
