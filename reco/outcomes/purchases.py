"""What came of the mails: items shown, matched with what was really bought afterwards.

Takes the deliveries of one campaign and the shop's events, gives one row a user. A purchase counts
for a mail whether or not the mail was its cause; only a comparison of arms speaks of causes.
"""

from datetime import datetime, timedelta
from typing import Final

import polars as pl

from reco.campaigns.delivery import KEY_MARK
from reco.errors import InputError

# The user of a delivery: single sends of several keys to one user are deliveries of one user.
RECIPIENT: Final = pl.col("user_id").str.splitn(KEY_MARK, 2).struct[0].alias("user_id")


def match(
    deliveries: pl.DataFrame,
    purchases: pl.LazyFrame | pl.DataFrame,
    start: datetime | None = None,
    days: int = 28,
) -> pl.DataFrame:
    """Outcome of all accepted mails of each user; any other was never read and stays unlabelled.

    deliveries: user_id (of the delivery), arm, items (list[str]), and where known state and
    accepted_at.
    purchases: rows of tables.EVENTS; other types and rows without a time are passed over.
    start: the window opens here, or, when None, where a user's first mail was accepted.

    Gives user_id, arm; shown, known_shown (items, and those bought before); bought, repeats
    (distinct shown items bought in the window, and those bought before too); any_bought;
    revenue (of the bought ones); household_revenue and revenue_before (all purchases in the
    window, and in an equally long one before it). Money is in the currency of the events.
    """
    mails = _accepted(deliveries, start)
    pairs = _pairs(mails, purchases.lazy(), days).collect()
    households = pairs.group_by("user_id").agg(
        pl.col("revenue").sum().alias("household_revenue"), pl.col("revenue_before").sum()
    )
    return (
        mails.select("user_id", "arm")
        .join(_picks(mails, pairs), on="user_id", how="left", maintain_order="left")
        .join(households, on="user_id", how="left", maintain_order="left")
        .with_columns(
            pl.col("shown", "known_shown", "bought", "repeats").fill_null(0).cast(pl.Int64),
            pl.col("revenue", "household_revenue", "revenue_before").fill_null(0.0),
        )
        .with_columns((pl.col("bought") > 0).alias("any_bought"))
    )


def bought_slots(
    deliveries: pl.DataFrame, purchases: pl.LazyFrame, start: datetime | None, days: int
) -> pl.DataFrame:
    """Score of every shown item of the accepted mails, and whether its user bought it in time."""
    mails = _accepted(deliveries, start)
    bought = _pairs(mails, purchases, days).filter(pl.col("inside")).collect()
    scored = deliveries.filter(pl.col("state") == "accepted").select(RECIPIENT, "items", "scores")
    return (
        scored.drop_nulls(["items", "scores"])
        .explode("items", "scores")
        .rename({"items": "item_id", "scores": "score"})
        .join(bought.select("user_id", "item_id", "inside"), on=["user_id", "item_id"], how="left")
        .select("score", pl.col("inside").fill_null(value=False).alias("bought"))
    )


def observed_until(purchases: pl.LazyFrame | pl.DataFrame) -> datetime | None:
    """Time of the last purchase known; a window that ends later has not been seen whole."""
    bought = purchases.lazy().filter(pl.col("type") == "purchase")
    last: datetime | None = bought.select(pl.col("timestamp").max()).collect().item()
    return last


def _picks(mails: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """What came of the distinct items shown to each user: user_id, shown … revenue."""
    shown = mails.select("user_id", pl.col("items").list.unique().alias("item_id")).explode(
        "item_id"
    )
    return (
        shown.drop_nulls("item_id")
        .join(pairs, on=["user_id", "item_id"], how="left")
        .with_columns(pl.col("inside", "before").fill_null(value=False))
        .group_by("user_id")
        .agg(
            pl.len().alias("shown"),
            pl.col("before").sum().alias("known_shown"),
            pl.col("inside").sum().alias("bought"),
            (pl.col("inside") & pl.col("before")).sum().alias("repeats"),
            pl.col("revenue").sum(),
        )
    )


def _accepted(deliveries: pl.DataFrame, start: datetime | None) -> pl.DataFrame:
    """Users with accepted mails: arm, all items shown, and the opening of the window."""
    if "state" in deliveries.columns:
        deliveries = deliveries.filter(pl.col("state") == "accepted")
    if start is not None:
        opening = pl.lit(start).dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    elif "accepted_at" in deliveries.columns:
        opening = pl.col("accepted_at").dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    else:
        raise InputError(
            "The mails have no time.",
            "Without `start` each window opens at accepted_at, which is missing.",
            "Give the start of the window.",
        )
    mails = deliveries.select(RECIPIENT, "arm", "items", opening.alias("opened_at"))
    return mails.group_by("user_id", maintain_order=True).agg(
        pl.col("arm").first(), pl.col("items").explode(), pl.col("opened_at").min()
    )


def _pairs(mails: pl.DataFrame, events: pl.LazyFrame, days: int) -> pl.LazyFrame:
    """What each mailed household bought of each item: in the window, and before it."""
    window = timedelta(days=days)
    since = pl.col("timestamp") - pl.col("opened_at")
    inside = (since >= timedelta(0)) & (since < window)
    before = since < timedelta(0)
    money = pl.coalesce("value", pl.col("price") * pl.col("quantity"), 0.0)
    return (
        events.filter((pl.col("type") == "purchase") & pl.col("timestamp").is_not_null())
        .select("user_id", "item_id", "timestamp", money.alias("money"))
        .join(mails.lazy().select("user_id", "opened_at"), on="user_id", how="inner")
        .group_by("user_id", "item_id")
        .agg(
            inside.any().alias("inside"),
            before.any().alias("before"),
            pl.col("money").filter(inside).sum().alias("revenue"),
            pl.col("money").filter(before & (since >= -window)).sum().alias("revenue_before"),
        )
    )
