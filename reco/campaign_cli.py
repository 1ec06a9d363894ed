"""The commands around one campaign: check, send, watch, stop, preview, report."""

import sys
from pathlib import Path

import click

from reco.command import FILE, OUT, command
from reco.terminal import Terminal


@click.group()
def campaign() -> None:
    """Check, send, watch and stop campaigns."""


@command("check", campaign)
@click.argument("file", type=FILE)
def check(terminal: Terminal, file: Path) -> None:
    """Everything but the sending, over the whole audience; fails beyond the campaign's limits."""
    from reco.campaigns.campaign import load
    from reco.campaigns.sender_domain import SenderDomain
    from reco.line import open_line
    from serve.app_args import AppArgs
    from serve.campaign import check
    from serve.letterhead import try_template
    from serve.running import application

    wanted = load(file)
    try_template(wanted)  # before anything is started
    with (
        open_line(ray=True) as line,
        application(AppArgs(home=line.services.home)),
        terminal.progress() as progress,
    ):
        sender = SenderDomain() if line.services.outbox is None else None
        preflight = check(wanted, line.services, progress=progress, sender=sender)
    terminal.summary(f"Campaign {wanted.id}, checked", preflight)
    if preflight.problems:
        sys.exit(1)


@command("send", campaign)
@click.argument("file", type=FILE)
def send(terminal: Terminal, file: Path) -> None:
    """Send a campaign, or go on with one that was stopped. Its limits are not checked here."""
    from reco.campaigns.campaign import load
    from reco.line import open_line
    from serve.app_args import AppArgs
    from serve.campaign import run
    from serve.letterhead import try_template
    from serve.running import application

    wanted = load(file)
    try_template(wanted)  # before anything is started
    with (
        open_line(ray=True) as line,
        application(AppArgs(home=line.services.home)),
        terminal.progress() as progress,
    ):
        summary = run(wanted, line.services, progress=progress)
    terminal.summary(f"Campaign {wanted.id}", summary)


@command("status", campaign)
@click.argument("campaign_id")
def status(terminal: Terminal, campaign_id: str) -> None:
    """State of a campaign, and of its deliveries."""
    from reco.campaigns.ledger import Ledger
    from reco.campaigns.store import CampaignStore
    from reco.line import open_line

    with open_line() as line, Ledger(line.services.database_url) as ledger:
        stored = CampaignStore(line.engine).get(campaign_id)
        facts = {"state": stored.state.value, "note": stored.note, "started": stored.started_at}
        terminal.summary(f"Campaign {campaign_id}", facts | ledger.counts(campaign_id))


@command("pause", campaign)
@click.argument("campaign_id")
@click.option("--note", default="paused by hand", show_default=True)
def pause(terminal: Terminal, campaign_id: str, note: str) -> None:
    """Let a running campaign stop: what is under way is settled, the rest waits."""
    from reco.campaigns.store import CampaignState, CampaignStore
    from reco.line import open_line

    with open_line() as line:
        stored = CampaignStore(line.engine).move(campaign_id, CampaignState.PAUSED, note)
    terminal.summary(f"Campaign {campaign_id}", {"state": stored.state.value, "note": note})


@command("cancel", campaign)
@click.argument("campaign_id")
@click.option("--note", default="cancelled by hand", show_default=True)
def cancel(terminal: Terminal, campaign_id: str, note: str) -> None:
    """End a campaign for good: what is under way is settled, whoever still waits gets no mail."""
    from reco.campaigns.cancelling import cancel
    from reco.campaigns.ledger import Ledger
    from reco.campaigns.store import CampaignStore
    from reco.line import open_line

    with open_line() as line, Ledger(line.services.database_url) as ledger:
        stored = cancel(CampaignStore(line.engine), ledger, campaign_id, note)
        facts = {"state": stored.state.value, "note": note}
        terminal.summary(f"Campaign {campaign_id}", facts | ledger.counts(campaign_id))


