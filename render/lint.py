"""What a deliverability engineer would say of a template before it is sent to anybody.

Looks at rendered samples of every segment, not at the MJML: what counts is what arrives.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Final, Literal

from render.branches import unreachable
from render.colours import colour, contrast_of
from render.renderer import Renderer
from render.sandbox import environment
from render.support import unsupported
from render.template import CompiledTemplate
from render.views import Rendered, sample_item, sample_recipient
from render.vocabulary import unknown_attributes

WARN_BYTES: Final = 90_000
REFUSE_BYTES: Final = 102_000  # Gmail clips there, and with the rest the unsubscribe link
MIN_CONTRAST: Final = 4.5  # WCAG 2.1, AA
MIN_FONT_PX: Final = 14.0
LONG_SUBJECT: Final = 70  # characters; phones show fewer

_VOID: Final = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta"}
)
_UNREAD: Final = frozenset({"style", "script", "title", "head", "noscript"})

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark: an error is a reason not to send."""

    level: Level
    rule: str
    message: str


@dataclass(frozen=True, slots=True)
class _Look:
    """How text looks where we stand."""

    tag: str
    ink: str = "#000000"
    ground: str = "#ffffff"
    font_px: float = 16.0
    hidden: bool = False


def lint(template: CompiledTemplate, segments: Collection[str] | None = None) -> list[Finding]:
    """Remarks on a compiled template, errors first, each once.

    `segments` are those of the campaign that uses it; None where it is not known.
    """
    renderer = Renderer(template)
    picks = [sample_item(number) for number in range(1, 6)]
    context = template.sample()
    ignored = unknown_attributes(template.html.written)
    found = {Finding("warning", "attribute", remark): None for remark in ignored}
    strict = environment(html=True)
    for part in (template.html, template.text, template.subject, template.preheader):
        dead = unreachable(strict, part.written, segments)
        found |= {Finding("warning", "unreachable", remark): None for remark in dead}
    for segment in ("", *template.segments):
        rendered = renderer.render(sample_recipient(segment), picks, context)
        found |= dict.fromkeys(_of_mail(rendered, context))
        page = _Page()
        page.feed(rendered.html)
        page.close()
        found |= dict.fromkeys(page.all_findings())
    return sorted(found, key=lambda finding: (finding.level, finding.rule, finding.message))


def _of_mail(mail: Rendered, context: dict[str, object]) -> Iterator[Finding]:
    size = len(mail.html.encode())
    if size > REFUSE_BYTES:
        yield Finding("error", "size", f"the HTML has {size} bytes; Gmail cuts at {REFUSE_BYTES}")
    elif size > WARN_BYTES:
        yield Finding("warning", "size", f"the HTML has {size} bytes, close to Gmail's limit")
    for part, content in (("HTML", mail.html), ("text", mail.text)):
        if str(context["unsubscribe_url"]) not in content:
            message = f"the {part} part lacks {{{{ unsubscribe_url }}}}"
            yield Finding("error", "unsubscribe", message)
        if str(context["postal_address"]) not in content:
            message = f"the {part} part lacks {{{{ postal_address }}}}"
            yield Finding("error", "postal-address", message)
    if not mail.subject:
        yield Finding("error", "subject", "the subject is empty")
    elif len(mail.subject) > LONG_SUBJECT:
        yield Finding("warning", "subject", f"the subject is longer than {LONG_SUBJECT} characters")


class _Page(HTMLParser):
    """Reads one rendered page and notes what is wrong with it."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = [_Look("")]
        self._findings: list[Finding] = []
        self._title = ""
        self._headings = 0

    def all_findings(self) -> list[Finding]:
        """Remarks on the tags, and on what the page lacks."""
        found = list(self._findings)
        if not self._title.strip():
            found.append(Finding("warning", "title", "the page has no <mj-title>"))
        if self._headings != 1:
            message = f"the page has {self._headings} <h1>; screen readers look for one"
            found.append(Finding("warning", "heading", message))
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Check a tag, then remember how text looks inside it."""
        values = {name: value or "" for name, value in attrs}
        self._headings += tag == "h1"
        self._findings += _of_tag(tag, values)
        if tag not in _VOID:
            self._stack.append(_look(self._stack[-1], tag, values))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag that closes itself holds no text."""
        self._findings += _of_tag(tag, {name: value or "" for name, value in attrs})

    def handle_endtag(self, tag: str) -> None:
        """Back to how text looked before the tag."""
        for depth in range(len(self._stack) - 1, 0, -1):
            if self._stack[depth].tag == tag:
                del self._stack[depth:]
                break

    def handle_data(self, data: str) -> None:
        """Check that text can be read."""
        look = self._stack[-1]
        if look.tag == "title":
            self._title += data
        if not data.strip() or look.hidden or look.tag in _UNREAD:
            return
        shown = " ".join(data.split())[:40]
        contrast = contrast_of(look.ink, look.ground)
        if contrast < MIN_CONTRAST:
            message = f"{look.ink} on {look.ground} has contrast {contrast:.1f} < {MIN_CONTRAST}"
            self._findings.append(Finding("warning", "contrast", f"{message}: {shown!r}"))
        if look.font_px < MIN_FONT_PX:
            message = f"text of {look.font_px:g} px is hard to read: {shown!r}"
            self._findings.append(Finding("warning", "font-size", message))


_LINKS: Final = ("https://", "mailto:", "tel:", "sms:", "#")


def _of_tag(tag: str, values: dict[str, str]) -> Iterator[Finding]:
    if tag == "img" and "alt" not in values:
        yield Finding("error", "alt", f"an image lacks alt: {values.get('src', '')}")
    if tag == "html" and values.get("lang", "und") in ("", "und"):
        yield Finding("warning", "lang", 'write <mjml lang="{{ user.language }}">')
    if tag == "table" and values.get("role") not in ("presentation", "none", "table"):
        yield Finding("warning", "role", 'a table lacks role="presentation" (or role="table")')
    for remark in unsupported(tag, values):
        yield Finding("warning", "support", remark)
    if tag in ("script", "form", "iframe", "object", "embed", "video"):
        yield Finding("error", "tag", f"mail programs drop or refuse <{tag}>")
    for name in ("href", "src", "background"):
        link = values.get(name, "").lower()
        if link.startswith("http:"):
            yield Finding("warning", "https", f"not https: {values[name]}")
        elif tag == "a" and name == "href" and link in ("", "#"):
            yield Finding("error", "link", "a link leads nowhere")
        elif tag == "a" and name == "href" and not link.startswith(_LINKS):
            yield Finding("error", "link", f"a link leads nowhere from a mail: {values[name]!r}")


def _look(outer: _Look, tag: str, values: dict[str, str]) -> _Look:
    style = {
        name.strip().lower(): value.strip()
        for name, _, value in (rule.partition(":") for rule in values.get("style", "").split(";"))
    }
    ground = style.get("background-color") or style.get("background") or values.get("bgcolor", "")
    size = re.match(r"([\d.]+)px", style.get("font-size", ""))
    return _Look(
        tag,
        ink=colour(style.get("color", "")) or outer.ink,
        ground=colour(ground) or outer.ground,
        font_px=float(size[1]) if size else outer.font_px,
        hidden=outer.hidden or style.get("display") == "none",
    )
