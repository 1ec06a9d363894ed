"""Every item that a mail showed, and what came of it: what the response heads learn from.

Takes the ledger, the logged chances and the lake as of a time; nothing later is looked at, so a
fit that stops at a cut learns from no mail, click or purchase after it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import polars as pl
from sqlalchemy import select
from sqlalchemy.engine import Engine

from reco.campaigns.ledger import Ledger
from reco.campaigns.store import CampaignStore
from reco.campaigns.variants import PLACE
from reco.database import COPY_CHOICES
from reco.events.lake import Lake
from reco.outcomes.bots import judge, touches
from reco.outcomes.labels import MAIL, labels, leavers
from reco.outcomes.purchases import RECIPIENT
from reco.subscribers.store import SubscriberStore

IMPRESSIONS: Final = pl.Schema(
    {
        "mail": pl.UInt32(),  # items of one mail share it; in the order of acceptance
        "user_id": pl.String(),
        "item_id": pl.String(),
        "slot": pl.Int32(),  # place in the mail, from 0
        "accepted_at": pl.Datetime("us", "UTC"),
        "clicked": pl.Int8(),  # by a person within 72 h; null: nobody can know (yet)
        "weight": pl.Float64(),  # how far to trust `clicked`
        "bought": pl.Int8(),  # the clicked item within 7 days; null: not clicked, or not over yet
        "left": pl.Int8(),  # unsubscribed by this mail; null: not over yet
        "propensity": pl.Float64(),  # chance with which the item was drawn; null: not drawn
    }
)
MAILED: Final = pl.Schema(
    {
        "campaign_id": pl.String(),
        "delivery_id": pl.String(),
        "user_id": pl.String(),
        "items": pl.List(pl.String()),
        "accepted_at": pl.Datetime("us", "UTC"),
        "tracked": pl.Boolean(),
    }
)
DRAWN: Final = pl.Schema(
    {"campaign_id": pl.String(), "delivery_id": pl.String(), "slot": pl.Int32(),
     "propensity": pl.Float64()}
)  # fmt: skip


def impressions(
    lake: Lake, engine: Engine, database_url: str, now: datetime, days: int
) -> pl.DataFrame:
    """IMPRESSIONS of the mails that were accepted in the `days` before `now`, as known then."""
    mails = _mails(engine, database_url, now - timedelta(days=days), now)
    if mails.is_empty():
        return pl.DataFrame(schema=IMPRESSIONS)
    return impressions_of(mails, lake.events(before=now), _drawn(engine), now)


def impressions_of(
    mails: pl.DataFrame, events: pl.LazyFrame, drawn: pl.DataFrame, now: datetime
) -> pl.DataFrame:
    """IMPRESSIONS from MAILED mails, events of the lake and DRAWN chances.

    Only mails with tracked links: of others nobody knows a click. Opens are no label.
    """
    mails = mails.filter("tracked")
    if mails.is_empty():
        return pl.DataFrame(schema=IMPRESSIONS)
    events = events.filter(pl.col("timestamp") < now)
    own = events.filter(pl.col("campaign_id").is_in(mails["campaign_id"].unique().implode()))
    clicks = judge(touches(own, mails.select("campaign_id", "items", "accepted_at",
                                             user_id="delivery_id")))  # fmt: skip
    bought = events.filter(
        (pl.col("type") == "purchase") & (pl.col("timestamp") >= mails["accepted_at"].min())
    ).select("user_id", "item_id", "timestamp")
    gone = own.filter(pl.col("type") == "unsubscribe").select(*MAIL, "timestamp")
    rows = labels(mails, clicks, bought.collect(), now)
    numbered = mails.sort("accepted_at", *MAIL).with_row_index("mail")
    return (
        rows.join(numbered.select(*MAIL, "mail", "user_id", "accepted_at"), on=MAIL)
        .join(leavers(mails, gone.collect(), now), on=MAIL)
        .join(drawn, on=[*MAIL, "slot"], how="left")
        .select(pl.col(name).cast(kind) for name, kind in IMPRESSIONS.items())
        .sort("mail", "slot")
    )


def _mails(engine: Engine, database_url: str, since: datetime, now: datetime) -> pl.DataFrame:
    """MAILED mails of all campaigns in a span."""
    names = [stored.campaign.id for stored in CampaignStore(engine).all()]
    parts = [pl.DataFrame(schema=MAILED)]
    with Ledger(database_url) as ledger:
        for name in names:
            accepted = ledger.rows(name).filter(
                pl.col("accepted_at").is_between(since, now, closed="left")
            )
            parts.append(_mailed(name, accepted, SubscriberStore(engine)))
    return pl.concat(parts)


def _mailed(campaign_id: str, accepted: pl.DataFrame, store: SubscriberStore) -> pl.DataFrame:
    mails = accepted.select(
        pl.lit(campaign_id).alias("campaign_id"), pl.col("user_id").alias("delivery_id"),
        RECIPIENT, "items", "accepted_at",
    )  # fmt: skip
    users: Sequence[str] = mails["user_id"].unique().to_list()
    followed = store.followed(users) if users else set()
    tracked = pl.col("user_id").is_in(list(followed)).alias("tracked")
    return mails.with_columns(tracked).select(pl.col(n).cast(k) for n, k in MAILED.items())


def _drawn(engine: Engine) -> pl.DataFrame:
    """DRAWN chances of all places that an arm drew."""
    choice = COPY_CHOICES.c
    query = select(choice.campaign_id, choice.user_id, choice.slot, choice.propensity).where(
        choice.slot.startswith(PLACE)
    )
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(query)]
    found = pl.DataFrame(rows, schema=DRAWN | {"slot": pl.String()}, orient="row")
    return found.with_columns(pl.col("slot").str.strip_prefix(PLACE).cast(pl.Int32))
