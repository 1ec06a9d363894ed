"""Pictures drawn when a mail is opened: the time that is left, a price and what is in stock.

Never the only copy of an offer: many programs show what they fetched hours ago. 480 x 96 PNG, for a
place of 240 x 48, deterministic bytes.
"""

from datetime import datetime, timedelta
from functools import lru_cache
from io import BytesIO
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from render.views import one_line

WIDTH: Final = 480
HEIGHT: Final = 96
COUNTDOWN: Final = 65_535  # number of the link to the clock; that to an item has 0
FEW: Final = 5  # units left that are worth saying

_GROUND, _INK, _PALE = "#f3f1ea", "#1d6b41", "#5a6660"
_COLOURS: Final = 16


def countdown(ends_at: datetime, now: datetime) -> bytes:
    """PNG with the time left until `ends_at`, to the minute; both are aware times."""
    return draw(*words_of(ends_at - now))


def availability(price: str, stock: float | None) -> bytes:
    """PNG with a price and what is in stock; `stock` None is not tracked."""
    if stock is not None and stock <= 0:
        return draw("Sold out", faint=True)
    left = f"only {stock:.0f} left" if stock is not None and stock <= FEW else "in stock"
    return draw(f"{price} · {left}" if price else left.capitalize())


def neutral() -> bytes:
    """PNG that says nothing that could be wrong, for when nothing is known."""
    return draw("See the shop for details", faint=True)


def words_of(left: timedelta) -> tuple[str, bool]:
    """How long that is, in words, and whether it is over."""
    minutes = int(left.total_seconds() // 60)
    if minutes < 0:
        return "This offer has ended", True
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = [_many(n, unit) for n, unit in ((days, "day"), (hours, "hour")) if n]
    if not days:
        parts.append(_many(minutes, "minute"))
    return f"Ends in {' '.join(parts[:2])}", False


@lru_cache(maxsize=2048)
def draw(words: str, faint: bool = False) -> bytes:
    """PNG with one line of text, as large as fits."""
    words = one_line(words)
    image = Image.new("RGB", (WIDTH, HEIGHT), _GROUND)
    pen = ImageDraw.Draw(image)
    size = 44
    while size > 16 and pen.textlength(words, ImageFont.load_default(size)) > WIDTH - 40:
        size -= 2
    ink = _PALE if faint else _INK
    pen.text((WIDTH / 2, HEIGHT / 2), words, ink, ImageFont.load_default(size), anchor="mm")
    out = BytesIO()
    image.quantize(_COLOURS).save(out, "PNG", optimize=True)
    return out.getvalue()


def _many(n: int, unit: str) -> str:
    return f"{n} {unit}" if n == 1 else f"{n} {unit}s"
