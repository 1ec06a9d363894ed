"""The whole list judged before a send: invalid addresses are suppressed, the rest is reported."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from reco.errors import ServiceUnavailable
from reco.subscribers.mail_domains import NO_DOMAIN
from reco.subscribers.store import SubscriberStore
from reco.subscribers.suppression import SuppressionList, SuppressionReason
from reco.subscribers.validation import Checked, Status, Validator

PAGE: Final = 10_000
DOUBTED: Final = 0.5  # share of addresses without a domain that no list has, but a broken DNS
DOUBTED_FROM: Final = 20  # addresses; of fewer nothing can be said


@dataclass(frozen=True, slots=True)
class ValidationSummary:
    """What the list is like. unknown: DNS did not answer, nothing was decided."""

    addresses: int
    valid: int
    invalid: int
    unknown: int
    suppressed: int  # new on the suppression list
    role: int
    disposable: int
    probably_misspelt: int
    reasons: dict[str, int]
    out: Path | None = None


def validate(
    store: SubscriberStore,
    suppressions: SuppressionList,
    validator: Validator,
    *,
    suppress: bool = True,
    out: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> ValidationSummary:
    """Judge every subscriber's address; `out` gets one row each (CSV or Parquet).

    Raises ServiceUnavailable when the store is gone, or when DNS knows hardly any domain.
    """
    return asyncio.run(_validate(store, suppressions, validator, suppress, out, progress))


async def _validate(
    store: SubscriberStore,
    suppressions: SuppressionList,
    validator: Validator,
    suppress: bool,
    out: Path | None,
    progress: Callable[[str, int, int], None] | None,
) -> ValidationSummary:
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    frames, total, after = [], store.count(), ""
    while page := store.ids(after, PAGE):
        after = page[-1]
        people = [p for p in store.get(page) if p is not None and p.email]
        checked = await validator.check_many([p.email or "" for p in people])
        _count(checked, counts, reasons)
        invalid = [c.normalised or c.address for c in checked if c.status is Status.INVALID]
        if suppress:
            _doubt(checked)
            counts["suppressed"] += suppressions.add(
                invalid, SuppressionReason.INVALID, "validation"
            )
        if out is not None:
            frames.append(_frame([p.user_id for p in people], checked))
        if progress is not None:
            progress("validate", counts["addresses"], total)
    if out is not None:
        _write(pl.concat(frames) if frames else _frame([], []), out)
    return ValidationSummary(
        addresses=counts["addresses"],
        valid=counts[Status.VALID],
        invalid=counts[Status.INVALID],
        unknown=counts[Status.UNKNOWN],
        suppressed=counts["suppressed"],
        role=counts["role"],
        disposable=counts["disposable"],
        probably_misspelt=counts["misspelt"],
        reasons=dict(reasons.most_common()),
        out=out,
    )


def _doubt(checked: list[Checked]) -> None:
    """Raise rather than suppress a whole list for what is the matter with our own DNS."""
    missing = sum(c.why == NO_DOMAIN for c in checked)
    if len(checked) >= DOUBTED_FROM and missing > DOUBTED * len(checked):
        raise ServiceUnavailable(
            f"DNS knows no domain of {missing:,} of {len(checked):,} addresses.",
            "No real list is like that: the DNS of this machine seems to be broken.",
            "Nobody of them was suppressed. Name another server by --nameserver, look at syntax "
            "alone by --no-dns, or report without suppressing by --keep.",
        )


def _count(checked: list[Checked], counts: Counter[str], reasons: Counter[str]) -> None:
    counts["addresses"] += len(checked)
    for c in checked:
        counts[c.status] += 1
        counts.update(c.flags)
        counts["misspelt"] += c.suggestion is not None
        if c.status is not Status.VALID:
            reasons[c.why] += 1


def _frame(user_ids: list[str], checked: list[Checked]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": user_ids,
            "status": [c.status.value for c in checked],
            "why": [c.why for c in checked],
            "flags": [" ".join(c.flags) for c in checked],
            "suggestion": [c.suggestion for c in checked],
        },
        schema=dict.fromkeys(("user_id", "status", "why", "flags", "suggestion"), pl.String),
    )


def _write(frame: pl.DataFrame, out: Path) -> None:
    if out.suffix == ".parquet":
        frame.write_parquet(out)
    else:
        frame.write_csv(out)
