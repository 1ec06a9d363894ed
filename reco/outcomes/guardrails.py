"""Harm that a campaign does, watched while it runs: unsubscriptions, complaints, bounces.

Takes counts of each arm, gives limits that hold however often one looks, so that looking every few
seconds pauses a harmless campaign in at most 1 of 20.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from reco.experiments.sequential import always_above, always_valid
from reco.experiments.statistics import Interval, Sample

FALSE_PAUSES: Final = 0.05  # of harmless campaigns, over all guardrails and all looks
LEAST_EVENTS: Final = 10  # in the arms that are compared; below, the limits are not to be trusted
EARLY: Final = 0.1  # of the audience: there the limits are tightest, to stop before it is too late
CEILING: Final = "ceiling"


@dataclass(frozen=True, slots=True)
class Harm:
    """What the mails of one arm did; `mails` were handed over, bounced ones included."""

    mails: int
    unsubscribe: int = 0
    complaint: int = 0
    bounce: int = 0


@dataclass(frozen=True, slots=True)
class Guardrail:
    """One rate of one arm against the control arm, or of all arms against its ceiling.

    `excess` is the rate less that of the other side, with limits that hold at all looks at once.
    """

    name: str
    arm: str
    against: str  # an arm, or CEILING
    rate: float
    excess: Interval
    harmful: bool

    @property
    def text(self) -> str:
        """What is wrong, for the note of a paused campaign."""
        other = "its ceiling" if self.against == CEILING else f"that of {self.against}"
        return (
            f"The {self.name} rate of {self.arm}, {100 * self.rate:.2f} %, is surely above {other} "
            f"(by at least {100 * self.excess.low:.2f} points)."
        )


def guard(
    arms: Mapping[str, Harm], control: str, ceilings: Mapping[str, float], audience: int
) -> tuple[Guardrail, ...]:
    """All guardrails of a campaign with an audience of `audience`."""
    planned = max(round(EARLY * audience), 1)
    others = [arm for arm in arms if arm != control]
    tests = len(ceilings) * (1 + len(others))
    level = 1 - FALSE_PAUSES / tests
    found = []
    for name, ceiling in ceilings.items():
        everybody = _sample(arms.values(), name)
        excess = always_above(everybody, ceiling, planned, level)
        found.append(_guardrail(name, "all arms", CEILING, everybody, excess, [everybody]))
        if control not in arms:
            continue
        base = _sample([arms[control]], name)
        for arm in others:
            own = _sample([arms[arm]], name)
            # One side only: each side of the sequence may take twice the error.
            excess = always_valid(own, base, planned, 1 - 2 * (1 - level))
            found.append(_guardrail(name, arm, control, own, excess, [own, base]))
    return tuple(found)


def harm_of(deliveries: pl.DataFrame, events: pl.DataFrame) -> dict[str, Harm]:
    """Harm of each arm: mails of the ledger (user_id, arm, state) and what came of them.

    events: type and delivery_id of unsubscribe, complaint and bounce events of this campaign. A
    mail that the relay refused for good is a bounce too.
    """
    handed = deliveries.filter(pl.col("state").is_in(["accepted", "failed"]))
    kinds = ("unsubscribe", "complaint", "bounce")
    flags = [
        pl.col("user_id")
        .is_in(events.filter(pl.col("type") == k)["delivery_id"].to_list())
        .alias(k)
        for k in kinds
    ]
    rows = (
        handed.with_columns(flags)
        .with_columns(pl.col("bounce") | (pl.col("state") == "failed"))
        .group_by("arm")
        .agg(pl.len().alias("mails"), pl.col(kinds).sum())
        .sort("arm")
    )
    return {row["arm"]: Harm(row["mails"], *(row[k] for k in kinds)) for row in rows.to_dicts()}


def _sample(parts: Collection[Harm], name: str) -> Sample:
    n = sum(part.mails for part in parts)
    mean = sum(getattr(part, name) for part in parts) / n if n else 0.0
    return Sample(n, mean, mean * (1 - mean) * n / max(n - 1, 1))


def _guardrail(
    name: str, arm: str, against: str, own: Sample, excess: Interval, samples: Sequence[Sample]
) -> Guardrail:
    events = sum(sample.mean * sample.n for sample in samples)
    harmful = events >= LEAST_EVENTS and excess.low > 0
    return Guardrail(name, arm, against, own.mean, excess, harmful)
