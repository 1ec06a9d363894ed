"""The command line: one command a stage, and the place where everything is put together.

A command opens the services, calls one function and prints one summary. Heavy imports stand inside
the commands, so that `reco --help` is instant.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from reco.campaign_cli import campaign, monitoring, preview, report
from reco.command import AS_OF, FILE, OUT, command
from reco.errors import NotFound
from reco.mail_cli import bounces, subscribers, template
from reco.stream_cli import stream, tidy
from reco.terminal import Terminal

CHECKOUT: Final = Path(__file__).resolve().parent.parent


@click.group()
@click.version_option(package_name="reco")
def main() -> None:
    """Real-time e-mail personalization: from events to a mail of one's own."""


for part in (campaign, preview, report, monitoring, subscribers, bounces, template, stream, tidy):
    main.add_command(part)


@command("demo", main)
@click.option("--dir", "home", type=click.Path(path_type=Path), help="Home; default: RECO_HOME.")
@click.option("--shop", type=click.Path(exists=True, path_type=Path), help="Another copy of it.")
@click.option("--training", type=FILE, help="Instead of configs/train.yaml.")
def demo_(terminal: Terminal, home: Path | None, shop: Path | None, training: Path | None) -> None:
    """The whole line on a real shop: one mail a household, and a report."""
    from reco.demo import TRAINING, run

    terminal.summary("The demo is done", run(terminal, home, shop, training or TRAINING))


@command("import", main)
@click.argument("table", type=click.Choice(["events", "items", "subscribers"]))
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--mapping", type=FILE, help="YAML that renames, casts, derives and drops.")
def import_(terminal: Terminal, table: str, files: tuple[Path, ...], mapping: Path | None) -> None:
    """Validate files; bad rows go to quarantine with a reason, good ones into the lake."""
    from reco.events.importing import import_table
    from reco.events.mapping import load_mapping
    from reco.line import open_line

    rules = load_mapping(mapping) if mapping else None
    with open_line() as line, terminal.progress() as progress:
        quarantine = line.services.home / "quarantine"
        summary = import_table(table, files, rules, line.lake, line.engine, quarantine, progress)
    terminal.summary(f"Imported {table}", summary)


@command("features", main)
@AS_OF
@click.option("--no-online", is_flag=True, help="Tables only; leave the online store alone.")
@click.option("--verify", is_flag=True, help="Compare the online rows with the lake instead.")
@click.option("--sample", type=click.IntRange(1), help="Of --verify: about so many users.")
def features_(
    terminal: Terminal, as_of: datetime | None, no_online: bool, verify: bool, sample: int | None
) -> None:
    """Feature tables as of a time, and packed rows into the online store."""
    if verify:
        from reco.stream_cli import verify_rows

        verify_rows(terminal, as_of or datetime.now(UTC), sample)
        return
    from reco.features.occasion import write_occasions
    from reco.features.online import OnlineStore
    from reco.line import open_line
    from reco.subscribers.store import SubscriberStore
    from train.features import run

    with open_line(ray=True) as line, terminal.progress() as progress:
        online = None if no_online else OnlineStore(line.redis)
        when = as_of or datetime.now(UTC)
        store = SubscriberStore(line.engine)
        summary = run(line.lake, store, online, when, progress)
        summary.tables.append(write_occasions(line.lake, store, when))
    terminal.summary("Features", summary)


@command("train", main)
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


@command("evaluate", main)
@click.argument("config", required=False, type=FILE)
@AS_OF
def evaluate_(terminal: Terminal, config: Path | None, as_of: datetime | None) -> None:
    """Fit the settings before the last horizon, and judge that fit beside its rivals on it.

    Full ranking. A champion that has learned from the horizon is left out; nothing is promoted.
    """
    from reco.line import open_line
    from train.config import load_config
    from train.fit import evaluate

    settings = load_config(config)
    with open_line(ray=True) as line, terminal.progress() as progress:
        verdict = evaluate(settings, line.services, line.lake, as_of, progress)
    terminal.summary("Evaluation", verdict)


@command("recommend", main)
@click.option("--users", required=True, help="A file with one user id a line, or `all`.")
@click.option("--k", default=20, show_default=True, type=click.IntRange(1, 1000))
@AS_OF
@click.option("--items", type=FILE, help="Only these: item ids, one a line, or a table.")
@click.option("--offers", type=FILE, help="Rows offer_id, item_id: rank offers, not items.")
@click.option("--novel-only", is_flag=True, help="Nothing that the user had before.")
@click.option(
    "--by",
    default="model",
    show_default=True,
    help="Or a simple recommender, to compare with.",
    type=click.Choice(["model", "popular", "frequency", "collaborative", "content"]),
)
@click.option("--out", required=True, type=OUT, help="Parquet: user_id, item_id, rank, score.")
def recommend_(terminal: Terminal, as_of: datetime | None, out: Path, **question: Any) -> None:
    """Rank items for many users at once, into a file."""
    from reco.line import open_line
    from train.plan import end_of
    from train.recommend import ask

    with open_line(ray=True) as line, terminal.progress() as progress:
        when = as_of or end_of(line.lake)
        summary = ask(line.services, line.lake, out, when, progress, **question)
    terminal.summary("Recommendations", summary)


@command("precompute", main)
@AS_OF
@click.option("--ttl-hours", default=6.0, show_default=True, type=click.FloatRange(0.01))
def precompute_(terminal: Terminal, as_of: datetime | None, ttl_hours: float) -> None:
    """The top K of every subscriber into Redis, for a few hours."""
    from reco.line import open_line
    from train.precompute import run

    with open_line(ray=True) as line, terminal.progress() as progress:
        ttl_s = int(ttl_hours * 3600)
        summary = run(line.services, line.lake, progress, as_of=as_of, ttl_s=ttl_s)
    terminal.summary("Precomputed", summary)


@command("serve", main)
@click.argument("config", default=CHECKOUT / "configs" / "serve.yaml", type=FILE)
def serve_(terminal: Terminal, config: Path) -> None:
    """The graph and the HTTP API, until Ctrl-C."""
    from reco.line import open_line
    from serve.running import http_root, run_config

    root = http_root(config)
    with open_line(ray=True) as line:
        terminal.say(f"API key: {line.services.home / 'keys' / 'api'}")
        terminal.say(f"Soon at {root}: /docs, and for people /console")
        run_config(config, line.services)


@command("bench", main)
@click.argument("names", nargs=-1)
def bench(terminal: Terminal, names: tuple[str, ...]) -> None:
    """The benchmarks of this checkout, peers beside us, into docs/BENCHMARKS.md: all, or these."""
    import subprocess

    script = CHECKOUT / "tests" / "bench" / "run.py"
    if not script.exists():
        raise NotFound("There are no benchmarks here.", "An installed wheel has none.")
    sys.exit(subprocess.run([sys.executable, script, *names], cwd=CHECKOUT).returncode)


if __name__ == "__main__":
    main()
