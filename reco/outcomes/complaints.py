"""How many readers called our mails spam lately: what Gmail and Yahoo hold a sender to."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl
from sqlalchemy import func, select
from sqlalchemy.engine import Engine

from reco.database import DELIVERIES
from reco.events.lake import Lake

DAYS: Final = 30
FEWEST: Final = 3  # fewer may be chance in a small shop


@dataclass(frozen=True, slots=True)
class Complaints:
    """Complaints about the mails that were accepted in the last DAYS, of all campaigns."""

    complaints: int
    mails: int

    @property
    def share(self) -> float:
        """Of the mails; 0 without any."""
        return self.complaints / self.mails if self.mails else 0.0

    def exceed(self, limit: float) -> bool:
        """Whether they are more than the limit allows, and not by chance."""
        return self.complaints >= FEWEST and self.share > limit


def complaints_lately(engine: Engine, lake: Lake, now: datetime | None = None) -> Complaints:
    """Complaints of the last DAYS before `now`; each mail counts once."""
    since = (now or datetime.now(UTC)) - timedelta(days=DAYS)
    c = DELIVERIES.c
    query = select(func.count()).where(c.state == "accepted", c.settled_at >= since)
    with engine.connect() as connection:
        mails: int = connection.execute(query).scalar_one()
    found = (
        lake.events(columns=["type", "timestamp", "campaign_id", "delivery_id", "user_id"])
        .filter((pl.col("type") == "complaint") & (pl.col("timestamp") >= since))
        .select("campaign_id", "delivery_id", "user_id")
        .unique()
    )
    return Complaints(len(found.collect()), mails)
