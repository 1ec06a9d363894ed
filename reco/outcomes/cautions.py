"""What a reader must know before believing a number of a report, gravest first."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from reco.experiments.analysis import FEW_UNITS, LIFT, Analysis, Result
from reco.experiments.assignment import HOLDOUT, OUTSIDE
from reco.outcomes.delivery import Delivery
from reco.outcomes.labels import CLICK_WINDOW
from reco.outcomes.results import Report

LEAST: Final = timedelta(days=14)  # of an experiment: two of every weekday


def cautions_of(report: Report, now: datetime) -> tuple[str, ...]:
    """Everything that weakens the numbers of this report, as of `now`."""
    found = list(_of_the_split(report))
    if report.delivery:
        found += _of_time(report.delivery, report.replay, now)
        found += _of_the_audience(report.delivery)
    if report.analysis:
        found += _of_size(report.analysis, stated=not report.replay)
    return tuple(found)


def _of_the_split(report: Report) -> Iterator[str]:
    if report.blocked:
        yield (
            "The arms do not have the sizes that their weights promise (p < 0.001). Something "
            "lost or added subscribers on one side, so no comparison is shown."
        )
    if report.replay:
        yield (
            "This is a replay. Purchases are matched after the fact; no mail was really read. The "
            "numbers say how well each arm foresaw what households bought anyway, not what mail "
            "makes them buy."
        )


def _of_time(delivery: Delivery, replay: bool, now: datetime) -> Iterator[str]:
    window = delivery.window
    if not replay and window.closes and now < window.closes:
        clicks = window.closes - timedelta(days=window.days) + CLICK_WINDOW
        yield (
            f"The windows are still open: that of clicks until {_minute(clicks)}, that of "
            f"purchases until {_minute(window.closes)}. Until then every number is too low."
        )
    elif not window.complete:
        yield (
            f"The window of {window.days} days has not been seen whole: purchases are "
            f"known until {_day(window.observed_until)}. All arms are cut alike."
        )
    if not replay and window.first and now - window.first < LEAST:
        yield (
            f"The experiment began at {_minute(window.first)} and runs for at least {LEAST.days} "
            f"days, until {_day(window.first + LEAST)}. Its intervals and p hold for one look at "
            "the end; before that only the guardrails may stop it."
        )


def _of_the_audience(delivery: Delivery) -> Iterator[str]:
    if delivery.ledger.open:
        yield f"{delivery.ledger.open} recipients are still under way; the campaign has not ended."
    kept = {arm: sum(delivery.ledger.by_arm.get(arm, {}).values()) for arm in (HOLDOUT, OUTSIDE)}
    if sum(kept.values()):
        yield (
            f"{kept[HOLDOUT]} recipients of the holdout and {kept[OUTSIDE]} outside the experiment "
            "got the editorial slate and are in no comparison."
        )


def _of_size(analysis: Analysis, stated: bool) -> Iterator[str]:
    if min(analysis.units.values()) < FEW_UNITS:
        yield (f"An arm has fewer than {FEW_UNITS} units; the intervals of money are rough there.")
    if len(analysis.units) < 2:
        yield "There is only one arm, so there is nothing to compare it with."
    elif stated and (said := size_of(analysis.results[0])):
        yield said


def size_of(result: Result) -> str:
    """The sample size that the first metric needs, and what these arms can show; "" if unknown."""
    size = result.size
    if size is None:
        return ""
    return (
        f"{result.metric.label}: these arms show a lift of {100 * size.lift:.0f} % or more with "
        f"80 % power; a lift of {100 * LIFT:.0f} % needs {size.needed:,} units an arm."
    )


def _day(when: datetime | None) -> str:
    return when.strftime("%Y-%m-%d") if when else "never"


def _minute(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC")
