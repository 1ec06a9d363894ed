"""The words of MJML. MRML leaves out tags and attributes that it does not know, without a word."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final

from reco.errors import TemplateError
from render.placeholders import Hidden
from render.sources import Written

TAGS: Final = frozenset((
    "mjml",
    "mj-accordion", "mj-accordion-element", "mj-accordion-text", "mj-accordion-title", "mj-all",
    "mj-attributes", "mj-body", "mj-breakpoint", "mj-button", "mj-carousel", "mj-carousel-image",
    "mj-class", "mj-column", "mj-divider", "mj-font", "mj-group", "mj-head", "mj-hero", "mj-image",
    "mj-include", "mj-navbar", "mj-navbar-link", "mj-preview", "mj-raw", "mj-section", "mj-social",
    "mj-social-element", "mj-spacer", "mj-style", "mj-table", "mj-text", "mj-title", "mj-wrapper",
))  # fmt: skip
# Of any tag: which tag takes which is not checked, a misspelt word is.
ATTRIBUTES: Final = frozenset((
    "align", "alt", "background-color", "background-height", "background-position",
    "background-position-x", "background-position-y", "background-repeat", "background-size",
    "background-url", "background-width", "base-url", "border", "border-bottom", "border-color",
    "border-left", "border-radius", "border-right", "border-style", "border-top", "border-width",
    "cellpadding", "cellspacing", "color", "container-background-color", "css-class", "dir",
    "direction", "fluid-on-mobile", "font-family", "font-size", "font-style", "font-weight",
    "full-width", "gap", "hamburger", "height", "href", "ico-align", "ico-close", "ico-color",
    "ico-font-family", "ico-font-size", "ico-line-height", "ico-open", "ico-padding",
    "ico-padding-bottom", "ico-padding-left", "ico-padding-right", "ico-padding-top",
    "ico-text-decoration", "ico-text-transform", "icon-align", "icon-height", "icon-padding",
    "icon-position", "icon-size", "icon-unwrapped-alt", "icon-unwrapped-url", "icon-width",
    "icon-wrapped-alt", "icon-wrapped-url", "id", "inline", "inner-background-color",
    "inner-border", "inner-border-bottom", "inner-border-left", "inner-border-radius",
    "inner-border-right", "inner-border-top", "inner-padding", "inner-padding-bottom",
    "inner-padding-left", "inner-padding-right", "inner-padding-top", "lang", "left-icon",
    "letter-spacing", "line-height", "max-height", "mj-class", "mode", "name", "owa", "padding",
    "padding-bottom", "padding-left", "padding-right", "padding-top", "path", "position", "rel",
    "right-icon", "role", "sizes", "src", "srcset", "table-layout", "target", "tb-border",
    "tb-border-radius", "tb-hover-border-color", "tb-selected-border-color", "tb-width",
    "text-align", "text-decoration", "text-mode", "text-padding", "text-transform", "thumbnails",
    "thumbnails-src", "title", "type", "usemap", "version", "vertical-align", "width",
))  # fmt: skip

_TAG: Final = re.compile(r"</?(mj-[\w-]+|mjml\b)((?:[^<>\"']|\"[^\"]*\"|'[^']*')*)")
_JINJA: Final = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_VALUE: Final = re.compile(r"\"[^\"]*\"|'[^']*'")
_NAME: Final = re.compile(r"(?<![\w:-])([a-zA-Z][\w-]*)\s*=")


def check_tags(page: Hidden) -> None:
    """Raises TemplateError for the first tag that MJML does not have: its content would be lost."""
    for match in _TAG.finditer(page.text):
        if match[1] not in TAGS:
            raise TemplateError(
                f"{page.place(match.start())}: there is no MJML tag <{match[1]}>",
                "it would be left out of the mail",
                _hint(match[1], TAGS),
            )


def unknown_attributes(written: Written) -> Iterator[str]:
    """A remark on each attribute that the compiler ignores."""
    text = _JINJA.sub(lambda match: "\n" * match[0].count("\n") + "x", written.text)
    for match in _TAG.finditer(text):
        for name in _NAME.findall(_VALUE.sub('""', match[2])):
            if name not in ATTRIBUTES and not name.startswith("xml"):
                place = written.place(text.count("\n", 0, match.start()) + 1)
                hint = _hint(name, ATTRIBUTES)
                yield f"{place}: {name!r} of <{match[1]}> is not known and ignored; {hint}"


def _hint(name: str, known: frozenset[str]) -> str:
    close = get_close_matches(name, sorted(known), 1)
    return f"did you mean {close[0]!r}?" if close else "see the documentation of MRML"
