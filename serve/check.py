"""Preflight over a whole audience: the real graph makes every mail, and sends none."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

import polars as pl
import structlog

from reco.campaigns.campaign import Campaign
from reco.campaigns.preflight import MAILS, AudienceCounts, Preflight
from reco.campaigns.relay import LOOPBACK
from reco.campaigns.sender_domain import SenderDomain
from reco.catalogue import Catalogue
from reco.database import open_database
from reco.embedded import Services
from reco.events.lake import Lake
from reco.outcomes.complaints import DAYS, complaints_lately
from reco.rules.fates import Fate
from reco.rules.rules import Bools, blocked_by
from reco.subscribers.store import SubscriberStore
from reco.subscribers.suppression import SuppressionReason
from render.headers import NOT_MAILABLE
from render.lint import Finding, lint
from serve.audience import SAME_ADDRESS, Addresses, assigned_arms, pages
from serve.chunks import Assembled, Choice, Mode, Request
from serve.contact import MESSAGE_CAP
from serve.graph import Graph
from serve.letterhead import dkim_of, domain_of, renderer_of, try_template

log = structlog.get_logger()

CHUNK: Final = 256
IN_FLIGHT: Final = 3


def check(
    campaign: Campaign,
    services: Services,
    *,
    progress: Callable[[str, int, int], None] | None = None,
    scorer_budget_s: float = 15.0,
    sender: SenderDomain | None = None,
) -> Preflight:
    """What the campaign would send to everybody, and whether it may.

    `sender` asks DNS whether providers would take mail of its domain; behind a real relay.
    Needs a Ray cluster in which the application runs. Raises NotFound or TemplateError for the
    template, ConfigError for a replay of a time before features or champion, ServiceUnavailable
    when a store is gone.
    """
    try_template(campaign)
    template = renderer_of(campaign).template
    engine = open_database(services.database_url)
    try:
        subscribers = SubscriberStore(engine)
        total = subscribers.count()
        addresses = Addresses(subscribers.shared_addresses())
        chunks, sharing = _chunks(campaign, subscribers, addresses) if total else ([], 0)
        made = _Made(progress, sum(len(chunk) for chunk in chunks) + sharing)
        made.leave_out(sharing, SAME_ADDRESS)
        asyncio.run(_make(campaign, chunks, Graph.of_app(scorer_budget_s), made))
        complaints = complaints_lately(engine, Lake(services.lake))
    finally:
        engine.dispose()
    catalogue = Catalogue.of(Lake(services.lake).items())
    rules = campaign.rules
    blocked = blocked_by(catalogue, rules)
    mailable = int((~blocked & catalogue.in_stock).sum())
    preflight = Preflight.of(made.frame(), campaign, made.audience(), mailable)
    preflight = _with_lint(preflight, lint(template, campaign.segment_names))
    shown = set(made.frame()["items"].explode(empty_as_null=True).drop_nulls())
    notes = (*preflight.notes, *_sharing(sharing), *_nameless(campaign, catalogue))
    notes = (*notes, *_dead(campaign, catalogue, ~blocked & catalogue.in_stock, shown))
    cannot = [f"{n:,} mails cannot be made: {why}." for why, n in made.broken.most_common(5)]
    problems = (*preflight.problems, *cannot, *_unreachable(services))
    if complaints.exceed(campaign.limits.complaint_share):
        problems = (
            *problems,
            f"{complaints.complaints:,} of {complaints.mails:,} mails of the last {DAYS} days were "
            f"called spam ({complaints.share:.2%}); the limit is "
            f"{campaign.limits.complaint_share:.1%}.",
        )
    if sender is not None:
        signer = dkim_of(campaign, services)
        judged = sender.judge(domain_of(campaign), signer.dns_record() if signer else None)
        notes, problems = (*notes, *judged.notes), (*problems, *judged.problems)
    return replace(preflight, notes=notes, problems=problems)


def _sharing(n: int) -> Iterator[str]:
    if n:
        yield f"{n:,} have the address of another recipient, who gets the mail."


def _nameless(campaign: Campaign, catalogue: Catalogue) -> Iterator[str]:
    """What the campaign names and the catalogue does not have: often a slip of the pen."""
    rules = campaign.rules
    editorial = () if campaign.editorial == "popular" else campaign.editorial
    for what, names, column in (
        ("rules.blocked_items", rules.blocked_items, "item_id"),
        ("rules.blocked_categories", rules.blocked_categories, "category"),
        ("rules.blocked_brands", rules.blocked_brands, "brand"),
        ("rules.promoted", rules.promoted.items if rules.promoted else (), "item_id"),
        ("editorial", editorial, "item_id"),
    ):
        if unknown := sorted(set(names) - set(catalogue.frame[column])):
            yield f"{what}: the catalogue has no {', '.join(unknown)}."
    for name, values in rules.blocked_attributes:
        if unknown := sorted(set(values) - set(catalogue.attribute(name))):
            yield f"rules.blocked_attributes.{name}: the catalogue has no {', '.join(unknown)}."


def _dead(
    campaign: Campaign, catalogue: Catalogue, mailable: Bools, shown: set[str]
) -> Iterator[str]:
    """Items of the editor that nobody is shown, and items shown without a page or a price."""
    editorial = () if campaign.editorial == "popular" else campaign.editorial
    alive = set(catalogue.frame["item_id"].filter(pl.Series(mailable)))
    known = set(catalogue.frame["item_id"])
    if dead := sorted(set(editorial) & known - alive):
        yield f"editorial: {', '.join(dead)} are out of stock or blocked, and never shown."
    rows = catalogue.frame.filter(pl.col("item_id").is_in(list(shown)))
    for column, what in (("url", "page in the shop"), ("price", "price")):
        if n := rows[column].null_count():
            yield f"{n:,} of the {len(rows):,} items shown have no {what}."


def _unreachable(services: Services) -> Iterator[str]:
    """Behind a real relay, links to this machine itself would reach nobody."""
    if services.outbox is None and urlsplit(services.public_url).hostname in LOOPBACK:
        yield (
            f"Links and the unsubscribe address lead to {services.public_url}, which no recipient "
            "can open; set RECO_PUBLIC_URL."
        )


def _with_lint(preflight: Preflight, findings: Sequence[Finding]) -> Preflight:
    """Errors of the template block the send like any other problem."""
    said = {
        level: tuple(f"Template: {f.message} ({f.rule})." for f in findings if f.level == level)
        for level in ("error", "warning")
    }
    return replace(
        preflight,
        problems=(*preflight.problems, *said["error"]),
        notes=(*preflight.notes, *said["warning"]),
    )


class _Made:
    """What the graph gave, without the mails themselves."""

    def __init__(self, progress: Callable[[str, int, int], None] | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0
        self._reasons: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()  # mails that cannot be made, by the reason
        self._rows: list[tuple[object, ...]] = []

    def add(self, made: Assembled) -> None:
        """Take a chunk in."""
        rungs = made.slates.rungs.max(axis=1, initial=0).tolist()
        capped = (made.fates == Fate.CAPPED).any(axis=1).tolist()
        for i, delivery in enumerate(made.deliveries):
            size = len(made.rendered[i].html.encode())
            mail: tuple[object, ...] = (
                delivery,
                made.arms[i],
                rungs[i],
                made.item_ids[i],
                size,
                made.lacking[i],
            )
            self._rows.append((*mail, made.fallback, capped[i]))
        reasons = Counter(broken.reason for broken in made.broken)
        invalid = {reason for reason in reasons if reason.endswith(NOT_MAILABLE)}
        self._reasons[SuppressionReason.INVALID.value] += sum(reasons[why] for why in invalid)
        self.broken.update({why: n for why, n in reasons.items() if why not in invalid})
        self._reasons.update(missing.reason for missing in made.withheld)
        self._done += len(made) + len(made.withheld) + len(made.broken)
        if self._progress is not None:
            self._progress("check", self._done, self._total)

    def leave_out(self, n: int, reason: str) -> None:
        """So many get no mail, and none is made."""
        self._reasons[reason] += n
        self._done += n

    def frame(self) -> pl.DataFrame:
        """Rows of preflight.MAILS."""
        return pl.DataFrame(self._rows, schema=MAILS, orient="row")

    def audience(self) -> AudienceCounts:
        """Who gets no mail, by the reasons that the graph gave."""
        return AudienceCounts(
            total=self._total,
            no_address=self._reasons["no_address"] + self._reasons["unknown"],
            invalid_address=self._reasons[SuppressionReason.INVALID.value],
            no_consent=self._reasons["no_consent"],
            capped=self._reasons[MESSAGE_CAP],
            suppressed=self._reasons[SAME_ADDRESS]
            + sum(
                self._reasons[reason.value]
                for reason in SuppressionReason
                if reason is not SuppressionReason.INVALID
            ),
        )


def _chunks(
    campaign: Campaign, store: SubscriberStore, addresses: Addresses
) -> tuple[list[list[str]], int]:
    """The audience by the chunk, and how many are left out as others have their address."""
    chunks, left_out = [], 0
    for page in pages(campaign, store):
        others = set(addresses.others(page))
        kept = [user for user in page if user not in others]
        chunks += [kept[start : start + CHUNK] for start in range(0, len(kept), CHUNK)]
        left_out += len(others)
    return chunks, left_out


async def _make(campaign: Campaign, chunks: Sequence[list[str]], graph: Graph, made: _Made) -> None:
    spec, choice = campaign.model_dump_json().encode(), Choice.of(campaign)
    free = asyncio.Semaphore(IN_FLIGHT)

    async def one(users: list[str]) -> None:
        async with free:
            assigned = assigned_arms(campaign, users)
            made.add(await graph.assemble(Request(choice, users, assigned, Mode.CHECK, spec)))

    await asyncio.gather(*(one(chunk) for chunk in chunks))
