"""What the subscribers got to see: coverage, concentration, rungs and reasons of the slots.

Takes the accepted deliveries and the catalogue; no outcome is needed.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from reco.catalogue import Catalogue
from reco.models.slates import Reason, Rung

ALL: Final = "all arms"
CURVE_POINTS: Final = 60  # of the exposure curve; enough for a drawing a page wide


@dataclass(frozen=True, slots=True)
class Exposure:
    """Items shown in one arm. Shares are 0..1."""

    arm: str
    mails: int
    empty: int  # mails without any item, which the fallback ladder promises never to send
    slots: int
    distinct: int
    coverage: float  # distinct items shown / items that could be mailed
    gini: float  # of times shown over all items that could be mailed: 0 even, 1 one item only
    curve: tuple[tuple[int, float], ...]  # (items by times shown, share of the slots they take)
    rungs: dict[str, float]  # share of mails whose lowest pick came from the rung
    reasons: dict[str, float]  # share of slots


def exposures(deliveries: pl.DataFrame, catalogue: Catalogue, arms: list[str]) -> list[Exposure]:
    """Exposure of all accepted mails together, then of each arm."""
    accepted = deliveries.filter(pl.col("state") == "accepted")
    population = mailable(deliveries, catalogue)
    parts = [(ALL, accepted), *((arm, accepted.filter(pl.col("arm") == arm)) for arm in arms)]
    return [_exposure(arm, part, population) for arm, part in parts if part.height]


def mailable(deliveries: pl.DataFrame, catalogue: Catalogue) -> int:
    """Items that could be mailed: those in stock now, and those that were mailed and sold out."""
    shown = deliveries.filter(pl.col("state") == "accepted")["items"].explode().drop_nulls()
    return len(set(catalogue.item_ids[catalogue.in_stock]) | set(shown))


def gini(counts: npt.NDArray[np.int64], population: int) -> float:
    """Gini coefficient of times shown, over a population whose other items were never shown."""
    never = max(population - len(counts), 0)
    ordered = np.concatenate([np.zeros(never), np.sort(counts)])
    n, total = len(ordered), float(ordered.sum())
    if total == 0:
        return 0.0
    return float(2 * (np.arange(1, n + 1) @ ordered) / (n * total) - (n + 1) / n)


def _exposure(arm: str, mails: pl.DataFrame, population: int) -> Exposure:
    counts = (
        mails["items"].explode().drop_nulls().value_counts(sort=True)["count"].to_numpy()
        .astype(np.int64)
    )  # fmt: skip
    return Exposure(
        arm=arm,
        mails=mails.height,
        empty=int((mails["items"].list.drop_nulls().list.len().fill_null(0) == 0).sum()),
        slots=int(counts.sum()),
        distinct=len(counts),
        coverage=len(counts) / population if population else 0.0,
        gini=gini(counts, population),
        curve=_curve(counts),
        rungs=_shares(mails["rung"], {int(r): _words(r.name) for r in Rung}),
        reasons=_shares(mails["reasons"].explode(), {int(r): _words(r.name) for r in Reason}),
    )


def _curve(counts: npt.NDArray[np.int64]) -> tuple[tuple[int, float], ...]:
    """Share of the slots that the most shown items take, at ranks evenly spaced by logarithm."""
    if not len(counts):
        return ()
    ranks = np.unique(np.geomspace(1, len(counts), CURVE_POINTS).round().astype(np.int64))
    taken = np.cumsum(counts) / counts.sum()
    return tuple((int(rank), float(taken[rank - 1])) for rank in ranks)


def _shares(codes: pl.Series, names: dict[int, str]) -> dict[str, float]:
    """Share of each name that occurs, in the order of the codes; nulls are left out."""
    known = codes.drop_nulls()
    counts = dict(known.value_counts().iter_rows())
    return {names[code]: counts[code] / len(known) for code in sorted(counts)}


def _words(name: str) -> str:
    return name.lower().replace("_", " ")
