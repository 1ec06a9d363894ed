"""The commands around mail as such: addresses, bounces, templates."""

import sys
from pathlib import Path

import click

from reco.command import FILE, OUT, command
from reco.terminal import Terminal


@command("bounces")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C.")
def bounces(terminal: Terminal, folder: Path, watch: bool) -> None:
    """Take what came back into a Maildir: bounces, complaints, unsubscriptions by mail."""
    from reco.events.bus import open_bus
    from reco.line import open_line
    from reco.outcomes.maildir import take_new
    from reco.outcomes.maildir import watch as go_on
    from reco.outcomes.returned import ReturnedMail
    from reco.subscribers.suppression import SuppressionList
    from render.links import LinkSigner
    from serve.inbound import Leaving

    with open_line() as line:
        returned = ReturnedMail(
            line.engine,
            SuppressionList(line.engine, line.services.link_key),
            open_bus(line.services.bus_url, line.lake.buckets),
            Leaving(LinkSigner(line.services.link_key)),
        )
        if watch:
            go_on(folder, returned.take, lambda counts: terminal.say(str(dict(counts))))
        terminal.summary("Taken", dict(take_new(folder, returned.take)))


@click.group()
def template() -> None:
    """Templates: whether a mail made of one would arrive, and be readable."""


@command("lint", template)
@click.argument("folder", type=str)
@click.option("--campaign", "campaign_file", type=FILE, help="Whose segments and subject it has.")
def lint(terminal: Terminal, folder: str, campaign_file: Path | None) -> None:
    """Size, links, contrast, alt texts, dead branches, what mail programs do not show."""
    from reco.campaigns.campaign import load
    from render.compile import compile_template
    from render.lint import lint

    wanted = load(campaign_file) if campaign_file else None
    compiled = compile_template(folder, subject=wanted.subject if wanted else None)
    findings = lint(compiled, wanted.segment_names if wanted else None)
    by_level = {
        level: [f"{f.rule}: {f.message}" for f in findings if f.level == level]
        for level in ("error", "warning")
    }
    terminal.summary(
        f"Template {compiled.name}", {"errors": by_level["error"], "warnings": by_level["warning"]}
    )
    if by_level["error"]:
        sys.exit(1)


@click.group()
def subscribers() -> None:
    """The list: who is on it, and whether their addresses take mail."""


@command("validate", subscribers)
@click.option("--no-dns", is_flag=True, help="Syntax and words only.")
@click.option("--nameserver", metavar="HOST[:PORT]", help="Instead of the system's.")
@click.option("--keep", is_flag=True, help="Report invalid addresses, but do not suppress them.")
@click.option("--out", type=OUT, help="One row an address, CSV or Parquet.")
def validate(
    terminal: Terminal, no_dns: bool, nameserver: str | None, keep: bool, out: Path | None
) -> None:
    """Judge every address before a send; what no server would take is suppressed."""
    from reco.line import open_line
    from reco.subscribers.bulk import validate
    from reco.subscribers.mail_domains import MailDomains
    from reco.subscribers.store import SubscriberStore
    from reco.subscribers.suppression import SuppressionList
    from reco.subscribers.validation import Validator
    from reco.subscribers.verifier import HttpVerifier

    with open_line() as line, terminal.progress() as progress:
        url = line.services.verifier_url
        summary = validate(
            SubscriberStore(line.engine),
            SuppressionList(line.engine, line.services.link_key),
            Validator(
                None if no_dns else MailDomains(nameserver),
                HttpVerifier(url) if url and not no_dns else None,
            ),
            suppress=not keep,
            out=out,
            progress=progress,
        )
    terminal.summary("Addresses", summary)
