"""Whose events teach nothing: of an address known to be invalid at the time, and of programs.

Takes the database and the lake, gives what the examples leave out. Withdrawn consent to profiling
needs no list: histories of such subscribers are empty (features.history).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import polars as pl
from sqlalchemy.engine import Engine

from reco.campaigns.ledger import Ledger
from reco.campaigns.store import CampaignStore
from reco.events.lake import Lake
from reco.outcomes.bots import judge, touches
from reco.subscribers.invalid import SINCE, invalid_since, without_invalid
from reco.subscribers.store import SubscriberStore
from reco.subscribers.suppression import SuppressionList

PAGE: Final = 5_000
PROGRAMS: Final = pl.Schema({"event_id": pl.String()})


@dataclass(frozen=True, slots=True)
class Hygiene:
    """What is left out.

    invalid   rows user_id, since: addresses known to be invalid from a time on
    programs  rows event_id: clicks and opens that a program made, not a reader
    """

    invalid: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SINCE))
    programs: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PROGRAMS))

    @classmethod
    def of(cls, lake: Lake, engine: Engine, database_url: str, key: bytes) -> "Hygiene":
        """As of now; `key` is the secret of the suppression list."""
        store, listed = SubscriberStore(engine), SuppressionList(engine, key)
        found = [invalid_since(store, listed, page) for page in pages(store, PAGE)]
        invalid = pl.concat(found) if found else pl.DataFrame(schema=SINCE)
        names = [c.campaign.id for c in CampaignStore(engine).all()]
        with Ledger(database_url) as ledger:
            mailed = [
                ledger.rows(name).with_columns(pl.lit(name).alias("campaign_id")) for name in names
            ]
        return cls(invalid, programs(lake.events(), mailed))

    def cleaned(self, events: pl.DataFrame) -> pl.DataFrame:
        """The events that may be learned from, in their order."""
        kept = without_invalid(events.lazy(), self.invalid)
        if len(self.programs):
            kept = kept.join(self.programs.lazy(), on="event_id", how="anti", maintain_order="left")
        return kept.collect()


def programs(events: pl.LazyFrame, mailed: list[pl.DataFrame]) -> pl.DataFrame:
    """PROGRAMS among the events; `mailed` holds the ledger's rows of each campaign."""
    found = [judge(touches(events, deliveries)) for deliveries in mailed if len(deliveries)]
    machines = [rows.filter(~pl.col("human")).select("event_id") for rows in found]
    return pl.concat(machines).unique() if machines else pl.DataFrame(schema=PROGRAMS)


def pages(store: SubscriberStore, size: int) -> Iterator[list[str]]:
    """All subscribers in order, some at a time."""
    page = store.ids(limit=size)
    while page:
        yield page
        page = store.ids(after=page[-1], limit=size)
