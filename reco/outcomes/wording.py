"""Numbers as people read them: amounts, differences, lifts, limits, probabilities."""

import math
from typing import Final

from reco.experiments.statistics import Interval

DASH: Final = "–"
MINUS: Final = "−"
NBSP: Final = "\u00a0"  # a number and its unit stay on one line
SYMBOLS: Final = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥"}


def amount(value: float, kind: str, currency: str) -> str:
    """A value as people read it: 31.2 %, $1.23, 0.456."""
    if not math.isfinite(value):
        return DASH
    sign, size = (MINUS if value < 0 else ""), abs(value)
    if kind == "share":
        return f"{sign}{100 * size:.{_decimals(100 * size)}f}{NBSP}%"
    if kind == "money":
        symbol = SYMBOLS.get(currency)
        digits = f"{size:,.2f}"
        return f"{sign}{symbol}{digits}" if symbol else f"{sign}{digits}{NBSP}{currency}".rstrip()
    return f"{sign}{size:,.{3 if size < 10 else 1 if size < 1000 else 0}f}"


def gap(value: float, kind: str, currency: str) -> str:
    """A signed difference; of shares in percentage points."""
    text = amount(value, kind, currency)
    if kind == "share":
        text = text.replace(f"{NBSP}%", f"{NBSP}pp")
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
    """A relative difference: +41 %, −4.3 %."""
    if not math.isfinite(value):
        return DASH
    sign = "+" if value > 0 else MINUS if value < 0 else ""
    return f"{sign}{100 * abs(value):,.{0 if abs(value) >= 0.1 else 1}f}{NBSP}%"


def share(value: float, decimals: int = 1) -> str:
    """A part of a whole, 31.2 %, that is never rounded to nothing."""
    if not math.isfinite(value):
        return DASH
    least = 10.0**-decimals
    if 0 < 100 * value < least / 2:
        return f"< {least:.{decimals}f}{NBSP}%"
    return f"{100 * value:.{decimals}f}{NBSP}%"


def number(value: float) -> str:
    """A count with its thousands apart."""
    return f"{value:,}"


def milliseconds(value: float) -> str:
    """A time with three figures, in whole milliseconds from 100 on."""
    return f"{value:,.0f}{NBSP}ms" if value >= 100 else f"{value:.3g}{NBSP}ms"


def p_value(value: float | None) -> str:
    """A probability that never pretends to be 0."""
    if value is None or not math.isfinite(value):
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _decimals(percent: float) -> int:
    return 1 if percent >= 10 else 2
