"""Campaigns by event: a signup or a forgotten cart puts a mail for that subscriber into the ledger.

Takes the events of the stream as they come; the senders of a running campaign do the rest, with
every check that any mail goes through. The id of the delivery is made of subscriber and period, so
an event that comes again, from a bus or after a kill, starts nothing twice.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import polars as pl
import structlog
from pydantic import ValidationError
from sqlalchemy import select, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from reco.campaigns.campaign import Campaign
from reco.campaigns.delivery import delivery_id
from reco.campaigns.store import CampaignState
from reco.campaigns.timing import Trigger
from reco.database import CAMPAIGNS
from reco.errors import ConfigError, RecoError, ServiceUnavailable
from reco.subscribers.store import SubscriberStore
from serve.audience import assigned_arms, matching

log = structlog.get_logger()

DAY_S: Final = 86_400
OPEN: Final = (CampaignState.RUNNING, CampaignState.PAUSED)  # events wait while it is paused

LATE: Final = timedelta(minutes=10)  # so long an event may come behind one that calls its mail off
# Whoever had one in the period before may have to wait, though this period has none yet. A mail
# that was called off was none: what happens after that (settled_at) starts it anew.
ENQUEUE: Final = text("""
    insert into deliveries as d (campaign_id, user_id, arm, state, next_at)
    select cast(:campaign as text), x.delivery, x.arm, 'deferred', x.due
    from unnest(cast(:deliveries as text[]), cast(:earlier as text[]), cast(:arms as text[]),
        cast(:times as timestamptz[]), cast(:dues as timestamptz[]), cast(:sinces as timestamptz[]))
        as x (delivery, earlier, arm, at, due, since)
    where not exists (
        select from deliveries d
        where d.campaign_id = :campaign and d.user_id in (x.delivery, x.earlier)
            and (d.user_id = x.delivery or d.queued_at > x.since)
            and not (d.state = 'suppressed' and d.reply = :called_off and d.settled_at < x.at)
    )
    on conflict (campaign_id, user_id) do update
    set state = 'deferred', next_at = excluded.next_at, queued_at = now(), attempts = 0,
        reply = null, settled_at = null
    where d.state = 'suppressed' and d.reply = :called_off
""")
CALL_OFF: Final = text("""
    update deliveries d
    set state = 'suppressed', reply = :called_off, next_at = null, settled_at = x.at
    from unnest(cast(:deliveries as text[]), cast(:times as timestamptz[])) as x (delivery, at)
    where d.campaign_id = :campaign and d.user_id = x.delivery
        and d.state in ('queued', 'deferred')
        and (d.queued_at <= x.at or d.next_at - make_interval(secs => :after_s) <= x.at)
