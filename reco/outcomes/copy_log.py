"""Which copy each mail got: logged before it is sent, read with the clicks that came of it.

Only clicks of persons count, and only on mails whose readers agreed to be followed.
"""

from collections.abc import Mapping, Sequence

import polars as pl
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Engine

from reco.campaigns.campaign import Campaign
from reco.campaigns.variants import Chosen
from reco.database import COPY_CHOICES, DELIVERIES, SUBSCRIBERS
from reco.events.lake import Lake
from reco.outcomes.bots import judge, touches

TIME = pl.Datetime("us", "UTC")


class CopyLog:
    """The table of choices, one row a mail and slot."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, campaign: Campaign, mails: Mapping[str, Sequence[Chosen]]) -> None:
        """Keep the copy of these deliveries; one that is kept already stays as it was."""
        rows = [
            {
                "campaign_id": campaign.id, "user_id": delivery, "slot": one.slot,
                "key": key_of(campaign), "segment": one.segment, "arm": one.arm,
                "propensity": one.propensity,
            }
            for delivery, chosen in mails.items()
            for one in chosen
        ]  # fmt: skip
        if rows:
            with self._engine.begin() as connection:
                connection.execute(insert(COPY_CHOICES).on_conflict_do_nothing(), rows)

    def outcomes(self, key: str, lake: Lake) -> pl.DataFrame:
        """slot, segment, arm, propensity, sent_at, succeeded_at of each followed, accepted mail.

        succeeded_at: the first click of a person; null where there was none.
        """
        sent = self._sent(key)
        campaigns = sent["campaign_id"].unique().to_list()
        events = lake.events().filter(pl.col("campaign_id").is_in(campaigns))
        mails = sent.unique(["campaign_id", "user_id"]).rename({"sent_at": "accepted_at"})
        seen = judge(touches(events, mails))
        first = (
            seen.filter((pl.col("type") == "click") & pl.col("human"))
            .group_by("campaign_id", pl.col("delivery_id").alias("user_id"))
            .agg(pl.col("timestamp").min().alias("succeeded_at"))
        )
        return sent.join(first, on=["campaign_id", "user_id"], how="left").select(
            "slot", "segment", "arm", "propensity", "sent_at", "succeeded_at"
        )

    def _sent(self, key: str) -> pl.DataFrame:
        choice, mail, person = COPY_CHOICES.c, DELIVERIES.c, SUBSCRIBERS.c
        query = (
            select(
                choice.campaign_id, choice.user_id, choice.slot, choice.segment, choice.arm,
                choice.propensity, mail.settled_at, mail["items"],
            )
            .join(DELIVERIES, (mail.campaign_id == choice.campaign_id)
                  & (mail.user_id == choice.user_id))
            .join(SUBSCRIBERS, person.user_id == choice.user_id)
            .where(choice.key == key, mail.state == "accepted", person.consent_tracking)
        )  # fmt: skip
        with self._engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(query)]
        schema: dict[str, pl.DataType | type[pl.DataType]] = {
            "campaign_id": pl.String, "user_id": pl.String, "slot": pl.String,
            "segment": pl.String, "arm": pl.String, "propensity": pl.Float64, "sent_at": TIME,
            "items": pl.List(pl.String),
        }  # fmt: skip
        return pl.DataFrame(rows, schema=schema, orient="row")


def key_of(campaign: Campaign) -> str:
    """Under which name a campaign's copy is learned."""
    return (campaign.variants.key if campaign.variants else None) or campaign.id
