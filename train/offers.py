"""What `reco recommend` is asked by files: users, items, offers, and how offers are ranked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import polars as pl

from reco.errors import InputError
from reco.events.lake import Lake

PRIOR: Final = 100.0  # imagined events of an offer: rare ones do not win by a single purchase


def weigh(offers: pl.DataFrame, lake: Lake, as_of: datetime, target: str) -> pl.DataFrame:
    """The rows of `read_offers` with `taken`: how often all items of the offer were, by anybody."""
    events = lake.events(before=as_of, columns=["type", "item_id"])
    counts = (
        events.filter(pl.col("type") == target).group_by("item_id").agg(pl.len().alias("taken"))
    )
    return offers.join(counts.collect(), on="item_id", how="left").with_columns(
        pl.col("taken").sum().over("offer_id")
    )


def rank_offers(
    items: pl.DataFrame, had: pl.DataFrame, offers: pl.DataFrame, names: Sequence[str], k: int
) -> pl.DataFrame:
    """Offers by how much more than others a subscriber takes of their items.

    items   tables.RECOMMENDATIONS of the offers' items
    had     user_id, item_id, count: what subscribers took
    offers  see `weigh`

    An offer is used by those who take its items often, and less where everybody does, since they
    need no offer: count / sqrt(taken + PRIOR), which is the cosine of subscriber and offer, drawn
    towards the plain count where little is known. Equal ones go by the probability that any of
    their items is taken, 1 - prod(1 - p), which is the score; the reason is that of the best item.
    """
    chance = 1 - (1 - pl.col("score").cast(pl.Float64).clip(0, 1 - 1e-9)).log().sum().exp()
    likely = items.join(offers, on="item_id").group_by("user_id", "offer_id").agg(
        chance.alias("chance"), pl.col("reason").sort_by("score").last()
    )  # fmt: skip
    closeness = pl.col("count").sum() / (pl.col("taken").first() + PRIOR).sqrt()
    close = had.join(offers, on="item_id").group_by("user_id", "offer_id").agg(
        closeness.alias("closeness")
    )  # fmt: skip
    every = pl.DataFrame({"user_id": list(names)}, schema={"user_id": pl.String}).join(
        offers.group_by("offer_id").agg(pl.col("taken").first()), how="cross"
    )
    key = ["user_id", "offer_id"]
    order = ["closeness", "chance", "taken"]
    ranked = (
        every.join(likely, on=key, how="left")
        .join(close, on=key, how="left")
        .with_columns(pl.col(order).fill_null(0), pl.col("reason").fill_null("popular"))
        .sort("user_id", *order, "offer_id", descending=[False, True, True, True, False])
        .with_columns((pl.int_range(pl.len()).over("user_id") + 1).cast(pl.Int32).alias("rank"))
        .filter(pl.col("rank") <= k)
    )
    score = pl.col("chance").cast(pl.Float32).alias("score")
    return ranked.select("user_id", pl.col("offer_id").alias("item_id"), "rank", score, "reason")


def read_ids(path: Path, column: str) -> list[str]:
    """Ids in a Parquet or CSV file with this column, or one a line; raises InputError."""
    if path.suffix in (".parquet", ".csv"):
        ids = _read(path, [column])[column].to_list()
    else:
        with _readable(path):
            lines = path.read_text(encoding="utf-8").splitlines()
        ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise InputError(f"{path} holds no {column}.", "", "Write one a line.")
    return list(dict.fromkeys(ids))


def read_offers(path: Path) -> pl.DataFrame:
    """Rows offer_id, item_id of a Parquet or CSV file; raises InputError."""
    return _read(path, ["offer_id", "item_id"]).unique(maintain_order=True)


def _read(path: Path, columns: list[str]) -> pl.DataFrame:
    with _readable(path):
        frame = (
            pl.read_parquet(path)
            if path.suffix == ".parquet"
            else pl.read_csv(path, infer_schema=False)
        )
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InputError(
            f"{path} cannot be used.",
            f"It lacks the columns {', '.join(missing)}.",
            f"Give a file with {', '.join(columns)}.",
        )
    return frame.select(pl.col(name).cast(pl.String) for name in columns).drop_nulls()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read.",
            str(error).splitlines()[0],
            "Give a Parquet or CSV file, or for ids a text with one a line, in UTF-8.",
        ) from error
