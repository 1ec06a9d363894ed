"""The commands of the stream: run it, replay what it refused, and compare what it made."""

import sys
from datetime import datetime

import click

from reco.command import command
from reco.terminal import Terminal


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


def verify_rows(terminal: Terminal, as_of: datetime, sample: int | None) -> None:
    """Online features beside those of the lake; ends with 1 when they differ."""
    from reco.features.online import OnlineStore
    from reco.features.verify import verify
    from reco.line import open_line
    from reco.subscribers.store import SubscriberStore

    with open_line() as line, terminal.progress() as progress:
        online, store = OnlineStore(line.redis), SubscriberStore(line.engine)
        found = verify(line.lake, online, store, as_of, sample=sample, progress=progress)
    terminal.summary("Online against offline", found)
    if found.differing or found.features:
        sys.exit(1)
