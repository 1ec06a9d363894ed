"""Jinja tags step aside while the MJML compiler and the CSS inliner work on the page.

Neither knows Jinja: `<` inside a tag breaks the one, and the other's HTML5 parser moves loose text
out of tables. So every tag becomes a comment where content may stand, a plain word inside
attributes, styles and titles, and is put back afterwards. A tag that got lost is an error.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from render.sources import Kind, Piece

_COMMENT: Final = re.compile(r"<!--(?!\[if|<!\[endif).*?-->", re.DOTALL)
_OUTLOOK: Final = re.compile(r"<!--\[if [^\]]*\]>(?!<!).*?<!\[endif\]-->", re.DOTALL)
_MARK: Final = re.compile(r"<!--|-->|</?[A-Za-z][\w:-]*|/?>|[\"']")
# Elements whose content is text only: a comment there would be shown.
_PLAIN: Final = frozenset({"mj-style", "mj-title", "mj-preview", "style", "title", "textarea"})
_LINK_START: Final = re.compile(r"(?:href|src|background-url|background)\s*=\s*[\"']\s*$")


@dataclass(frozen=True, slots=True)
class Hidden:
    """A page with its tags hidden; `text` is for the compilers, `restore` undoes it."""

    text: str
    tags: tuple[Piece, ...]
    word: str
    starts: tuple[tuple[int, Piece], ...]  # offset in `text` of each piece, for error positions

    def out_of_outlook(self, page: str) -> str:
        """Within Outlook's conditional comments tags become words: comments do not nest.

        MRML writes the tags between the sections of an mj-wrapper there, and rightly so: a loop
        then repeats Outlook's table rows as well.
        """
        comment = re.compile(rf"<!--({re.escape(self.word)}\d+x)-->")
        return _OUTLOOK.sub(lambda match: comment.sub(r"\1", match[0]), page)

    def restore(self, page: str) -> tuple[str, list[Piece]]:
        """The page with its tags back, and the tags that got lost on the way."""
        seen: set[int] = set()

        def tag(match: re.Match[str]) -> str:
            number = int(match[1] or match[2])
            seen.add(number)
            return self.tags[number].text

        word = re.escape(self.word)
        restored = re.sub(rf"<!--{word}(\d+)x-->|{word}(\d+)x", tag, page)
        return restored, [piece for n, piece in enumerate(self.tags) if n not in seen]

    def place(self, offset: int) -> str:
        """`file:line` of an offset in `text`."""
        start, piece = max(
            (s for s in self.starts if s[0] <= offset), default=self.starts[0], key=lambda s: s[0]
        )
        lines = self.text[start:offset].count("\n") if piece.kind is Kind.TEXT else 0
        return f"{piece.file}:{piece.line + lines}"


class _Position:
    """Where in the markup we stand: in content, in a tag, in a quoted value, in a comment."""

    def __init__(self) -> None:
        self.element = ""
        self.opening = ""
        self.quote = ""
        self.comment = False

    @property
    def in_content(self) -> bool:
        return not (self.comment or self.opening or self.element in _PLAIN)

    def read(self, text: str) -> None:
        """Move on over plain text."""
        for mark in _MARK.findall(text):
            if self.comment:
                self.comment = mark != "-->"
            elif mark == "<!--":
                self.comment = not self.opening
            elif self.quote:
                self.quote = "" if mark == self.quote else self.quote
            elif self.opening:
                self._inside_tag(mark)
            elif mark.startswith("<"):
                self.opening = mark[1:].lower()

    def _inside_tag(self, mark: str) -> None:
        if mark in ('"', "'"):
            self.quote = mark
        elif mark in (">", "/>"):
            closing = self.opening.startswith("/") or mark == "/>"
            self.element = "" if closing else self.opening
            self.opening = ""


def hide(pieces: Sequence[Piece]) -> Hidden:
    """Hide the tags of a page; the author's own HTML comments are dropped, Outlook's stay."""
    word = _unused_word(pieces)
    position = _Position()
    out: list[str] = []
    tags: list[Piece] = []
    starts: list[tuple[int, Piece]] = []
    length = 0
    for piece in pieces:
        text = piece.text
        if piece.kind is Kind.TEXT:
            text = _COMMENT.sub(lambda match: "\n" * match[0].count("\n"), text)
            position.read(text)
        else:
            tags.append(_checked_link(piece, out))
            text = f"{word}{len(tags) - 1}x"
            text = f"<!--{text}-->" if position.in_content else text
        starts.append((length, piece))
        out.append(text)
        length += len(text)
    return Hidden("".join(out), tuple(tags), word, tuple(starts))


def _checked_link(piece: Piece, before: list[str]) -> Piece:
    """An expression that starts a link passes the `link` filter: no `javascript:` from a feed."""
    if piece.kind is not Kind.EXPRESSION or not before or not _LINK_START.search(before[-1][-40:]):
        return piece
    inner = piece.text.strip()[2:-2].strip("-+ \n\t")
    return Piece(piece.kind, f"{{{{ ({inner})|link }}}}", piece.file, piece.line)


def _unused_word(pieces: Sequence[Piece]) -> str:
    whole = "".join(piece.text for piece in pieces).lower()
    word = "jtag"
    while word in whole:
        word += "q"
    return word
