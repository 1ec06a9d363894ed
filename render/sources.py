"""The files of a template folder, cut into text and Jinja tags that know their file and line.

`{% include 'blocks/offer.mjml' %}` is resolved here, as text, before anything is compiled: a block
is a piece of the author's MJML, not a template of its own. Nothing outside the folder is read.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Final

from jinja2 import Environment, TemplateSyntaxError

from reco.errors import TemplateError

MAX_INCLUDE_DEPTH: Final = 8
MAX_FILE_BYTES: Final = 512 * 1024  # a mail is clipped at 102 KB; a larger source is a mistake

_LEXER: Final = Environment(keep_trailing_newline=True, autoescape=True)  # only ever lexes
_END_OF: Final = {"block_begin": "block_end", "variable_begin": "variable_end"}
_MJ_INCLUDE: Final = re.compile(r"<mj-include\s+path=[\"']([^\"']+)[\"']\s*(?:/>|></mj-include>)")
_COMMENT: Final = frozenset({"comment_begin", "comment", "comment_end"})


class Kind(Enum):
    """What a piece is."""

    TEXT = "text"
    EXPRESSION = "expression"  # {{ … }}
    CONTROL = "control"  # {% … %}


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of plain text, or one Jinja tag, as written; `line` counts from 1 in `file`."""

    kind: Kind
    text: str
    file: str
    line: int

    @property
    def place(self) -> str:
        """`file:line`, as every error names it."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Written:
    """What an author wrote, includes in place; `lines` holds file and line of each of its lines."""

    text: str
    lines: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> "Written":
        """Join pieces; a line belongs to the piece that starts it."""
        text: list[str] = []
        lines: list[tuple[str, int]] = []
        fresh = True
        for piece in pieces:
            if not piece.text:
                continue
            if fresh:
                lines.append((piece.file, piece.line))
            breaks = piece.text.count("\n")
            lines.extend((piece.file, piece.line + n) for n in range(1, breaks + 1))
            fresh = piece.text.endswith("\n")
            if fresh:
                lines.pop()
            text.append(piece.text)
        return cls("".join(text), tuple(lines))

    def place(self, line: int) -> str:
        """`file:line` of a line (from 1) of the joined text."""
        file, at = self.lines[min(max(line, 1), len(self.lines)) - 1]
        return f"{file}:{at}"


def folder_version(folder: Path) -> str:
    """16 hex digits of the names and contents of all files of a template folder."""
    digest = blake2b(digest_size=8)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        name = path.relative_to(folder).as_posix().encode()
        digest.update(b"%d %d " % (len(name), len(content)) + name + content)
    return digest.hexdigest()


def read_text(folder: Path, name: str, asked_at: str = "") -> str:
    """Text of one file of the folder; raises TemplateError for anything outside of it."""
    where = asked_at or name
    parts = PurePosixPath(name)
    path = folder / name
    outside = parts.is_absolute() or ".." in parts.parts or "\\" in name or "\0" in name
    if outside or not path.resolve().is_relative_to(folder.resolve()):
        raise TemplateError(
            f"{where}: {name!r} lies outside the template folder",
            "a template may read the files of its own folder only",
            "copy the block into the folder and include it by its relative name",
        )
    if not path.is_file():
        raise TemplateError(
            f"{where}: there is no file {name!r} in {folder}",
            todo=f"create it, or use one of: {', '.join(_names(folder))}",
        )
    content = path.read_bytes()
    if len(content) > MAX_FILE_BYTES:
        raise TemplateError(f"{where}: {name!r} has more than {MAX_FILE_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TemplateError(f"{name}: not UTF-8 text", str(error), "save it as UTF-8") from error


def read_pieces(folder: Path, name: str) -> list[Piece]:
    """Pieces of a file with its includes in place; raises TemplateError with file and line."""
    return list(_expand(folder, name, (), ""))


def _expand(folder: Path, name: str, open_files: tuple[str, ...], asked_at: str) -> Iterator[Piece]:
    if name in open_files or len(open_files) >= MAX_INCLUDE_DEPTH:
        raise TemplateError(
            f"{asked_at}: includes go round in a circle or too deep",
            " -> ".join((*open_files, name)),
            f"nest at most {MAX_INCLUDE_DEPTH} files and let none include itself",
        )
    for piece, included in _cut(read_text(folder, name, asked_at), name):
        if included is None:
            yield piece
        else:
            yield from _expand(folder, included, (*open_files, name), piece.place)


def _cut(text: str, file: str) -> Iterator[tuple[Piece, str | None]]:
    """Pieces of one file; beside an include tag stands the name that it asks for."""
    try:
        tokens = iter(list(_LEXER.lex(text)))
    except TemplateSyntaxError as error:
        raise TemplateError(f"{file}:{error.lineno}: {error.message}") from error
    for line, token, value in tokens:
        if token in _COMMENT:
            # Comments go, their lines stay: errors further down must name the right line.
            if "\n" in value:
                yield Piece(Kind.TEXT, "\n" * value.count("\n"), file, line), None
        elif token in _END_OF:
            parts = [(token, value)]
            while parts[-1][0] != _END_OF[token]:
                parts.append(next(tokens)[1:])
            kind = Kind.CONTROL if token == "block_begin" else Kind.EXPRESSION
            piece = Piece(kind, "".join(part for _, part in parts), file, line)
            yield piece, _included(piece, parts)
        elif token in ("raw_begin", "raw_end"):
            yield Piece(Kind.CONTROL, value, file, line), None
        else:
            yield from _cut_text(Piece(Kind.TEXT, value, file, line))


def _cut_text(piece: Piece) -> Iterator[tuple[Piece, str | None]]:
    """Text around `<mj-include path="…"/>`, MJML's own way to say include."""
    if len(_MJ_INCLUDE.findall(piece.text)) != piece.text.count("<mj-include"):
        line = piece.line + piece.text[: piece.text.index("<mj-include")].count("\n")
        raise TemplateError(
            f"{piece.file}:{line}: mj-include takes a path and nothing else",
            todo="write {% include 'blocks/name.mjml' %}; styles go into <mj-style>",
        )
    done = 0
    for match in _MJ_INCLUDE.finditer(piece.text):
        line = piece.line + piece.text.count("\n", 0, match.start())
        before = piece.text[done : match.start()]
        yield Piece(piece.kind, before, piece.file, line - before.count("\n")), None
        yield Piece(Kind.CONTROL, match[0], piece.file, line), match[1]
        done = match.end()
    rest = piece.text[done:]
    line = piece.line + piece.text.count("\n", 0, done)
    yield Piece(piece.kind, rest, piece.file, line), None


def _included(piece: Piece, parts: list[tuple[str, str]]) -> str | None:
    words = [(token, value) for token, value in parts[1:-1] if token != "whitespace"]
    if piece.kind is not Kind.CONTROL or not words:
        return None
    if words[0][1] in ("import", "from", "extends"):
        raise TemplateError(
            f"{piece.place}: {{% {words[0][1]} %}} is not offered in mails",
            todo="use {% include 'blocks/name.mjml' %} or a macro in the same file",
        )
    if words[0][1] != "include":
        return None
    if len(words) != 2 or words[1][0] != "string":
        raise TemplateError(
            f"{piece.place}: an include names one file, in quotes",
            f"found {piece.text}",
            "write {% include 'blocks/name.mjml' %}; choose between blocks with {% if %}",
        )
    return words[1][1][1:-1]


def _names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
