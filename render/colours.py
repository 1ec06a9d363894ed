"""Colours of CSS as "#rrggbb", and whether text in one can be read on another."""

import re
from typing import Final

from PIL import ImageColor

_HEX: Final = re.compile(r"#([0-9a-f]{8}|[0-9a-f]{6}|[0-9a-f]{3,4})\b", re.IGNORECASE)
_RGB: Final = re.compile(r"rgba?\(([^)]*)\)", re.IGNORECASE)
_WORD: Final = re.compile(r"(?<![\w#(.-])[a-z]+(?![\w(-])", re.IGNORECASE)


def colour(value: str) -> str:
    """The first colour in a value such as "1px solid red"; "" for none, or one seen through."""
    if found := _HEX.search(value):
        digits = found[1].lower()
        digits = digits if len(digits) >= 6 else "".join(digit * 2 for digit in digits)
        return f"#{digits[:6]}" if digits[6:] in ("", "ff") else ""
    if found := _RGB.search(value):
        return _of_parts(re.split(r"[\s,/]+", found[1].strip()))
    names = (word.lower() for word in _WORD.findall(value))
    return next((_hex(ImageColor.getrgb(n)[:3]) for n in names if n in ImageColor.colormap), "")


def contrast_of(ink: str, ground: str) -> float:
    """Contrast ratio of two colours "#rrggbb", 1..21 (WCAG 2.1, relative luminance)."""
    lighter, darker = sorted((_luminance(ink), _luminance(ground)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _of_parts(parts: list[str]) -> str:
    try:
        numbers = [float(p.rstrip("%")) * (2.55 if p.endswith("%") else 1) for p in parts[:3]]
        alpha = float(parts[3].rstrip("%")) / (100 if parts[3].endswith("%") else 1)
    except IndexError:
        alpha = 1.0
    except ValueError:
        return ""
    if len(parts) < 3 or alpha < 1:
        return ""
    return _hex(tuple(min(round(number), 255) for number in numbers))


def _hex(parts: tuple[int, ...]) -> str:
    return "#" + "".join(f"{part:02x}" for part in parts)


def _luminance(value: str) -> float:
    channels = (int(value[n : n + 2], 16) / 255 for n in (1, 3, 5))
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
