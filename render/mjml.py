"""MJML with Jinja tags in it becomes HTML with the same tags in it, by MRML and css-inline."""

import re
from collections.abc import Sequence
from typing import Final

import css_inline
from mjml import mjml2html

from reco.errors import TemplateError
from render.placeholders import Hidden, hide
from render.sources import Piece
from render.vocabulary import check_tags

_INLINE_STYLE: Final = re.compile(
    r"<mj-style\b[^>]*\binline\s*=\s*[\"']inline[\"'][^>]*>(.*?)</mj-style>", re.DOTALL
)
_POSITION: Final = re.compile(r"at position (\d+):")
# A "<" that opens no tag, and a tag that another begins in.
_STRAY: Final = re.compile(r"<(?![A-Za-z/!?])|<[A-Za-z/][^<>]*(?=<)")
_PAIR: Final = re.compile(r"<(/?)(mjml|mj-[\w-]+)[^<>]*?(/?)>")


def to_html(pieces: Sequence[Piece]) -> str:
    """MJML with Jinja tags to HTML with the same tags, `<mj-style inline="inline">` inlined."""
    hidden = hide(pieces)
    check_tags(hidden)
    css = "\n".join(match[1] for match in _INLINE_STYLE.finditer(hidden.text))
    source = _INLINE_STYLE.sub(_without_inlined, hidden.text)
    try:
        html = hidden.out_of_outlook(mjml2html(source, disable_comments=False, fonts={}))
    except ValueError as error:
        raise _mjml_error(error, source, hidden) from error
    if css:
        html = css_inline.CSSInliner(
            inline_style_tags=False,
            keep_style_tags=True,
            load_remote_stylesheets=False,
            extra_css=css,
        ).inline(html)
    restored, lost = hidden.restore(html)
    if lost:
        raise TemplateError(
            f"{lost[0].place}: {lost[0].text} has no place in the finished page",
            "MJML allows no content there, or ignores the tag or attribute it stands in",
            "move it into a section, a column or <mj-raw>, and look for a misspelt attribute",
        )
    return restored


def _without_inlined(style: re.Match[str]) -> str:
    """Nothing, but @media rules cannot be inlined: then the whole block stays as well."""
    # A comment of the same length keeps the positions that the compiler's errors give.
    return style[0] if "@" in style[1] else f"<!--{' ' * (len(style[0]) - 7)}-->"


def _mjml_error(error: ValueError, source: str, hidden: Hidden) -> TemplateError:
    found = _POSITION.search(str(error))
    if found:
        offset = len(source.encode()[: int(found[1])].decode(errors="ignore"))
    else:
        stray = _STRAY.search(source)
        offset = stray.start() if stray else _unclosed(source)
    shown = source[offset : offset + 40].split("\n")[0]
    why = f"{str(error).split(' in root template')[0]} near {shown!r}"
    todo = "close every tag, put it where it may stand, and write a bare < as &lt;"
    return TemplateError(f"{hidden.place(offset)}: the MJML cannot be compiled", why, todo)


def _unclosed(source: str) -> int:
    """Offset of the first MJML tag that is not closed, 0 when all are."""
    still_open: list[tuple[str, int]] = []
    for match in _PAIR.finditer(source):
        if not match[1] and not match[3]:
            still_open.append((match[2], match.start()))
        elif match[1] and still_open:
            name, offset = still_open.pop()
            if name != match[2]:
                return offset
    return still_open[-1][1] if still_open else 0