""")


class Triggers:
    """Starts mails by events. One thread, one process a bucket of the bus: the stream's."""

    def __init__(
        self, engine: Engine, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._engine = engine
        self._subscribers = SubscriberStore(engine)
        self._clock = clock
        self._lately: dict[str, dict[str, datetime]] = {}

    def record(self, events: pl.DataFrame) -> int:
        """Take events (tables.EVENTS) in; gives how many mails they started.

        Events that were taken before, and those too old to be answered, start none.
        Raises ServiceUnavailable: take them again then.
        """
        try:
            return sum(self._taken(campaign, events) for campaign in self._open())
        except OperationalError as error:
            why = str(error.orig).strip().splitlines()[0]
            raise ServiceUnavailable("Events cannot start mails.", why) from error

    def _open(self) -> list[Campaign]:
        """Asked for every batch: an event that nobody waits for is not looked at again."""
        c = CAMPAIGNS.c
        query = select(c.config).where(
            c.state.in_([state.value for state in OPEN]), c.config["trigger"].astext.is_not(None)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).scalars().all()
        return [found for row in rows if (found := _readable(row)) is not None]

    def _taken(self, campaign: Campaign, events: pl.DataFrame) -> int:
        try:
            return self._take(campaign, events)
        except ConfigError as error:  # of one campaign: its file of users is gone
            log.error("a campaign cannot take events", campaign=campaign.id, why=str(error))
            return 0

    def _take(self, campaign: Campaign, events: pl.DataFrame) -> int:
        trigger = campaign.trigger
        assert trigger is not None  # those without one are not read
        since = self._clock() - timedelta(seconds=trigger.within_s)
        ours = events.filter(pl.col("type") == trigger.event, pl.col("timestamp") > since)
        against = events.filter(pl.col("type").is_in(trigger.unless), pl.col("timestamp") > since)
        new = _by_user(against, last=True)
        last = self._remembered(campaign.id, new)
        last = {user: last[user] for user in last.keys() & {*new, *ours["user_id"]}}
        started = self._enqueue(campaign, trigger, _by_user(ours))
        if last:
            self._call_off(campaign, trigger, last)
            pairs = ours.select("user_id", "timestamp").iter_rows()
            after = ours.filter([user in last and at > last[user] for user, at in pairs])
            started += self._enqueue(campaign, trigger, _by_user(after))
        if started:
            log.info("mails start by event", campaign=campaign.id, mails=started)
        return started

    def _remembered(self, campaign_id: str, new: dict[str, datetime]) -> dict[str, datetime]:
        """When each subscriber last did what calls a mail off, `new` included, LATE at most."""
        known, oldest = self._lately.get(campaign_id, {}), self._clock() - LATE
        last = {user: at for user, at in known.items() if at > oldest}
        last |= {user: max(at, last.get(user, at)) for user, at in new.items()}
        self._lately[campaign_id] = last
        return last

    def _enqueue(self, campaign: Campaign, trigger: Trigger, found: dict[str, datetime]) -> int:
        users = self._meant(campaign, list(found)) if found else []
        if not users:
            return 0
        times = [found[user] for user in users]
        wait = timedelta(seconds=trigger.after_s)
        apart = timedelta(days=trigger.once_every_days or 0)
        values = {
            "campaign": campaign.id,
            "deliveries": [_delivery(trigger, u, at) for u, at in zip(users, times, strict=True)],
            "earlier": [
                _delivery(trigger, u, at - apart) for u, at in zip(users, times, strict=True)
            ],
            "arms": assigned_arms(campaign, users),
            "times": times,
            "dues": [at + wait for at in times],
            "sinces": [at - apart for at in times],
            "called_off": _called_off(trigger),
        }
        return self._run(ENQUEUE, values)

    def _call_off(self, campaign: Campaign, trigger: Trigger, found: dict[str, datetime]) -> None:
        apart = timedelta(days=trigger.once_every_days or 0)
        pairs = {
            _delivery(trigger, user, when): at
            for user, at in found.items()
            for when in (at, at - apart)
        }
        values = {
            "campaign": campaign.id,
            "deliveries": list(pairs),
            "times": list(pairs.values()),
            "called_off": _called_off(trigger),
            "after_s": trigger.after_s,
        }
        self._run(CALL_OFF, values)

    def _run(self, statement: Any, values: dict[str, Any]) -> int:
        with self._engine.begin() as connection:
            return connection.execute(statement, values).rowcount

    def _meant(self, campaign: Campaign, users: list[str]) -> list[str]:
        """Those whom the campaign is for."""
        named = campaign.audience.user_ids()
        if named is not None:
            users = sorted(set(users) & set(named))
        if users and campaign.audience.where:
            users = matching(campaign, self._subscribers, users)
        return users


def _readable(config: dict[str, Any]) -> Campaign | None:
    """A stored campaign; None when it can no longer be read, which must not stop the stream."""
    try:
        return Campaign.model_validate(config)
    except (ValidationError, RecoError) as error:
        log.error("a campaign by event cannot be read", campaign=config.get("id"), why=str(error))
        return None


def _by_user(events: pl.DataFrame, *, last: bool = False) -> dict[str, datetime]:
    """When each subscriber did it first, or last."""
    at = pl.col("timestamp").max() if last else pl.col("timestamp").min()
    return dict(events.group_by("user_id").agg(at).sort("user_id").iter_rows())


def _called_off(trigger: Trigger) -> str:
    return f"unless: {', '.join(trigger.unless)}"


def _delivery(trigger: Trigger, user_id: str, at: datetime) -> str:
    """Id of the delivery: once for ever, or once in each period of days."""
    if trigger.once_every_days is None:
        return user_id
    period = int(at.timestamp()) // (trigger.once_every_days * DAY_S)
    return delivery_id(user_id, f"{trigger.event}-{period}")