@command("resume", campaign)
@click.argument("campaign_id")
def resume(terminal: Terminal, campaign_id: str) -> None:
    """Go on with a paused campaign, until it is done; one that never ran is a draft again."""
    from reco.campaigns.store import CampaignStore
    from reco.line import open_line
    from serve.app_args import AppArgs
    from serve.campaign import run
    from serve.pausing import pausing
    from serve.running import application

    with open_line(ray=True) as line, terminal.progress() as progress:
        store = CampaignStore(line.engine)
        resumed = store.resume(campaign_id)
        if not resumed.goes_on:
            terminal.summary(f"Campaign {campaign_id}", {"state": resumed.state.value})
            return
        with pausing(store, campaign_id), application(AppArgs(home=line.services.home)):
            summary = run(resumed.campaign, line.services, progress=progress)
    terminal.summary(f"Campaign {campaign_id}", summary)


@command("preview")
@click.argument("file", required=False, type=FILE)
@click.option("--user", "user_id")
@click.option("--delivery", metavar="ID", help="One that was sent: Message-ID or CAMPAIGN/USER.")
@click.option("--arm", help="Instead of the arm that the user is in.")
@click.option("--out", type=OUT, default=Path("preview.html"), show_default=True)
def preview(
    terminal: Terminal,
    file: Path | None,
    user_id: str | None,
    delivery: str | None,
    arm: str | None,
    out: Path,
) -> None:
    """HTML, text and decisions of one mail: FILE and --user, or --delivery for one that was sent.

    What was sent is made again byte for byte. Nothing is sent or counted.
    """
    if delivery is not None:
        from reco.line import open_line
        from serve.replay import write_replay

        with open_line() as line:
            replay = write_replay(delivery, line.services, line.lake, line.engine, out)
        terminal.summary(f"Delivery {delivery}", replay)
        return
    if file is None or user_id is None:
        raise click.UsageError("Give FILE and --user, or --delivery.")
    from reco.campaigns.campaign import load
    from reco.line import open_line
    from serve.app_args import AppArgs
    from serve.letterhead import try_template
    from serve.preview import write_preview
    from serve.running import application

    wanted = load(file)
    try_template(wanted)  # before anything is started
    with open_line(ray=True) as line, application(AppArgs(home=line.services.home)):
        mail = write_preview(wanted, user_id, arm, line.services, out)
    terminal.summary(f"Preview for {user_id}", mail)


@command("report")
@click.argument("campaign_id")
@click.option("--out", type=OUT, help="One self-contained HTML file.")
@click.option("--days", default=28, show_default=True, type=click.IntRange(1, 366))
@click.option("--bands", type=FILE, help="Instead of the defaults in configs/alerts/bands.yaml.")
@click.option("--weights", help="Of a plain file: a=1,b=4 checks its split.")
def report(
    terminal: Terminal,
    campaign_id: str,
    out: Path | None,
    days: int,
    bands: Path | None,
    weights: str | None,
) -> None:
    """A/B with intervals, revenue per mail, coverage, latency: a campaign, or a plain file."""
    from reco.outcomes.bands import read_bands
    from reco.outcomes.page import headlines
    from reco.outcomes.report import read_experiment, read_weights, to_html, to_json

    if Path(campaign_id).is_file():
        found = read_experiment(Path(campaign_id), weights=read_weights(weights))
    else:
        from reco.line import open_line
        from reco.outcomes.gather import campaign_report

        with open_line() as line:
            url = line.services.database_url
            limits = read_bands(bands)
            found = campaign_report(
                campaign_id, line.lake, line.engine, url, days=days, bands=limits
            )
    if out:
        out.write_text(to_html(found))
    facts = {"findings": headlines(found), "cautions": found.cautions, "page": out}
    terminal.document(to_json(found), f"Report on {found.title}", facts)


@command("monitoring")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default="configs")
@click.option("--bands", type=FILE, help="Default: alerts/bands.yaml of the directory, if there.")
def monitoring(terminal: Terminal, directory: Path, bands: Path | None) -> None:
    """Grafana dashboard and Prometheus alert rules, from the bands and the metrics exported."""
    from reco.outcomes.bands import read_bands
    from serve.monitoring import write

    own = directory / "alerts" / "bands.yaml"
    files = write(read_bands(bands or (own if own.is_file() else None)), directory)
    terminal.summary("Monitoring is written", {"files": [str(file) for file in files]})
