"""The commands of the stream: run it, replay what it refused, tidy and compare what it made."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import click

from reco.command import command
from reco.errors import InputError
from reco.terminal import Terminal

LONGEST_DAYS: Final = 36_500  # of an event's life


@command("stream")
@click.option("--most", default=2, show_default=True, type=click.IntRange(1), help="Consumers.")
@click.option("--drain", is_flag=True, help="End when no event waits any more.")
@click.option("--replay", metavar="REASON", help="Put dead letters on the bus again: REASON|all.")
@click.option("--key", metavar="SOURCE", help="Print the key with which a source signs requests.")
def stream(terminal: Terminal, most: int, drain: bool, replay: str | None, key: str | None) -> None:
    """Events from the bus into lake and online features, until Ctrl-C."""
    from reco.events.deadletter import DeadLetters
    from reco.events.door import source_key
    from reco.line import open_line

    with open_line() as line:
        if key is not None:
            terminal.summary(
                "Signs requests", {"source": key, "key": source_key(line.services.link_key, key)}
            )
        elif replay is not None:
            from reco.events.bus import open_bus

            dead = DeadLetters(line.redis)
            bus = open_bus(line.services.bus_url, line.lake.buckets)
            replayed = dead.replay(bus, None if replay == "all" else replay)
            terminal.summary("Replayed", {"replayed": replayed, "left": dead.counts()})
        else:
            from serve.fleet import run_until_stopped
            from train.cluster import connect

            with connect(line.services), terminal.progress() as progress:
                summary = run_until_stopped(line.services, most, progress, drain=drain)
            terminal.summary("Stream", summary)


@command("tidy")
@click.option(
    "--keep", metavar="TYPE=DAYS", multiple=True, help="Older events of the type leave; repeat it."
)
@click.option("--decisions", type=click.IntRange(1, LONGEST_DAYS), help="Days of their records.")
def tidy(terminal: Terminal, keep: tuple[str, ...], decisions: int | None) -> None:
    """Few files in the lake, and nothing in it that is older than it may be.

    Decision records of people who are no subscribers any more leave in any case.
    """
    from reco.campaigns.forgetting import forget
    from reco.features.live import LiveRows
    from reco.features.online import OnlineStore
    from reco.features.profile import read_profiles
    from reco.line import open_line
    from reco.subscribers.store import SubscriberStore

    oldest = {kind: datetime.now(UTC) - age for kind, age in map(_age, keep)}
    with open_line() as line:
        profiles = partial(read_profiles, SubscriberStore(line.engine))
        rows = LiveRows(line.lake, OnlineStore(line.redis), profiles)
        rows.redo_gone()  # what a tidying that was killed left undone
        done = line.lake.tidy(oldest)
        if done.gone:
            rows.redo_gone()
        oldest_record = datetime.now(UTC) - timedelta(days=decisions) if decisions else None
        forgotten = forget(line.lake, SubscriberStore(line.engine).known, oldest_record)
    changed = sum(map(len, done.gone.values()))
    terminal.summary(
        "Tidied",
        {
            "files_before": done.files_before,
            "files": done.files,
            "events": done.events,
            "expired": dict(done.expired),
            "users_changed": changed,
            "decisions": asdict(forgotten),
        },
    )


def _age(text: str) -> tuple[str, timedelta]:
    kind, _, days = text.partition("=")
    if not kind or not days.isdecimal() or int(days) > LONGEST_DAYS:
        raise InputError(
            f"--keep {text} says no type and days.",
            f"Days are a whole number up to {LONGEST_DAYS:,}.",
            "Write for example --keep open=90 --keep view=365.",
        )
    return kind, timedelta(days=int(days))


def verify_rows(terminal: Terminal, as_of: datetime, sample: int | None) -> None:
    """Online features beside those of the lake; ends with 1 when they differ."""
    from reco.features.online import OnlineStore
    from reco.features.verify import verify
    from reco.line import open_line
    from reco.subscribers.store import SubscriberStore

    with open_line() as line, terminal.progress() as progress:
        online, store = OnlineStore(line.redis), SubscriberStore(line.engine)
        found = verify(line.lake, online, store, as_of, sample=sample, progress=progress)
    # By hand: `asdict` takes a Counter apart.
    said = {name: getattr(found, name) for name in ("compared", "pending", "differing", "largest")}
    examples = [asdict(one) for one in found.examples]
    said |= {"features": dict(found.features), "examples": examples}
    terminal.summary("Online against offline", said)
    if found.differing or found.features:
        sys.exit(1)
