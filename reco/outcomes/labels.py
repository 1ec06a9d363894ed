"""What came of each shown item, as training may use it: clicks and purchases with weights.

Takes accepted mails, judged clicks and purchases. Opens are no label. What nobody can know is null
and not 0: a window that is still open, a mail whose links were not tracked. What came before such a
window closes is null too, or the latest mails would have clicks and nothing else.
"""

from datetime import datetime, timedelta
from typing import Final

import polars as pl

CLICK_WINDOW: Final = timedelta(hours=72)  # from acceptance
PURCHASE_WINDOW: Final = timedelta(days=7)  # from the click
LEAVE_WINDOW: Final = timedelta(days=7)  # from acceptance
BELOW_WEIGHT: Final = 0.5  # of an item below the last click, which may not have been seen
MAIL: Final = ("campaign_id", "delivery_id")


def labels(
    mails: pl.DataFrame, clicks: pl.DataFrame, purchases: pl.DataFrame, now: datetime
) -> pl.DataFrame:
    """One row a shown item: campaign_id, delivery_id, slot, item_id, clicked, weight, bought.

    mails: campaign_id, delivery_id, user_id, items, accepted_at, and where known tracked (bool).
    clicks: bots.judge of them. purchases: user_id, item_id, timestamp. clicked is 1, 0 or null;
    weight is how far to trust it, 0..1: of a click the chance that a person made it, of a 0 the
    chance that it was looked at. An item above the last click of a mail was looked at (Joachims
    and others, 2005); any other may have been. A mail without a click of a person says nothing,
    unless its links are known to be tracked.
    """
    seen = _clicks(mails, clicks)
    rows = _shown(mails).join(seen, on=[*MAIL, "slot"], how="left")
    last = seen.group_by(MAIL).agg(pl.col("slot").max().alias("last"))
    rows = rows.join(last, on=MAIL, how="left")
    known = pl.col("last").is_not_null()
    if "tracked" in mails.columns:
        known |= pl.col("tracked")
    closed = pl.col("accepted_at") + CLICK_WINDOW <= now
    passed = pl.col("slot") < pl.col("last")
    found = pl.col("clicked_at").is_not_null()
    clicked = pl.when(closed & found).then(1).when(closed & known).then(0)
    looked = pl.when(passed).then(1.0).otherwise(BELOW_WEIGHT)
    rows = rows.with_columns(clicked.cast(pl.Int8).alias("clicked")).with_columns(
        pl.when(pl.col("clicked") == 1)
        .then(1 - pl.col("machine"))
        .when(pl.col("clicked") == 0)
        .then(looked)
        .otherwise(0.0)
        .alias("weight")
    )
    return _with_purchases(rows, purchases, now).select(
        *MAIL, "slot", "item_id", "clicked", "weight", "bought"
    )


def leavers(mails: pl.DataFrame, gone: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """One row a mail: campaign_id, delivery_id, left (1, 0, or null while the window is open).

    gone: campaign_id, delivery_id, timestamp of unsubscriptions, which only people make.
    """
    since = pl.col("timestamp") - pl.col("accepted_at")
    found = (
        gone.join(mails.select(*MAIL, "accepted_at"), on=MAIL)
        .filter(since.is_between(timedelta(0), LEAVE_WINDOW))
        .select(*MAIL, pl.lit(1, pl.Int8).alias("found"))
        .unique()
    )
    over = pl.col("accepted_at") + LEAVE_WINDOW <= now
    left = pl.when(over).then(pl.col("found").fill_null(0))
    return mails.join(found, on=MAIL, how="left").select(*MAIL, left.alias("left"))


def _shown(mails: pl.DataFrame) -> pl.DataFrame:
    """Every shown item with its place."""
    return (
        mails.with_columns(pl.int_ranges(pl.col("items").list.len(), dtype=pl.Int32).alias("slot"))
        .explode("items", "slot")
        .rename({"items": "item_id"})
        .drop_nulls("item_id")
    )


def _clicks(mails: pl.DataFrame, clicks: pl.DataFrame) -> pl.DataFrame:
    """First click of a person on each place of a mail, within the window."""
    return (
        clicks.filter((pl.col("type") == "click") & pl.col("human"))
        .join(mails.select(*MAIL, pl.col("accepted_at").alias("since")), on=MAIL)
        .filter((pl.col("timestamp") - pl.col("since")).is_between(timedelta(0), CLICK_WINDOW))
        .sort("timestamp")
        .group_by(*MAIL, "slot")
        .agg(pl.col("timestamp").first().alias("clicked_at"), pl.col("machine").first())
    )


def _with_purchases(rows: pl.DataFrame, purchases: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """`bought`: the clicked item within the window after the click; null while it is open."""
    wanted = rows.filter(pl.col("clicked") == 1).select(*MAIL, "slot", "user_id", "item_id",
                                                        "clicked_at")  # fmt: skip
    since = pl.col("timestamp") - pl.col("clicked_at")
    found = (
        wanted.join(purchases.select("user_id", "item_id", "timestamp"), on=["user_id", "item_id"])
        .filter(since.is_between(timedelta(0), PURCHASE_WINDOW))
        .select(*MAIL, "slot", pl.lit(1, pl.Int8).alias("found"))
        .unique()
    )
    over = pl.col("clicked_at") + PURCHASE_WINDOW <= now
    bought = pl.when(over).then(pl.col("found").fill_null(0))
    return rows.join(found, on=[*MAIL, "slot"], how="left").with_columns(bought.alias("bought"))
