"""Gathers what a campaign's report is made of: its row, its ledger, latencies and purchases."""

from datetime import UTC, datetime
from typing import Final

import polars as pl
from sqlalchemy.engine import Engine

from reco.campaigns.ledger import Ledger
from reco.campaigns.store import CampaignStore
from reco.catalogue import Catalogue
from reco.errors import NotFound
from reco.events.lake import Lake
from reco.outcomes.bands import Bands
from reco.outcomes.purchases import RECIPIENT
from reco.outcomes.reactions import Reactions
from reco.outcomes.report import build
from reco.outcomes.results import Report
from reco.subscribers.store import SubscriberStore
from reco.tables import latency_table

HORIZON_DAYS: Final = 28


def campaign_report(
    campaign_id: str,
    lake: Lake,
    engine: Engine,
    database_url: str,
    *,
    days: int = HORIZON_DAYS,
    bands: Bands | None = None,
) -> Report:
    """The report as of now; one with a frozen clock in the past is a replay.

    Raises NotFound when there is no such campaign, or nothing was enqueued yet.
    """
    campaign = CampaignStore(engine).get(campaign_id).campaign
    with Ledger(database_url) as ledger:
        deliveries = ledger.rows(campaign_id)
    if deliveries.is_empty():
        raise NotFound(
            f"Campaign {campaign_id} has no recipients yet.",
            "Its audience was never put into the ledger.",
            "Run `reco campaign send FILE`, then ask again.",
        )
    followed = SubscriberStore(engine).followed(
        deliveries.select(RECIPIENT)["user_id"].unique().to_list()
    )
    return build(
        {"campaign_id": campaign_id, "config": campaign.model_dump(mode="json")},
        deliveries,
        lake.events(),
        _latencies(lake, campaign_id),
        Catalogue.of(lake.items()),
        horizon_days=days,
        replay=campaign.as_of is not None and campaign.as_of < datetime.now(UTC),
        reactions=Reactions.of(campaign_id, deliveries, lake.events(), followed),
        bands=bands,
    )


def _latencies(lake: Lake, campaign_id: str) -> pl.DataFrame | None:
    try:
        return lake.read_table(latency_table(campaign_id))
    except NotFound:  # the run has not ended, or its driver died
        return None
