"""The log of items that were drawn for places of mails: what a new policy is judged on.

Takes the choices of arms that explore (reco.rules.exploring) and the clicks of persons, gives a row
a place. A mail whose click window is open, or whose reader is not followed, says nothing.
"""

from datetime import datetime

import polars as pl
from sqlalchemy import select
from sqlalchemy.engine import Engine

from reco.campaigns.variants import PLACE
from reco.database import COPY_CHOICES, DELIVERIES, SUBSCRIBERS
from reco.events.lake import Lake
from reco.outcomes.bots import judge, touches
from reco.outcomes.labels import CLICK_WINDOW

MAIL = ("campaign_id", "delivery_id")
SENT: dict[str, pl.DataType | type[pl.DataType]] = {
    "campaign_id": pl.String, "delivery_id": pl.String, "slot": pl.String, "item_id": pl.String,
    "propensity": pl.Float64, "accepted_at": pl.Datetime("us", "UTC"), "items": pl.List(pl.String),
}  # fmt: skip


def explored(engine: Engine, lake: Lake, since: datetime, now: datetime) -> pl.DataFrame:
    """campaign_id, delivery_id (the user), item_id, place, propensity, sent_at, reward (0 or 1).

    Of mails accepted from `since` on whose click window is over at `now`.
    """
    sent = _sent(engine, since, now)
    mails = sent.unique(MAIL).select("campaign_id", "accepted_at", "items", user_id="delivery_id")
    events = lake.events().filter(pl.col("campaign_id").is_in(mails["campaign_id"].unique()))
    seen = judge(touches(events, mails))
    in_time = pl.col("timestamp") - pl.col("accepted_at") <= CLICK_WINDOW
    clicked = (
        seen.filter((pl.col("type") == "click") & pl.col("human") & in_time)
        .select(*MAIL, pl.col("slot").cast(pl.Int64).alias("place"), pl.lit(1.0).alias("reward"))
        .unique()
    )
    as_sent = pl.col("items").list.get(pl.col("place"), null_on_oob=True) == pl.col("item_id")
    return (
        sent.filter(as_sent)  # a mail that was made twice counts as it was sent
        .join(clicked, on=[*MAIL, "place"], how="left")
        .select(
            *MAIL, "item_id", "place", "propensity", pl.col("accepted_at").alias("sent_at"),
            pl.col("reward").fill_null(0.0),
        )
    )  # fmt: skip


def _sent(engine: Engine, since: datetime, now: datetime) -> pl.DataFrame:
    """Places of accepted, followed mails with a closed window."""
    choice, mail, person = COPY_CHOICES.c, DELIVERIES.c, SUBSCRIBERS.c
    query = (
        select(
            choice.campaign_id, choice.user_id, choice.slot, choice.arm, choice.propensity,
            mail.settled_at, mail["items"],
        )
        .join(DELIVERIES, (mail.campaign_id == choice.campaign_id)
              & (mail.user_id == choice.user_id))
        .join(SUBSCRIBERS, person.user_id == choice.user_id)
        .where(choice.slot.startswith(PLACE), mail.state == "accepted", person.consent_tracking,
               mail.settled_at >= since, mail.settled_at + CLICK_WINDOW <= now)
    )  # fmt: skip
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(query)]
    place = pl.col("slot").str.strip_prefix(PLACE).cast(pl.Int64).alias("place")
    return pl.DataFrame(rows, schema=SENT, orient="row").with_columns(place)
