"""Sets a campaign running, when its time has come."""

import time
from datetime import UTC, datetime
from typing import Final

import structlog

from reco.campaigns.campaign import Campaign
from reco.campaigns.store import CampaignState, CampaignStore

log = structlog.get_logger()

POLL_S: Final = 1.0


def start(store: CampaignStore, campaign: Campaign, *, resume: bool = True) -> datetime:
    """Store the campaign and set it running, not before its `window.start_at`; its first start.

    Until then it is a draft, which can be cancelled; killed meanwhile, it waits when it is started
    again. One that runs already is joined: its driver may have died, and two at once do no harm.
    One that is paused by now goes on only with `resume`; paused while it waits, it does not start.
    Raises Conflict when another campaign has the id, or this one is paused or cancelled.
    """
    stored = store.create(campaign)
    if resume and stored.state is CampaignState.PAUSED:
        stored = store.resume(campaign.id)
    if campaign.window.opens_in(datetime.now(UTC)) > 0:
        log.info("the campaign waits", campaign=campaign.id, until=campaign.window.start_at)
    while (left_s := campaign.window.opens_in(datetime.now(UTC))) > 0:
        if stored.state is CampaignState.CANCELLED:
            break  # `join` says so
        time.sleep(min(left_s, POLL_S))
        stored = store.get(campaign.id)
    return store.join(campaign.id).started_at or datetime.now(UTC)
