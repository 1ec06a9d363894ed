"""What the large mail programs do not show: a small table, checked against caniemail.com (2026-06).

Only what changes layout or hides content, where it stands inline: a rule in a <style> block is an
addition for those who know it. Rounded corners that Outlook leaves square are no finding.
"""

import re
from collections.abc import Iterator
from typing import Final

_BOTH: Final = "Gmail and Outlook"
_OUTLOOK: Final = "Outlook for Windows"
# Property, pattern of the value, who lacks it.
_STYLES: Final = (
    ("position", r"absolute|fixed|relative|sticky", _BOTH),
    ("display", r"(inline-)?flex", _OUTLOOK),
    ("display", r"(inline-)?grid", _OUTLOOK),
    ("justify-content", r".", _BOTH),
    ("align-items", r".", _BOTH),
    ("gap", r".", _OUTLOOK),
    ("float", r"left|right", _OUTLOOK),
    ("transform", r".", _BOTH),
    ("animation", r".", _BOTH),
    ("filter", r".", _BOTH),
    ("clip-path", r".", _BOTH),
    ("mask-image", r".", _BOTH),
    ("aspect-ratio", r".", _BOTH),
    ("z-index", r"\d", _BOTH),
    ("visibility", r"hidden", _BOTH),
    ("opacity", r"0?\.\d|0$", _OUTLOOK),
    ("object-fit", r".", _OUTLOOK),
    ("writing-mode", r"vertical", _OUTLOOK),
    ("inset", r".", _BOTH),
)
_VALUES: Final = (
    (r"var\(--", "CSS variables", _BOTH),
    (r"light-dark\(", "light-dark()", _BOTH),
    (r"(oklch|oklab|lab|lch|color-mix)\(", "modern colours", _BOTH),
)
_TAGS: Final = {
    "svg": "Gmail and Outlook",
    "picture": "Gmail and Outlook",
    "audio": "Gmail and Outlook",
    "dialog": "Gmail and Outlook",
    "progress": "Gmail and Outlook",
    "meter": "Gmail and Outlook",
    "ruby": "Gmail and Outlook",
    "input": "Outlook for Windows",
    "select": "Outlook for Windows",
    "textarea": "Outlook for Windows",
}
_PICTURES: Final = (
    (r"\.svg([?#]|$)|^data:image/svg", "SVG images", "Gmail"),
    (r"\.webp([?#]|$)", "WebP images", _OUTLOOK),
    (r"\.avif([?#]|$)", "AVIF images", _OUTLOOK),
    (r"\.(mp4|apng)([?#]|$)", "moving images of this kind", _BOTH),
    (r"^data:", "images inside the HTML", "Gmail"),
)


def unsupported(tag: str, values: dict[str, str]) -> Iterator[str]:
    """A sentence on each thing in a tag that a large mail program leaves out."""
    if who := _TAGS.get(tag):
        yield f"{who} shows no <{tag}>" if " and " not in who else f"{who} show no <{tag}>"
    for name, value in _styles(values.get("style", "")):
        for known, pattern, who in _STYLES:
            if name == known and re.match(pattern, value):
                yield f"{who}: no `{name}: {value}`"
        for pattern, what, who in _VALUES:
            if re.search(pattern, value):
                yield f"{who}: no {what} (`{name}: {value}`)"
    if tag == "img":
        source = values.get("src", "").lower()
        for pattern, what, who in _PICTURES:
            if re.search(pattern, source):
                yield f"{who}: no {what} ({source[:60]})"
                break


def _styles(style: str) -> Iterator[tuple[str, str]]:
    for rule in style.split(";"):
        name, colon, value = rule.partition(":")
        if colon:
            yield name.strip().lower(), value.strip().lower()
