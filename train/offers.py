"""What `reco recommend` is asked by files: users, items, offers, and how offers are ranked."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from reco.errors import InputError


def rank_offers(
    items: pl.DataFrame, offers: pl.DataFrame, names: Sequence[str], k: int
) -> pl.DataFrame:
    """Offers by the expected number of their items that a subscriber takes.

    The reason is that of the best item.

    Offers of which nobody's item was scored stand last, in the order of their overall value.
    """
    pairs = items.join(offers, on="item_id").group_by("user_id", "offer_id").agg(
        pl.col("score").sum(), pl.col("reason").sort_by("score").last()
    )  # fmt: skip
    overall = pairs.group_by("offer_id").agg(pl.col("score").sum().alias("overall"))
    every = pl.DataFrame({"user_id": list(names)}, schema={"user_id": pl.String}).join(
        offers.select("offer_id").unique(), how="cross"
    )
    ranked = (
        every.join(pairs, on=["user_id", "offer_id"], how="left")
        .join(overall, on="offer_id", how="left")
        .with_columns(
            pl.col("score", "overall").fill_null(0.0), pl.col("reason").fill_null("popular")
        )
        .sort("user_id", "score", "overall", "offer_id", descending=[False, True, True, False])
        .with_columns((pl.int_range(pl.len()).over("user_id") + 1).cast(pl.Int32).alias("rank"))
        .filter(pl.col("rank") <= k)
    )
    # A sum over items is no probability; it stays one for offers of a single item.
    score = pl.col("score").clip(0, 1).cast(pl.Float32)
    return ranked.select("user_id", pl.col("offer_id").alias("item_id"), "rank", score, "reason")


def read_ids(path: Path, column: str) -> list[str]:
    """Ids in a Parquet or CSV file with this column, or one a line."""
    if path.suffix not in (".parquet", ".csv"):
        return list(
            dict.fromkeys(line.strip() for line in path.read_text().splitlines() if line.strip())
        )
    return _read(path, [column])[column].unique(maintain_order=True).to_list()


def read_offers(path: Path) -> pl.DataFrame:
    """Rows offer_id, item_id of a Parquet or CSV file."""
    return _read(path, ["offer_id", "item_id"]).unique(maintain_order=True)


def _read(path: Path, columns: list[str]) -> pl.DataFrame:
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
