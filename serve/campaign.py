"""Runs a campaign: audience into the ledger, senders at work, until nothing is left to send.

Takes a Campaign and the services; needs a Ray cluster in which the application runs. Can be killed
anywhere and run again: the ledger knows what was sent.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from reco.campaigns.campaign import Campaign
from reco.campaigns.cancelling import REASON
from reco.campaigns.delivery import State
from reco.campaigns.ledger import LEASE_S, Ledger
from reco.campaigns.starting import start
from reco.campaigns.store import CampaignState, CampaignStore
from reco.database import open_database
from reco.embedded import Services, connect_redis
from reco.errors import Conflict
from reco.events.lake import Lake
from reco.outcomes.bands import Bands
from reco.outcomes.copy_learning import learned
from reco.outcomes.copy_log import CopyLog
from reco.outcomes.watch import Watch
from reco.subscribers.store import SubscriberStore
from serve.audience import enqueue
from serve.check import check
from serve.crew import Crew
from serve.graph import Graph
from serve.latency import Latency, table_name
from serve.letterhead import try_template
from serve.past import Past
from serve.pausing import pausing
from serve.schedule import Schedule
from serve.senders import SenderOrder

__all__ = ["CampaignSummary", "check", "run"]

log = structlog.get_logger()

Progress = Callable[[str, int, int], None]

POLL_S: Final = 0.3
IDLE_POLL_S: Final = 2.0  # of a campaign that waits for events; its senders look more often
RECOVER_S: Final = 2.0
COUNTS_REST: Final = 20  # times as long as counting took, which grows with the audience
SENDERS: Final = 2
SOON: Final = timedelta(minutes=2)  # a deferred mail due by then is waited for
OPEN: Final = (State.QUEUED, State.CLAIMED, State.HANDING_OFF)


@dataclass(frozen=True, slots=True)
class CampaignSummary:
    """How a run ended. audience = accepted + suppressed + failed + uncertain + deferred + open.

    open is 0 unless the campaign was paused; latency holds p50 and p95 of a chunk by stage.
    nodes has the mails that left from each node of the cluster in this run.
    """

    campaign_id: str
    state: str
    audience: int
    accepted: int
    suppressed: int
    failed: int
    uncertain: int
    deferred: int
    open: int
    took_s: float
    mails_per_s: float
    latency: list[Latency]
    note: str = ""
    nodes: dict[str, int] = field(default_factory=dict)  # mails that left from each node

    @property
    def ledger(self) -> dict[str, int]:
        """Deliveries by state."""
        states = ("accepted", "suppressed", "failed", "uncertain", "deferred", "open")
        return {state: getattr(self, state) for state in states}


def run(
    campaign: Campaign,
    services: Services,
    *,
    senders: int = SENDERS,
    progress: Progress | None = None,
    lease_s: float = LEASE_S,
    scorer_budget_s: float = 15.0,
    bands: Bands | None = None,
    resume: bool = True,
) -> CampaignSummary:
    """Send a campaign, or go on with one that was stopped; returns when nothing is left to do.

    When deferred mails are due later only, it is paused, and its note says when to resume it.
    Without `resume`, one that is paused stays so.

    Raises NotFound or TemplateError for the template, ConfigError for a replay of a time before
    features or champion, Conflict when another campaign has the id or this one is cancelled or
    stays paused, ServiceUnavailable when a store or the relay is gone: whatever goes wrong after
    the start pauses the campaign, with the reason as its note. Harm surely above `bands` pauses it
    too.
    """
    try_template(campaign)
    Past(connect_redis(services.redis_url)).check(campaign.as_of)
    Graph.of_app(scorer_budget_s)
    engine = open_database(services.database_url)
    try:
        with Ledger(services.database_url) as ledger:
            store = CampaignStore(engine)
            started_at = start(store, campaign, resume=resume)
            with pausing(store, campaign.id):
                lake = Lake(services.lake)
                senders = senders if campaign.trigger is None else 1
                order = SenderOrder(
                    home=str(services.home),
                    smtp_url=services.smtp_url,
                    spec=learned(campaign, CopyLog(engine), lake).model_dump_json().encode(),
                    scorer_budget_s=scorer_budget_s,
                    rate_per_s=campaign.rate_per_s / senders if campaign.rate_per_s else None,
                    lease_s=lease_s,
                    closes_at=campaign.window.closes_at(started_at),
                )
                subscribers = SubscriberStore(engine)
                crew = Crew(order, senders)
                watch = Watch(campaign, started_at, engine, lake, bands or Bands())
                engine_run = Run(campaign, ledger, store, subscribers, crew, watch, progress)
                summary = engine_run.until_done(started_at)
                lake.write_table(table_name(campaign.id), crew.latencies.frame())
                return summary
    finally:
        engine.dispose()


class Run:
    """Watches one run of a campaign from start to end."""

    def __init__(
        self,
        campaign: Campaign,
        ledger: Ledger,
        store: CampaignStore,
        subscribers: SubscriberStore,
        crew: Crew,
        watch: Watch,
        progress: Progress | None,
    ) -> None:
        self._campaign = campaign
        self._ledger = ledger
        self._store = store
        self._subscribers = subscribers
        self._crew = crew
        self._harm = watch
        self._progress = progress
        self._recovered_at = 0.0

    def until_done(self, started_at: datetime) -> CampaignSummary:
        """Enqueue and watch; the campaign is finished, paused or cancelled afterwards."""
        begun = time.monotonic()
        closes_at = self._campaign.window.closes_at(started_at)
        with ThreadPoolExecutor(1) as pool:
            audience = pool.submit(self._enqueue)
            try:
                state = self._watch(audience, closes_at)
            finally:  # at once: enqueuing the rest may take minutes
                self._crew.dismiss()
        audience.result()
        if state is CampaignState.RUNNING:
            state = self._end()
        if state is CampaignState.CANCELLED:  # what was enqueued or put back meanwhile
            self._ledger.stop(self._campaign.id, REASON)
        return self._summary(state, time.monotonic() - begun)

    def _enqueue(self) -> int:
        """The audience into the ledger; where events start the mails, the stream does it."""
        if self._campaign.trigger is not None:
            return 0
        return enqueue(self._campaign, self._subscribers, self._ledger)

    def _goes_on(self, closes_at: datetime | None) -> bool:
        """Whether events may start mails yet."""
        if self._campaign.trigger is None:
            return False
        return closes_at is None or datetime.now(UTC) < closes_at

    def _watch(self, audience: "Future[int]", closes_at: datetime | None) -> CampaignState:
        """Poll until nothing is left, or until the campaign is no longer running."""
        # A rate of its own is not made up for by cheaper picks.
        schedule = Schedule(closes_at if self._campaign.rate_per_s is None else None)
        while True:
            self._crew.watch()
            self._crew.collect()
            enqueued = audience.done()
            looked = time.monotonic()
            counts = self._ledger.counts(self._campaign.id)
            count_s = time.monotonic() - looked
            self._report(counts)
            sent = enqueued and audience.result() >= 0 and not any(counts[s.value] for s in OPEN)
            if sent and not self._goes_on(closes_at) and not self._retries_soon(closes_at):
                return CampaignState.RUNNING
            state = self._store.get(self._campaign.id).state
            if state is not CampaignState.RUNNING:
                return state
            if trouble := self._harm.trouble():
                log.warning("the campaign pauses by itself", why=trouble)
                self._move(CampaignState.PAUSED, trouble)
            if closes_at is not None and datetime.now(UTC) >= closes_at:
                self._close()
            elif enqueued:
                left = sum(counts[state.value] for state in OPEN)
                done = sum(counts.values()) - left
                self._crew.hurry(schedule.behind(done, left, datetime.now(UTC)))
            self._recover()
            poll_s = POLL_S if self._campaign.trigger is None else IDLE_POLL_S
            time.sleep(max(poll_s, COUNTS_REST * count_s))

    def _move(self, to: CampaignState, note: str | None = None) -> CampaignState:
        """Change the state, unless an operator or another driver was faster."""
        try:
            return self._store.move(self._campaign.id, to, note).state
        except Conflict:
            return self._store.get(self._campaign.id).state

    def _close(self) -> None:
        """The window is over: whoever still waits gets no mail."""
        self._ledger.stop(self._campaign.id, "deadline")

    def _retries_soon(self, closes_at: datetime | None) -> bool:
        """Whether to wait for deferred mails; those due after the window get no mail."""
        due = self._ledger.next_due(self._campaign.id)
        if due is not None and closes_at is not None and due >= closes_at:
            self._close()
            return False
        soon = timedelta(days=1) if self._campaign.quiet_hours is not None else SOON
        return due is not None and due <= datetime.now(UTC) + soon

    def _end(self) -> CampaignState:
        """Finished; or paused, when deferred mails are due later."""
        due = self._ledger.next_due(self._campaign.id)
        if due is None:
            return self._move(CampaignState.FINISHED)
        waiting = self._ledger.counts(self._campaign.id)[State.DEFERRED]
        again = f"reco campaign resume {self._campaign.id}"
        return self._move(
            CampaignState.PAUSED, f"{waiting} wait until {due:%Y-%m-%d %H:%M} UTC: {again}"
        )

    def _recover(self) -> None:
        if time.monotonic() - self._recovered_at >= RECOVER_S:
            self._recovered_at = time.monotonic()
            found = self._ledger.recover(self._campaign.id)
            if found.requeued or found.uncertain:
                log.warning("recovered", requeued=found.requeued, uncertain=found.uncertain)

    def _report(self, counts: dict[str, int]) -> None:
        if self._progress is not None:
            total = sum(counts.values())
            self._progress("send", total - sum(counts[state.value] for state in OPEN), total)

    def _summary(self, state: CampaignState, took_s: float) -> CampaignSummary:
        counts = self._ledger.counts(self._campaign.id)
        return CampaignSummary(
            campaign_id=self._campaign.id,
            state=state.value,
            audience=sum(counts.values()),
            accepted=counts[State.ACCEPTED],
            suppressed=counts[State.SUPPRESSED],
            failed=counts[State.FAILED],
            uncertain=counts[State.UNCERTAIN],
            deferred=counts[State.DEFERRED],
            open=sum(counts[open_.value] for open_ in OPEN),
            took_s=round(took_s, 3),
            mails_per_s=round(counts[State.ACCEPTED] / max(took_s, 1e-9), 1),
            latency=self._crew.latencies.stages(),
            nodes=dict(self._crew.by_node),
            note=self._store.get(self._campaign.id).note or "",
        )
