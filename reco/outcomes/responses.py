"""What readers did with a campaign's mails, counted with and without what programs did.

Takes the ledger and judged touches; only mails whose links were tracked can show a click.
"""

from dataclasses import dataclass

import polars as pl

from reco.outcomes.bots import TRAP_SLOT, WEIGHTS
from reco.outcomes.labels import CLICK_WINDOW
from reco.outcomes.purchases import RECIPIENT

MAIL = "delivery_id"


@dataclass(frozen=True, slots=True)
class Response:
    """Counts of one arm; a mail counts once. Opens are no measure of reading: see `opened_by`."""

    arm: str
    mails: int
    tracked: int  # of them may be followed: the reader agreed
    clicked: int  # with a click of a person on a recommended item
    clicked_raw: int  # with any click on one
    opened_by: dict[str, int]  # mails opened through apple, proxy, direct: kept for deliverability


def clicked_mails(touches: pl.DataFrame) -> pl.DataFrame:
    """delivery_id, clicked and clicked_raw of the mails with a click within 72 hours."""
    since = pl.col("timestamp") - pl.col("accepted_at")
    return (
        touches.filter(
            (pl.col("type") == "click")
            & (pl.col("slot") != TRAP_SLOT)
            & (since.dt.total_microseconds() >= 0)
            & (since <= CLICK_WINDOW)
        )
        .group_by(MAIL)
        .agg(pl.col("human").any().alias("clicked"), pl.lit(True).alias("clicked_raw"))
    )


def responses(
    deliveries: pl.DataFrame, touches: pl.DataFrame, tracked: set[str], arms: list[str]
) -> tuple[Response, ...]:
    """Responses to the accepted mails of each arm. tracked: user_id of who may be followed."""
    mails = (
        deliveries.filter(pl.col("state") == "accepted")
        .select(
            pl.col("user_id").alias(MAIL),
            "arm",
            RECIPIENT.is_in(list(tracked)).alias("tracked"),
        )
        .join(clicked_mails(touches), on=MAIL, how="left")
        .join(_opened(touches), on=MAIL, how="left")
    )
    kinds = ("apple", "proxy", "direct")
    found = {}
    for part in mails.partition_by("arm"):
        found[part["arm"][0]] = Response(
            part["arm"][0],
            part.height,
            int(part["tracked"].sum()),
            int(part["clicked"].sum()),
            int(part["clicked_raw"].sum()),
            {kind: int((part["opened_by"] == kind).sum()) for kind in kinds},
        )
    return tuple(found[arm] for arm in arms if arm in found)


def reasons_of(touches: pl.DataFrame) -> dict[str, int]:
    """Clicks that a program made, by every reason that betrayed it."""
    programs = touches.filter((pl.col("type") == "click") & ~pl.col("human"))
    counts = dict(programs["reasons"].explode().drop_nulls().value_counts().iter_rows())
    return {name: counts[name] for name in WEIGHTS if name in counts}


def _opened(touches: pl.DataFrame) -> pl.DataFrame:
    """delivery_id, opened_by: the kind of fetch that comes nearest to a reader."""
    kind = (
        pl.when(pl.col("reasons").list.contains("apple_proxy"))
        .then(pl.lit("apple"))
        .when(pl.col("reasons").list.contains("mail_proxy"))
        .then(pl.lit("proxy"))
        .when(pl.col("human"))
        .then(pl.lit("direct"))
    )
    order = pl.Enum(["apple", "proxy", "direct"])
    return (
        touches.filter(pl.col("type") == "open")
        .with_columns(kind.cast(order).alias("opened_by"))
        .group_by(MAIL)
        .agg(pl.col("opened_by").max())
        .with_columns(pl.col("opened_by").cast(pl.String))
    )
