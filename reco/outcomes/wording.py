"""Numbers as people read them: amounts, differences, lifts, limits, probabilities."""

import math
from typing import Final

from reco.experiments.statistics import Interval

DASH: Final = "–"
MINUS: Final = "−"
SYMBOLS: Final = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥"}


def amount(value: float, kind: str, currency: str) -> str:
    """A value as people read it: 31.2 %, $1.23, 0.456."""
    if not math.isfinite(value):
        return DASH
    sign, size = (MINUS if value < 0 else ""), abs(value)
    if kind == "share":
        return f"{sign}{100 * size:.{_decimals(100 * size)}f} %"
    if kind == "money":
        symbol = SYMBOLS.get(currency)
        digits = f"{size:,.2f}"
        return f"{sign}{symbol}{digits}" if symbol else f"{sign}{digits} {currency}".rstrip()
    return f"{sign}{size:,.{_decimals(size) + 1}f}"


def gap(value: float, kind: str, currency: str) -> str:
    """A signed difference; of shares in percentage points."""
    text = amount(value, kind, currency)
    if kind == "share":
        text = text.replace(" %", " pp")
    return f"+{text}" if value > 0 else text


def gap_limits(interval: Interval, kind: str, currency: str) -> str:
    """Limits of a difference: "+20.0 pp to +26.2 pp"."""
    if not math.isfinite(interval.low):
        return DASH
    return f"{gap(interval.low, kind, currency)} to {gap(interval.high, kind, currency)}"


def limits(interval: Interval, kind: str, currency: str, *, signed: bool = False) -> str:
    """Limits of an estimate, or of a difference when `signed`."""
    if signed:
        return gap_limits(interval, kind, currency)
    if not math.isfinite(interval.low):
        return DASH
    return f"{amount(interval.low, kind, currency)} to {amount(interval.high, kind, currency)}"


def lift(value: float) -> str:
    """A relative difference: +285 %, or times when it is beyond reading as a percentage."""
    if not math.isfinite(value):
        return DASH
    if value >= 9:
        return f"{value + 1:.1f}×"
    sign = "+" if value > 0 else MINUS if value < 0 else ""
    return f"{sign}{abs(value):.0%}".replace("%", " %") if abs(value) >= 0.1 else (
        f"{sign}{100 * abs(value):.1f} %"
    )  # fmt: skip


def share(value: float, decimals: int = 1) -> str:
    """A part of a whole: 31.2 %."""
    return DASH if not math.isfinite(value) else f"{100 * value:.{decimals}f} %"


def number(value: float) -> str:
    """A count with its thousands apart."""
    return f"{value:,}"


def p_value(value: float | None) -> str:
    """A probability that never pretends to be 0."""
    if value is None or not math.isfinite(value):
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _decimals(size: float) -> int:
    return 1 if size >= 1 or size == 0 else 2
