"""What a command shows: bars on stderr, one summary on stdout, one clear error on failure."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeGuard

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from reco.errors import RecoError

WIDE: Final = 160  # columns where nobody watches: a path or a figure is not cut
Report = Callable[[str, int, int], None]  # (stage, done, total); total 0 where it is not known


class Terminal:
    """The command's mouth: people get tables, `--json` gets one JSON object."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._stdout = sys.stdout
        self._out = Console(highlight=False, file=sys.stdout)
        if not self._out.is_terminal:
            self._out.width = WIDE
        self._err = Console(stderr=True, highlight=False)

    @contextmanager
    def progress(self) -> Iterator[Report]:
        """Bars by stage; silent where nobody watches (a pipe, a CI log) or with --json."""
        columns = (
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        shown = self._err.is_terminal and not self.as_json
        with Progress(*columns, console=self._err, disable=not shown) as bars:
            tasks: dict[str, int] = {}

            def report(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bars.add_task(stage, total=total or None)
                bars.update(tasks[stage], completed=done, total=total or None)  # type: ignore[arg-type]

            yield report

    def say(self, line: str) -> None:
        """A line on the way, for people only."""
        if not self.as_json:
            self._err.print(line)

    def summary(self, title: str, facts: object) -> None:
        """The result of a command: a dataclass or a mapping of facts."""
        values = _plain(facts)
        if self.as_json:
            self._stdout.write(json.dumps(values, default=str, ensure_ascii=False) + "\n")
            return
        grids = {name: value for name, value in values.items() if _is_grid(value)}
        table = Table(title=title, title_justify="left", show_header=False, box=None)
        for name, value in values.items():
            if name not in grids:
                table.add_row(f"[dim]{name.replace('_', ' ')}[/]", escape(_text(value)))
        self._out.print(table)
        for name, grid in grids.items():
            self._out.print(_grid(name.replace("_", " "), grid))

    def document(self, text: str, title: str, facts: object) -> None:
        """A result that is JSON already; people get the facts that matter."""
        if self.as_json:
            self._stdout.write(text + "\n")
        else:
            self.summary(title, facts)

    def fail(self, error: RecoError) -> None:
        """What happened, why, and what to do; as JSON the same three facts."""
        if self.as_json:
            facts = {
                "error": type(error).__name__,
                "what": error.what,
                "why": error.why,
                "what_to_do": error.todo,
            }
            self._stdout.write(json.dumps(facts, ensure_ascii=False) + "\n")
        self._err.print(f"[bold red]error:[/] {escape(str(error))}", markup=True, soft_wrap=True)


def _plain(facts: object) -> dict[str, object]:
    if dataclasses.is_dataclass(facts) and not isinstance(facts, type):
        return dataclasses.asdict(facts)
    if isinstance(facts, Mapping):
        return dict(facts)
    raise TypeError(f"a summary is a dataclass or a mapping, not {type(facts).__name__}")


def _is_grid(value: object) -> TypeGuard[Mapping[str, Mapping[str, object]]]:
    """Rows by name, each with the same columns."""
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(row, Mapping) and row for row in value.values())
    )


def _grid(title: str, rows: Mapping[str, Mapping[str, object]]) -> Table:
    columns = list(next(iter(rows.values())))
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for name, row in rows.items():
        table.add_row(name, *(_text(row.get(column)) for column in columns))
    return table


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items()) or "-"
    if isinstance(value, tuple) and len(value) == 3 and all(isinstance(v, float) for v in value):
        middle, low, high = map(_text, value)
        return f"{middle} [{low}, {high}]"
    if isinstance(value, list | tuple):
        return "\n".join(_text(v) for v in value) or "-"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "-" if value is None else str(value)
