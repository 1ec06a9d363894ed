"""When a campaign may send, and how much in a day."""

from datetime import UTC, date, datetime, timedelta

from pydantic import Field

from reco.campaigns.typed import Strict, Time
from reco.errors import ConfigError


class Window(Strict):
    """When a campaign may send; behind schedule it takes cheaper rungs, at the end it stops."""

    start_at: Time | None = Field(None, description="refused before; nothing starts by itself")
    deadline_at: Time | None = None
    duration_s: float | None = Field(None, gt=0, description="from the real start")

    def check_open(self, now: datetime) -> None:
        """Raises ConfigError before `start_at`."""
        if self.start_at is not None and now < self.start_at:
            raise ConfigError(
                f"The campaign starts at {self.start_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC.",
                f"It is {now.astimezone(UTC):%Y-%m-%d %H:%M} UTC.",
                "Run it then, or leave window.start_at out.",
            )

    def closes_at(self, started_at: datetime) -> datetime | None:
        """The time after which nothing more is sent; None when open-ended."""
        ends = [self.deadline_at] if self.deadline_at else []
        if self.duration_s is not None:
            ends.append(started_at + timedelta(seconds=self.duration_s))
        return min(ends, default=None)


class WarmUp(Strict):
    """A new sending domain: so many mails a day at most, from all campaigns together."""

    starts_on: date
    per_day: tuple[int, ...] = Field(
        (200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 75_000), min_length=1
    )
