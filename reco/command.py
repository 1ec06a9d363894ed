"""What every command has in common: types of its arguments, --json, and one clear error."""

import functools
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from reco.errors import RecoError
from reco.log import configure
from reco.terminal import Terminal

FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
OUT: Final = click.Path(dir_okay=False, path_type=Path)


class Moment(click.ParamType[datetime]):
    """An ISO date or time; without a zone it is UTC."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """The moment in UTC."""
        try:
            when = datetime.fromisoformat(str(value))
            return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
        except (ValueError, OverflowError):
            todo = "write 2017-12-04 or 2017-12-04T09:00:00+01:00"
            self.fail(f"{value!r} is not a time; {todo}", param, ctx)


AS_OF: Final = click.option("--as-of", type=Moment(), help="Know nothing later; default: now.")


def command(
    name: str, group: click.Group | None = None
) -> Callable[[Callable[..., None]], click.Command]:
    """A command that takes --json and ends with one clear error instead of a traceback."""

    def wrap(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def run(as_json: bool, **arguments: Any) -> None:
            terminal = Terminal(as_json)
            configure(json=as_json)
            # `timeout` and `docker stop` end a command as Ctrl-C does: its servers stop with it.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
            try:
                # Stdout is for the summary: what Ray and others print goes where people look.
                with redirect_stdout(sys.stderr):
                    function(terminal, **arguments)
            except RecoError as error:
                # What a Ray worker raised arrives with its traceback around it.
                terminal.fail(getattr(error, "cause", error))
                sys.exit(1)

        as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
        made = click.command(name)(as_json(run))
        if group is not None:
            group.add_command(made)
        return made

    return wrap
