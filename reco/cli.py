"""The command line: one command a stage, and the place where everything is put together.

A command opens the services, calls one function and prints one summary. Heavy imports stand inside
the commands, so that `reco --help` is instant.
"""

import functools
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from reco.errors import RecoError
from reco.terminal import Terminal

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OUT = click.Path(dir_okay=False, path_type=Path)


class Moment(click.ParamType):
    """An ISO date or time; without a zone it is UTC."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """The moment in UTC."""
        try:
            when = datetime.fromisoformat(str(value))
        except ValueError:
            todo = "write 2017-12-04 or 2017-12-04T09:00:00+01:00"
            self.fail(f"{value!r} is not a time; {todo}", param, ctx)
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


AS_OF = click.option("--as-of", type=Moment(), help="Know nothing later; default: now.")


@click.group()
@click.version_option(package_name="reco")
def main() -> None:
    """Real-time e-mail personalization: from events to a mail of one's own."""


def command(
    name: str, group: click.Group = main
) -> Callable[[Callable[..., None]], click.Command]:
    """A command that takes --json and ends with one clear error instead of a traceback."""

    def wrap(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def run(as_json: bool, **arguments: Any) -> None:
            terminal = Terminal(as_json)
            try:
                function(terminal, **arguments)
            except RecoError as error:
                terminal.fail(error)
                sys.exit(1)

        as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
        return group.command(name)(as_json(run))

    return wrap


@command("demo")
@click.option("--dir", "home", type=click.Path(path_type=Path), help="Home; default: RECO_HOME.")
@click.option("--shop", type=click.Path(exists=True, path_type=Path), hidden=True)
def demo_(terminal: Terminal, home: Path | None, shop: Path | None) -> None:
    """The whole line on a real shop: one mail a household, and a report."""
    from reco.demo import run

    terminal.summary("The demo is done", run(terminal, home, shop))


@command("import")
@click.argument("table", type=click.Choice(["events", "items", "subscribers"]))
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--mapping", type=FILE, help="YAML that renames, casts, derives and drops.")
def import_(
    terminal: Terminal, table: str, files: tuple[Path, ...], mapping: Path | None
) -> None:
    """Validate files; bad rows go to quarantine with a reason, good ones into the lake."""
    from reco.events.importing import import_table
    from reco.events.mapping import load_mapping
    from reco.line import open_line

    rules = load_mapping(mapping) if mapping else None
    with open_line() as line, terminal.progress() as progress:
        quarantine = line.services.home / "quarantine"
        summary = import_table(table, files, rules, line.lake, line.engine, quarantine, progress)
    terminal.summary(f"Imported {table}", summary)


@command("features")
@AS_OF
@click.option("--no-online", is_flag=True, help="Tables only; leave the online store alone.")
def features_(terminal: Terminal, as_of: datetime | None, no_online: bool) -> None:
    """Feature tables as of a time, and packed rows into the online store."""
    from reco.features.online import OnlineStore
    from reco.line import open_line
    from reco.subscribers.store import SubscriberStore
    from train.features import run

    with open_line(ray=True) as line, terminal.progress() as progress:
        online = None if no_online else OnlineStore(line.redis)
        when = as_of or datetime.now(UTC)
        summary = run(line.lake, SubscriberStore(line.engine), online, when, progress)
    terminal.summary("Features", summary)


@command("train")
@click.argument("config", required=False, type=FILE)
@AS_OF
def train_(terminal: Terminal, config: Path | None, as_of: datetime | None) -> None:
    """Fit the model, judge it, and promote it when it beats its rivals."""
    from reco.line import open_line
    from train.config import load_config
    from train.fit import run

    settings = load_config(config)
    with open_line(ray=True) as line, terminal.progress() as progress:
        summary = run(settings, line.services, line.lake, as_of, progress)
    terminal.summary("Training", summary)


if __name__ == "__main__":
    main()
