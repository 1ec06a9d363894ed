"""The report as one HTML page: numbers become words here, and the template only places them."""

import math
from collections.abc import Callable, Mapping
from functools import partial

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reco.experiments.statistics import Interval
from reco.outcomes import plots
from reco.outcomes.results import Report
from reco.outcomes.wording import (
    amount,
    gap,
    gap_limits,
    lift,
    limits,
    milliseconds,
    number,
    p_value,
    share,
)


def page(report: Report) -> str:
    """Self-contained HTML of a report."""
    environment = Environment(
        loader=PackageLoader("reco.outcomes", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"ms": milliseconds, "share": share, "number": number, "p": p_value}
    show = partial(amount, currency=report.currency)
    environment.globals |= {
        "amount": show,
        "limits": partial(limits, currency=report.currency),
        "gap": partial(gap, currency=report.currency),
        "lift": lift,
    }
    return environment.get_template("report.html.jinja").render(
        report=report, headlines=headlines(report), drawn=_drawn(report)
    )


def headlines(report: Report) -> list[str]:
    """What the primary metric says, of each arm against the control where they may be compared."""
    analysis = report.analysis
    if analysis is None:
        return ["No mail was accepted, so there is nothing to compare."]
    first = analysis.results[0]
    values = {
        a.arm: amount(a.estimate.value, first.metric.kind, report.currency) for a in first.arms
    }
    label = first.metric.label[:1].upper() + first.metric.label[1:]
    if not first.comparisons:
        return [f"{label}: {', '.join(f'{value} in {arm}' for arm, value in values.items())}."]
    against = f"against {values[analysis.control]} in {analysis.control}"
    return [
        f"{label}: {values[c.arm]} in {c.arm}, {against}. "
        f"{_verdict(c.comparison.difference, first.metric.kind, report.currency)}"
        for c in first.comparisons
    ]


def _verdict(difference: Interval, kind: str, currency: str) -> str:
    if not math.isfinite(difference.low):
        return "There are too few units to say more."
    chance = "may be chance" if difference.low <= 0 <= difference.high else "is more than chance"
    size, around = gap(difference.value, kind, currency), gap_limits(difference, kind, currency)
    return f"The difference of {size} ({around}) {chance}."


def _drawn(report: Report) -> Mapping[str, Markup | list[Markup]]:
    """Every plot of the page."""
    drawn: dict[str, Markup | list[Markup]] = {}
    if report.analysis:
        drawn["results"] = [
            Markup(plots.intervals(r.arms, _shower(r.metric.kind, report.currency)))
            for r in report.analysis.results
        ]
    if report.delivery and report.delivery.exposures:
        by_arm = report.delivery.exposures[1:]
        drawn["curve"] = Markup(plots.curve(by_arm))
        drawn["rungs"] = Markup(plots.rungs(by_arm))
    if report.delivery and report.delivery.latencies:
        drawn["latency"] = Markup(plots.latency(report.delivery.latencies))
    return drawn


def _shower(kind: str, currency: str) -> Callable[[float], str]:
    return lambda value: amount(value, kind, currency)
