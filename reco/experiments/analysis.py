"""A finished experiment read: rows of (unit, arm, metrics) in, estimates and comparisons out.

Rows of one unit (the mails of a subscriber) are added up first, and the metric is then a ratio a
row whose variance respects the unit. The report of a campaign and plain files both pass here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import polars as pl

from reco.errors import InputError
from reco.experiments.statistics import (
    LEVEL,
    Comparison,
    Floats,
    Interval,
    Sample,
    SampleRatio,
    adjust,
    compare,
    detectable,
    false_discovery,
    linearise,
    sample_ratio,
    sample_size,
    winsorise,
)

Kind = Literal["share", "number", "money"]
LIFT: Final = 0.1  # for which the needed size is stated
FEW_UNITS: Final = 100  # in an arm; below it the intervals are shown with a warning


@dataclass(frozen=True, slots=True)
class Metric:
    """A column and how it is read. The first metric of an analysis is the primary one."""

    column: str
    label: str
    kind: Kind = "number"
    winsorised: bool = False  # cut at P99.5 of the values that are not 0, one cap for all arms
    covariate: str | None = None  # column from before the start that narrows the interval (CUPED)


@dataclass(frozen=True, slots=True)
class ArmEstimate:
    """A metric in one arm."""

    arm: str
    units: int
    estimate: Interval


@dataclass(frozen=True, slots=True)
class ArmComparison:
    """A metric of one arm against the control; `q_value` is p after adjustment."""

    arm: str
    comparison: Comparison
    q_value: float | None


@dataclass(frozen=True, slots=True)
class Size:
    """What the sizes of the arms can show with 80 % power: lifts over the control."""

    lift: float  # the smallest that these arms show
    needed: int  # units an arm that show a lift of LIFT


@dataclass(frozen=True, slots=True)
class Result:
    """One metric: every arm, then every arm but the control against it."""

    metric: Metric
    arms: tuple[ArmEstimate, ...]
    comparisons: tuple[ArmComparison, ...]
    size: Size | None = None  # None where the control has nothing to lift


@dataclass(frozen=True, slots=True)
class Analysis:
    """All metrics of an experiment. A broken split leaves no comparison."""

    control: str
    units: dict[str, int]
    sample_ratio: SampleRatio | None  # None: no weights were given
    results: tuple[Result, ...]
    level: float = LEVEL

    def without_comparisons(self) -> "Analysis":
        """The arms alone, for an experiment whose comparisons cannot be believed."""
        return replace(self, results=tuple(replace(r, comparisons=()) for r in self.results))


def analyse(
    frame: pl.DataFrame,
    metrics: Sequence[Metric] | None = None,
    *,
    unit: str = "unit",
    arm: str = "arm",
    control: str | None = None,
    weights: Mapping[str, float] | None = None,
) -> Analysis:
    """Estimates of every metric by arm, compared with `control` (default: "control", or the first).

    A null in a metric is a row without a label and is left out of that metric alone.
    Without `metrics`, every numeric or boolean column is one.
    Raises InputError when a column is missing, no metric is left, or a unit is in two arms.
    """
    _check_columns(frame, [unit, arm])
    frame = frame.with_columns(pl.col(arm).cast(pl.String)).drop_nulls([unit, arm])
    counts = _units(frame, unit, arm)
    metrics = list(metrics) if metrics else detect(frame, unit, arm)
    _check_columns(frame, [m.column for m in metrics])
    control = control or ("control" if "control" in counts else next(iter(counts)))
    if control not in counts:
        raise InputError(
            f"There is no arm {control!r}.",
            f"The arms are {', '.join(counts)}.",
            "Name one of them.",
        )
    ordered = [control, *(name for name in counts if name != control)]
    results = tuple(_result(frame, metric, unit, arm, ordered) for metric in metrics)
    ratio = sample_ratio(counts, weights) if weights else None
    analysis = Analysis(
        control, {name: counts[name] for name in ordered}, ratio, _with_q_values(results)
    )
    return analysis.without_comparisons() if ratio and ratio.alarm else analysis


def detect(frame: pl.DataFrame, unit: str, arm: str) -> list[Metric]:
    """A metric a numeric or boolean column; one with only 0 and 1 is a share. Raises InputError."""
    found = []
    for name, kind in frame.schema.items():
        if name in (unit, arm) or not (kind.is_numeric() or kind == pl.Boolean):
            continue
        only_bits = kind == pl.Boolean or bool(((frame[name] == 0) | (frame[name] == 1)).all())
        found.append(Metric(name, name.replace("_", " "), "share" if only_bits else "number"))
    if not found:
        raise InputError(
            "There is no metric to analyse.",
            f"No column besides {unit!r} and {arm!r} is numeric: {', '.join(frame.columns)}.",
            "Add a column such as clicked (0 or 1) or revenue.",
        )
    return found


def _units(frame: pl.DataFrame, unit: str, arm: str) -> dict[str, int]:
    """Units of each arm, in the order of the names. Raises InputError."""
    if frame.is_empty():
        raise InputError("The experiment has no rows.", "", "Check the file or the campaign.")
    pairs = frame.select(unit, arm).unique()
    torn = pairs.height - pairs[unit].n_unique()
    if torn:
        raise InputError(
            f"{torn} units are in more than one arm.",
            "Their outcomes belong to neither.",
            "Give each unit one arm, or leave these units out.",
        )
    return dict(pairs.group_by(arm).len().sort(arm).iter_rows())


def _result(frame: pl.DataFrame, metric: Metric, unit: str, arm: str, ordered: list[str]) -> Result:
    samples = _samples(frame, metric, unit, arm, ordered)
    base = samples[ordered[0]]
    return Result(
        metric,
        tuple(ArmEstimate(name, s.n, s.interval()) for name, s in samples.items()),
        tuple(
            ArmComparison(n, compare(s, base), None) for n, s in samples.items() if n != ordered[0]
        ),
        _size(base, min(sample.n for sample in samples.values())),
    )


def _size(control: Sample, least: int) -> Size | None:
    if least < 2 or not control.mean > 0 or not control.variance > 0:
        return None
    return Size(
        detectable(control, least) / control.mean,
        sample_size(control.variance, LIFT * control.mean),
    )


def _samples(
    frame: pl.DataFrame, metric: Metric, unit: str, arm: str, ordered: list[str]
) -> dict[str, Sample]:
    """Per-unit values of each arm, cut and adjusted as the metric says."""
    extra = [pl.col(metric.covariate).first().cast(pl.Float64)] if metric.covariate else []
    by_unit = (
        frame.drop_nulls(metric.column)
        .group_by(arm, unit, maintain_order=True)
        .agg(pl.col(metric.column).cast(pl.Float64).sum(), pl.len().alias("rows"), *extra)
    )
    parts = {name: by_unit.filter(pl.col(arm) == name) for name in ordered}
    values: dict[str, Floats] = {n: p[metric.column].to_numpy() for n, p in parts.items()}
    if metric.winsorised:
        values = winsorise(values)
    repeated = bool((by_unit["rows"] > 1).any())
    if repeated:
        rows = {name: part["rows"].to_numpy().astype(np.float64) for name, part in parts.items()}
        values = {name: linearise(v, rows[name]) if len(v) else v for name, v in values.items()}
    if metric.covariate and all(len(v) for v in values.values()):
        values = adjust(values, {n: p[metric.covariate].to_numpy() for n, p in parts.items()})
    share = metric.kind == "share" and not repeated
    return {name: Sample.of(v, share=share) for name, v in values.items()}


def _with_q_values(results: tuple[Result, ...]) -> tuple[Result, ...]:
    """Results with adjusted p: the secondary metrics together; the primary one over its arms."""
    several = len(results[0].comparisons) > 1
    return (_adjusted(results[:1]) if several else results[:1]) + _adjusted(results[1:])


def _adjusted(family: tuple[Result, ...]) -> tuple[Result, ...]:
    q_values = iter(false_discovery([c.comparison.p_value for r in family for c in r.comparisons]))
    return tuple(
        replace(r, comparisons=tuple(replace(c, q_value=next(q_values)) for c in r.comparisons))
        for r in family
    )


def _check_columns(frame: pl.DataFrame, needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise InputError(
            f"The experiment lacks the column {', '.join(missing)}.",
            f"It has {', '.join(frame.columns)}.",
            "Rename a column, or say which one it is.",
        )
