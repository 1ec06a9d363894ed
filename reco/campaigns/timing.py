"""When a campaign may send, and how much in a day."""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, model_validator

from reco.campaigns.typed import Strict, Time


def _known_zone(name: str) -> str:
    if _zone(name) is None:
        raise ValueError("expected a time zone such as Europe/Berlin")
    return name


Zone = Annotated[str, AfterValidator(_known_zone)]


class Window(Strict):
    """When a campaign may send; behind schedule it takes cheaper rungs, at the end it stops."""

    start_at: Time | None = Field(None, description="started before, it waits until then")
    deadline_at: Time | None = None
    duration_s: float | None = Field(None, gt=0, description="from the real start")

    def opens_in(self, now: datetime) -> float:
        """Seconds until `start_at`; 0 from then on."""
        return max(0.0, (self.start_at - now).total_seconds()) if self.start_at else 0.0

    def closes_at(self, started_at: datetime) -> datetime | None:
        """The time after which nothing more is sent; None when open-ended."""
        ends = [self.deadline_at] if self.deadline_at else []
        if self.duration_s is not None:
            ends.append(started_at + timedelta(seconds=self.duration_s))
        return min(ends, default=None)


class MessageCap(Strict):
    """At most `times` mails in `days` to one subscriber, from all campaigns together."""

    times: int = Field(gt=0)
    days: int = Field(gt=0, le=366)


class QuietHours(Strict):
    """Nobody is written to between these times of their own day; the mail waits until they end."""

    starts: time
    ends: time
    timezone: Zone = Field("UTC", description="of those of whom none is known")

    @model_validator(mode="after")
    def _differ(self) -> "QuietHours":
        if self.starts == self.ends:
            raise ValueError("starts and ends are the same time")
        return self

    def until(self, now: datetime, zone: str = "") -> datetime | None:
        """When the quiet hours end (UTC) for somebody in a time zone; None outside of them."""
        there = now.astimezone(_zone(zone) or _zone(self.timezone))
        clock = there.replace(tzinfo=None).time()
        over_night = self.starts > self.ends
        quiet = (
            clock >= self.starts or clock < self.ends
            if over_night
            else self.starts <= clock < self.ends
        )
        if not quiet:
            return None
        day = there.date() + timedelta(days=over_night and clock >= self.starts)
        # In autumn an hour comes twice: `fold` says in which of the two they are.
        ends = self.ends.replace(fold=there.fold)
        return datetime.combine(day, ends, there.tzinfo).astimezone(UTC)


@lru_cache(maxsize=1_024)
def _zone(name: str) -> ZoneInfo | None:
    """A time zone; None for a name that is none: profiles hold what people typed."""
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


class Trigger(Strict):
    """Starts the mail of one subscriber by what they did, as long as the campaign runs."""

    event: str = Field(min_length=1, description="type of event: signup, cart, ...")
    after_s: float = Field(0, ge=0, description="waits so long after it")
    unless: tuple[str, ...] = Field((), description="types of events that call the mail off")
    within_s: float = Field(3_600, gt=0, description="an event that comes later starts nothing")
    once_every_days: int | None = Field(
        None, gt=0, description="for one subscriber; by default once for ever"
    )


class WarmUp(Strict):
    """A new sending domain: so many mails a day at most, from all campaigns together."""

    starts_on: date
    per_day: tuple[int, ...] = Field(
        (200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 75_000), min_length=1
    )
