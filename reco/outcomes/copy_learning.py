"""What was learned of copy: choices are logged before a mail is sent, clicks judge them later.

Takes the choices of all campaigns of one key whose click windows are over (outcomes.copy_log),
gives the weights of the next campaign by slot and segment (reco.experiments.bandit).
"""

from datetime import UTC, datetime

import polars as pl

from reco.campaigns.campaign import OTHER, Campaign
from reco.events.lake import Lake
from reco.experiments.bandit import closed, next_weights
from reco.outcomes.copy_log import CopyLog, key_of


def learned(campaign: Campaign, log: CopyLog, lake: Lake, now: datetime | None = None) -> Campaign:
    """The campaign with the weights that the closed windows of its key speak for."""
    variants = campaign.variants
    if variants is None:
        return campaign
    outcomes = log.outcomes(key_of(campaign), lake)
    segments = [*(segment.name for segment in campaign.segments), OTHER]
    weights = {}
    for slot, texts in variants.slots.items():
        own = outcomes.filter((pl.col("slot") == slot) & pl.col("arm").is_in(list(texts)))
        evidence = closed(own, now or datetime.now(UTC), variants.window)
        weights[slot] = next_weights(evidence, list(texts), segments, floor=variants.floor)
    update = variants.model_copy(update={"weights": weights})
    return campaign.model_copy(update={"variants": update})
