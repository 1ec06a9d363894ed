"""The peers of the features bench: the same aggregates by DuckDB and by Polars, in memory.

Each engine is a function that makes all of them and gives the sum of the 28-day purchase counts,
by which the bench sees that all have done the same.
"""

import os
from collections.abc import Callable
from datetime import datetime

import duckdb
import polars as pl

from reco.events.lake import Lake

TYPES = ("purchase", "click", "open", "view")
WINDOWS_DAYS = (7, 28, 90)
HALF_LIVES_DAYS = (60, 120, 240)
CPUS = os.cpu_count() or 1


def duckdb_engine(lake: Lake, as_of: datetime) -> Callable[[], int]:
    """The aggregates in SQL, each as a table in memory; gives the sum of the 28-day counts."""
    connection = duckdb.connect()
    connection.execute(f"SET threads TO {CPUS}; SET timezone = 'UTC'")
    files = [path for bucket in lake.bucket_paths() for path in bucket]
    windows = ", ".join(
        f"sum(n) FILTER (age <= {d} AND type = '{t}') AS count_{t}_{d}d, "
        f"sum(money) FILTER (age <= {d} AND type = '{t}') AS money_{t}_{d}d"
        for t in TYPES
        for d in WINDOWS_DAYS
    )
    anything = ", ".join(
        f"sum(n) FILTER (age <= {d}) AS count_any_{d}d, "
        f"sum(money) FILTER (age <= {d}) AS money_any_{d}d"
        for d in WINDOWS_DAYS
    )
    since = ", ".join(f"min(age) FILTER (type = '{t}') AS since_{t}" for t in TYPES)
    decayed = ", ".join(f"sum(n * exp2_{h}) AS decayed_{h}" for h in HALF_LIVES_DAYS)
    weights = ", ".join(f"pow(2, -age / {h}.0) AS exp2_{h}" for h in HALF_LIVES_DAYS)
    # Adding up each day first costs a seventh less than statements over raw events (measured).
    statements = [
        f"""CREATE OR REPLACE TABLE facts AS SELECT *, {weights} FROM (
              SELECT user_id, type, item_id, count(*) AS n, sum(value) AS money,
                     date_diff('day', timestamp::DATE, DATE '{as_of:%Y-%m-%d}') AS age
              FROM read_parquet({files}) WHERE timestamp < TIMESTAMPTZ '{as_of.isoformat()}'
              GROUP BY ALL)""",
        f"""CREATE OR REPLACE TABLE users AS SELECT user_id, {windows}, {anything}, {since},
              count(DISTINCT age) AS active_days, max(age) AS tenure,
              count(DISTINCT item_id) AS distinct_items FROM facts GROUP BY user_id""",
        f"""CREATE OR REPLACE TABLE pairs AS SELECT user_id, item_id, sum(n) AS n,
              count(*) AS n_days, max(age) AS first, min(age) AS last, sum(money) AS money,
              {decayed}
              FROM facts WHERE type = 'purchase' GROUP BY user_id, item_id""",
        f"""CREATE OR REPLACE TABLE categories AS SELECT * FROM (
              SELECT user_id, category, sum(decayed_120) AS weight, row_number() OVER (
                PARTITION BY user_id ORDER BY sum(decayed_120) DESC, category) AS place
              FROM pairs JOIN read_parquet('{lake.path("items.parquet")}') USING (item_id)
              GROUP BY user_id, category) WHERE place <= 3""",
        """CREATE OR REPLACE TABLE items AS SELECT item_id, count(*) AS buyers,
              count(*) FILTER (last <= 7) AS buyers_7d, count(*) FILTER (last <= 28) AS buyers_28d,
              count(*) FILTER (n_days > 1) AS repeaters, max(first) AS first
              FROM pairs GROUP BY item_id""",
        """CREATE OR REPLACE TABLE sold AS SELECT item_id,
              sum(n) FILTER (age <= 7) AS count_7d, sum(n) FILTER (age <= 28) AS count_28d,
              sum(n) FILTER (age BETWEEN 29 AND 56) AS count_prior_28d
              FROM facts WHERE type = 'purchase' AND age <= 56 GROUP BY item_id""",
    ]

    def run() -> int:
        for statement in statements:
            connection.execute(statement)
        return int(connection.execute("SELECT sum(count_purchase_28d) FROM users").fetchone()[0])

    return run


def polars_engine(lake: Lake, as_of: datetime) -> Callable[[], int]:
    """The aggregates as lazy frames, collected together."""
    n, age = pl.col("n"), pl.col("age")
    windows = [
        column.filter((age <= d) if t == "any" else (age <= d) & (pl.col("type") == t))
        .sum()
        .alias(f"{name}_{t}_{d}d")
        for t in (*TYPES, "any")
        for d in WINDOWS_DAYS
        for name, column in (("count", n), ("money", pl.col("money")))
    ]
    since = [age.filter(pl.col("type") == t).min().alias(f"since_{t}") for t in TYPES]
    weights = [(2.0 ** (-age / h)).alias(f"exp2_{h}") for h in HALF_LIVES_DAYS]

    def run() -> int:
        day = (pl.lit(as_of).dt.epoch("d") - pl.col("timestamp").dt.epoch("d")).alias("age")
        facts = (
            lake.events(before=as_of)
            .group_by("user_id", "type", "item_id", day)
            .agg(pl.len().alias("n"), pl.col("value").sum().alias("money"))
            .with_columns(weights)
        )
        users = facts.group_by("user_id").agg(
            *windows, *since, age.n_unique().alias("active_days"), age.max().alias("tenure"),
            pl.col("item_id").n_unique().alias("distinct_items"),
        )  # fmt: skip
        bought = facts.filter(pl.col("type") == "purchase")
        decayed = [(n * pl.col(f"exp2_{h}")).sum().alias(f"decayed_{h}") for h in HALF_LIVES_DAYS]
        pairs = bought.group_by("user_id", "item_id").agg(
            n.sum(), pl.len().alias("n_days"), age.max().alias("first"), age.min().alias("last"),
            pl.col("money").sum(), *decayed,
        )  # fmt: skip
        categories = (
            pairs.join(lake.items().lazy().select("item_id", "category"), on="item_id")
            .group_by("user_id", "category")
            .agg(pl.col("decayed_120").sum())
            .sort("user_id", "decayed_120", descending=[False, True])
            .group_by("user_id", maintain_order=True)
            .head(3)
        )
        last = pl.col("last")
        items = pairs.group_by("item_id").agg(
            pl.len().alias("buyers"), (last <= 7).sum().alias("buyers_7d"),
            (last <= 28).sum().alias("buyers_28d"), (pl.col("n_days") > 1).sum().alias("repeaters"),
            pl.col("first").max(),
        )  # fmt: skip
        sold = bought.filter(age <= 56).group_by("item_id").agg(
            n.filter(age <= 7).sum().alias("count_7d"),
            n.filter(age <= 28).sum().alias("count_28d"),
            n.filter(age > 28).sum().alias("count_prior_28d"),
        )  # fmt: skip
        made = pl.collect_all([users, pairs, categories, items, sold])
        return int(made[0]["count_purchase_28d"].sum())

    return run
