"""The report: a campaign's ledger, the shop's events and the latencies become one page of numbers.

`build` reads a campaign, `read_experiment` any plain file of (unit, arm, metrics); `to_html` and
`to_json` write the same numbers, each defined in docs/METRICS.md.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from reco.catalogue import Catalogue
from reco.errors import InputError
from reco.experiments.analysis import Analysis, Metric, analyse
from reco.experiments.assignment import HOLDOUT, OUTSIDE
from reco.experiments.statistics import sample_ratio
from reco.outcomes.bands import Bands, alerts_of
from reco.outcomes.calibration import calibration
from reco.outcomes.cautions import cautions_of
from reco.outcomes.delivery import Delivery, bought_of, latencies_of, ledger_of, window_of
from reco.outcomes.exposure import exposures, mailable
from reco.outcomes.page import page
from reco.outcomes.purchases import RECIPIENT, match, observed_until
from reco.outcomes.reactions import Reactions
from reco.outcomes.responses import reasons_of
from reco.outcomes.results import Report

CLICKED: Final = Metric(
    "clicked", "Mails with a click of a person on a recommended item (CTR)", "share"
)
CLICKED_RAW: Final = Metric("clicked_raw", "The same with the clicks of programs", "share")
METRICS: Final = (
    Metric("any_bought", "Mails with at least one recommended item bought", "share"),
    Metric("bought", "Recommended items bought per mail"),
    Metric("revenue", "Revenue of bought recommendations per mail (RPE)", "money"),
    Metric("revenue_cut", "RPE, winsorised at P99.5", "money", winsorised=True),
    Metric(
        "household_revenue",
        "All purchases of the household, adjusted by those before (CUPED)",
        "money",
        covariate="revenue_before",
    ),
)


def build(
    campaign: Mapping[str, Any],
    deliveries: pl.DataFrame,
    purchases: pl.LazyFrame,
    latencies: pl.DataFrame | None,
    catalogue: Catalogue,
    *,
    horizon_days: int = 28,
    replay: bool,
    reactions: Reactions | None = None,
    bands: Bands | None = None,
    now: datetime | None = None,
) -> Report:
    """Report of a campaign (a row of database.CAMPAIGNS with its config) from its ledger rows.

    deliveries: as Ledger.rows gives them: user_id, arm, state, items, reasons, rung, size_bytes,
    accepted_at.
    latencies: as serve.latency writes them. reactions: what readers did, where it is known.
    In a replay the window opens at the config's as_of, else where each mail was accepted. Raises
    InputError when a replay has no as_of.
    """
    config: Mapping[str, Any] = campaign.get("config") or {}
    arms = list(config.get("arms") or [])
    weights = {str(arm["name"]): float(arm.get("weight", 1)) for arm in arms}
    start = _start(config, replay)
    compared = deliveries.filter(~pl.col("arm").is_in([HOLDOUT, OUTSIDE]))
    outcomes = match(compared, purchases, start, horizon_days)
    users = compared.select(RECIPIENT, "arm").unique()
    assigned = dict(users.group_by("arm").len().iter_rows())
    weights = weights or dict.fromkeys(sorted(assigned), 1.0)
    control = _control(arms, sorted(weights))
    reactions, bands = reactions or Reactions.nothing(), bands or Bands()
    analysis = _analysis(reactions.added_to(outcomes), control, weights)
    ordered = list(analysis.units) if analysis else []
    delivery = Delivery(
        window=window_of(start, horizon_days, deliveries, observed_until(purchases)),
        ledger=ledger_of(deliveries),
        assigned_ratio=sample_ratio(assigned, weights),
        bought=bought_of(outcomes, ordered),
        exposures=tuple(exposures(deliveries, catalogue, ordered)),
        mailable=mailable(deliveries, catalogue),
        latencies=latencies_of(latencies),
        editorial=tuple(str(a["name"]) for a in arms if a.get("slate") == "editorial"),
        calibration=calibration(deliveries, purchases, start, horizon_days),
        responses=reactions.responses(deliveries, ordered),
        programs=reasons_of(reactions.touches),
        guardrails=reactions.guardrails(deliveries, control, bands),
    )
    currency = str(config.get("currency") or _currency(catalogue))
    title = str(campaign["campaign_id"])
    alerts = alerts_of(delivery, bands)
    found = Report(title, replay, currency, analysis, delivery, (), alerts)
    return _finished(found, now or datetime.now(UTC))


def read_experiment(
    path: Path,
    *,
    unit: str = "unit",
    arm: str = "arm",
    control: str | None = None,
    weights: Mapping[str, float] | None = None,
    metrics: Sequence[Metric] | None = None,
) -> Report:
    """Report of a finished experiment in a CSV or Parquet file, a row a unit or an observation.

    Raises InputError when the file cannot be read or lacks a column.
    """
    try:
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"{path} cannot be read as an experiment.",
            str(error).splitlines()[0],
            "Give a CSV or Parquet file with the columns unit, arm and one or more metrics.",
        ) from error
    analysis = analyse(frame, metrics, unit=unit, arm=arm, control=control, weights=weights)
    return _finished(Report(path.stem, False, "", analysis, None, ()), datetime.now(UTC))


def read_weights(text: str | None) -> dict[str, float] | None:
    """Weights of the arms written as a=1,b=4. Raises InputError."""
    if text is None:
        return None
    try:
        pairs = [part.split("=") for part in text.split(",")]
        return {arm.strip(): float(weight) for arm, weight in pairs}
    except ValueError as error:
        raise InputError(
            f"{text!r} does not give weights to arms.", str(error), "Write control=1,personal=4."
        ) from error


def to_html(report: Report) -> str:
    """One self-contained page: no script, no font, no image from elsewhere."""
    return page(report)


def to_json(report: Report) -> str:
    """The report as JSON; numbers that do not exist are null."""
    plain = dataclasses.asdict(report) | {"blocked": report.blocked}
    return json.dumps(_known(plain), indent=2, ensure_ascii=False, default=datetime.isoformat)


def _analysis(
    outcomes: pl.DataFrame, control: str, weights: Mapping[str, float]
) -> Analysis | None:
    """Comparison with the control arm, or with the first one where the control got no mail."""
    if outcomes.is_empty():
        return None
    present = set(outcomes["arm"])
    reference = control if control in present else sorted(present)[0]
    frame = outcomes.with_columns(pl.col("revenue").alias("revenue_cut"))
    clicks = (CLICKED, CLICKED_RAW) if "clicked" in frame.columns else ()
    metrics = (*METRICS, *clicks)
    return analyse(frame, metrics, unit="user_id", control=reference, weights=weights)


def _finished(report: Report, now: datetime) -> Report:
    """The report with its cautions, and without comparisons where the split is broken."""
    analysis = report.analysis
    if analysis and report.blocked:
        analysis = analysis.without_comparisons()
    return dataclasses.replace(report, analysis=analysis, cautions=cautions_of(report, now))


def _start(config: Mapping[str, Any], replay: bool) -> datetime | None:
    as_of = config.get("as_of")
    if not replay:
        return None
    if as_of is None:
        raise InputError(
            "A replay has no as_of.",
            "Nothing says where its window opens.",
            "Set as_of in its config.",
        )
    start = as_of if isinstance(as_of, datetime) else datetime.fromisoformat(str(as_of))
    return start if start.tzinfo else start.replace(tzinfo=UTC)


def _control(arms: Sequence[Mapping[str, Any]], names: list[str]) -> str:
    """The arm with the editorial slate, else the one named control, else the first."""
    editorial = [str(arm["name"]) for arm in arms if arm.get("slate") == "editorial"]
    return [*editorial, *(n for n in names if n == "control"), *names, ""][0]


def _currency(catalogue: Catalogue) -> str:
    known = catalogue.frame["currency"].drop_nulls()
    return str(known.mode().sort()[0]) if len(known) else ""


def _known(value: Any) -> Any:
    """The same structure with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _known(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_known(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
