"""Prices and dates as the reader's language writes them (Unicode CLDR, by Babel)."""

from datetime import date, datetime
from functools import lru_cache
from typing import Final

from babel import Locale, UnknownLocaleError
from babel.dates import format_date as cldr_date
from babel.numbers import format_currency

FALLBACK_LOCALE: Final = "en_US"


@lru_cache(maxsize=1024)
def known_locale(name: str) -> Locale:
    """The CLDR locale of "de", "pt-BR" or "en_US"; English where the name means nothing."""
    try:
        return Locale.parse(name.replace("-", "_"))
    except (UnknownLocaleError, ValueError, TypeError):
        return Locale.parse(FALLBACK_LOCALE)


@lru_cache(maxsize=262_144)
def format_price(price: float | None, currency: str = "USD", locale: str = "en_US") -> str:
    """ "$3.49", "3,49 €"; "" for a price that is not known (None, NaN or below 0)."""
    if price is None or not price >= 0:
        return ""
    return str(format_currency(price, currency, locale=known_locale(locale)))


def format_date(moment: date | datetime | None, locale: str = "en_US", style: str = "long") -> str:
    """ "December 4, 2017", "4. Dezember 2017"; "" for no date. Styles: short medium long full."""
    if moment is None:
        return ""
    day = moment.date() if isinstance(moment, datetime) else moment
    return _date(day, locale, style)


@lru_cache(maxsize=4096)
def _date(day: date, locale: str, style: str) -> str:
    return str(cldr_date(day, format=style, locale=known_locale(locale)))
