"""A simple picture for each category, for shops whose data have no images.

400 x 300 PNG, a flat colour and a drawing, deterministic bytes; a mail shows it at half the size.
"""

import re
from collections.abc import Callable, Iterable
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from render.pictograms import DRAWINGS, Canvas

WIDTH: Final = 400
HEIGHT: Final = 300

_OVERSAMPLE: Final = 2
_COLOURS: Final = 32  # palette of the PNG: two colours and the shades between them
# (background, ink): light ground, dark ink of the same hue, contrast above 4.5.
_PALETTE: Final = (
    ("#dcefe2", "#1d6b41"),
    ("#fdebd0", "#8a4b08"),
    ("#fbdfdd", "#99302b"),
    ("#dfeaf7", "#27548a"),
    ("#ebe3f5", "#5d3a8c"),
    ("#f9f0c9", "#6b5a06"),
    ("#d9f0ee", "#11645d"),
    ("#f7e0ec", "#8c2f64"),
)
_SOURCE: Final = re.compile(r"(\bsrc\s*=\s*[\"'])([^\"']+)([\"'])")


def draw_category(category: str) -> bytes:
    """PNG of a category: a drawing that its words suggest, or its initials, and its name."""
    name = spoken(category)
    ground, ink = _PALETTE[_number(name.lower()) % len(_PALETTE)]
    image = Image.new("RGB", (WIDTH * _OVERSAMPLE, HEIGHT * _OVERSAMPLE), ground)
    pen = ImageDraw.Draw(image)
    drawing = _drawing(name)
    if drawing:
        drawing(Canvas(pen, ink, ground, centre=(400, 250), size=320))
    else:
        pen.text((400, 250), _initials(name), ink, _font(230), anchor="mm")
    pen.text((400, 520), name, ink, _fitting(pen, name), anchor="mm")
    small = image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    out = BytesIO()
    small.quantize(_COLOURS).save(out, "PNG", optimize=True)
    return out.getvalue()


def image_name(category: str) -> str:
    """File name of a category's picture: readable, safe in a URL, distinct."""
    words = re.sub(r"[^a-z0-9]+", "-", category.lower()).strip("-")[:40]
    return f"{words or 'category'}-{_number(category):08x}.png"


def draw_all(categories: Iterable[str], directory: Path) -> dict[str, str]:
    """Draw the missing pictures into a directory; gives the file name of each category."""
    directory.mkdir(parents=True, exist_ok=True)
    names = {category: image_name(category) for category in categories}
    for category, name in names.items():
        if not (directory / name).exists():
            (directory / name).write_bytes(draw_category(category))
    return names


def inline_images(html: str, resolve: Callable[[str], str | None]) -> str:
    """HTML whose `src` addresses are replaced where `resolve` knows better (a data: URI)."""

    def replaced(match: re.Match[str]) -> str:
        return f"{match[1]}{resolve(match[2]) or match[2]}{match[3]}"

    return _SOURCE.sub(replaced, html)


def _drawing(name: str) -> Callable[[Canvas], None] | None:
    words = set(re.findall(r"[a-z]+", name.lower()))
    for keywords, drawing in DRAWINGS.items():
        if words & set(keywords.split()):
            return drawing
    return None


def spoken(category: str) -> str:
    """ "FROZEN GROCERY" reads as a shout: "Frozen grocery"."""
    name = " ".join(re.split(r"[\s_]+", category.strip())) or "Other"
    return name.capitalize() if name.isupper() else name


def _initials(name: str) -> str:
    words = re.findall(r"\w+", name) or ["?"]
    return "".join(word[0] for word in words[:2]).upper()


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # the font inside Pillow: the same bytes everywhere


def _fitting(pen: ImageDraw.ImageDraw, name: str) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    size = 56
    while size > 20 and pen.textlength(name, _font(size)) > 720:
        size -= 4
    return _font(size)
