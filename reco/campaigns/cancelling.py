"""Ends a campaign for good: what is under way is settled, whoever still waits gets no mail."""

from typing import Final

from reco.campaigns.ledger import Ledger
from reco.campaigns.store import CampaignState, CampaignStore, StoredCampaign

REASON: Final = "cancelled"


def cancel(
    store: CampaignStore, ledger: Ledger, campaign_id: str, note: str | None = None
) -> StoredCampaign:
    """Cancel a campaign that has not ended. Its driver, if there is one, does the rest.

    Said again, it settles what senders left that had died shortly before. Raises Conflict when the
    campaign has finished, NotFound when there is none, ServiceUnavailable.
    """
    stored = store.get(campaign_id)
    if stored.state is not CampaignState.CANCELLED:
        stored = store.move(campaign_id, CampaignState.CANCELLED, note)
    ledger.recover(campaign_id)  # of a paused one, what a dead sender left
    ledger.stop(campaign_id, REASON)
    return stored
