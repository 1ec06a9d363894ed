"""Importing: good rows once, bad ones told apart, nothing half-written, any shop by a mapping."""

import gzip
import json
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from reco.errors import ConfigError, InputError
from reco.events.importing import ImportSummary, import_table
from reco.events.lake import Lake
from reco.events.mapping import Mapping, load_mapping
from reco.subscribers.store import SubscriberStore

ROOT = Path(__file__).parent.parent
MAPPINGS = ROOT / "configs" / "mappings"
GOOD = "u1,purchase,2017-05-01T10:00:00Z,i1,3.5,3.5,1"
HEADER = "user_id,type,timestamp,item_id,value,price,quantity"


def mapping(**keys: object) -> Mapping:
    return Mapping.model_validate({"table": "events", **keys})


def written(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def importing(
    lake: Lake, *files: Path, rules: Mapping | None = None, table: str = "events"
) -> ImportSummary:
    return import_table(table, files, rules, lake, None, files[0].parent / "quarantine")


def everything(lake: Lake) -> pl.DataFrame:
    return lake.events().collect()


def test_a_file_with_our_names_needs_no_mapping(lake: Lake, tmp_path: Path) -> None:
    summary = importing(lake, written(tmp_path / "e.csv", HEADER + ",colour", GOOD + ",red"))

    assert (summary.rows, summary.new, summary.quarantined) == (1, 1, 0)
    row = everything(lake).row(0, named=True)
    assert row["timestamp"] == datetime(2017, 5, 1, 10, tzinfo=UTC)
    assert json.loads(row["attributes"]) == {"colour": "red"}


BAD_ROWS = {
    "missing user_id": ",purchase,2017-05-01,i1,1,1,1",
    "missing type": "u1,,2017-05-01,i1,1,1,1",
    "unreadable timestamp": "u1,purchase,yesterday,i1,1,1,1",
    "timestamp before 1990": "u1,purchase,1970-01-01,i1,1,1,1",
    "timestamp after 2100": "u1,purchase,2100-01-01,i1,1,1,1",
    "value is not a number": "u1,rating,2017-05-01,i1,five,1,1",
    "value is not finite": "u1,rating,2017-05-01,i1,nan,1,1",
    "price is not finite": "u1,purchase,2017-05-01,i1,1,inf,1",
    "price is negative": "u1,purchase,2017-05-01,i1,1,-1,1",
    "quantity is negative": "u1,view,2017-05-01,i1,1,1,-1",
    "return": "u1,purchase,2017-05-01,i1,-5,5,-1",
    "user_id longer than 255 bytes": "ü" * 128 + ",purchase,2017-05-01,i1,1,1,1",
    "item_id holds a control character": "u1,purchase,2017-05-01,i\x07,1,1,1",
    "wrong number of fields": "u1,purchase,2017-05-01,i1,1,1,1,1,1",
}


@pytest.mark.parametrize("reason", BAD_ROWS)
def test_a_bad_row_is_quarantined_as_it_came_with_its_reason(
    lake: Lake, tmp_path: Path, reason: str
) -> None:
    source = written(tmp_path / "e.csv", HEADER, GOOD, BAD_ROWS[reason], GOOD)

    summary = importing(lake, source)

    assert (summary.rows, summary.new, summary.quarantined) == (3, 2, 1)
    assert summary.reasons == {reason: 1}
    assert summary.quarantine_file is not None
    kept = pl.read_parquet(summary.quarantine_file)
    assert kept.columns == [*HEADER.split(","), "reason"]
    fields = [value for value in kept.row(0)[:-1] if value is not None]
    assert ",".join(fields) == BAD_ROWS[reason].replace(",,", ",").removeprefix(",")


def test_all_bad_rows_of_a_file_are_counted_by_reason(lake: Lake, tmp_path: Path) -> None:
    good = [GOOD] * (len(BAD_ROWS) + 3)
    source = written(tmp_path / "e.csv", HEADER, *good, *BAD_ROWS.values())

    summary = importing(lake, source)

    assert summary.reasons == dict.fromkeys(BAD_ROWS, 1)
    assert summary.new == len(good)  # equal purchases are several


def test_a_quarantine_file_goes_when_the_file_was_corrected(lake: Lake, tmp_path: Path) -> None:
    source = tmp_path / "e.csv"
    first = importing(lake, written(source, HEADER, GOOD, BAD_ROWS["missing type"]))
    second = importing(lake, written(source, HEADER, GOOD))

    assert first.quarantine_file is not None
    assert not first.quarantine_file.exists()
    assert (second.new, second.duplicates, second.quarantine_file) == (0, 1, None)


def test_mostly_bad_rows_mean_a_wrong_mapping_and_nothing_is_written(
    lake: Lake, tmp_path: Path
) -> None:
    source = written(tmp_path / "e.csv", HEADER, GOOD, *[BAD_ROWS["missing type"]] * 2)

    with pytest.raises(InputError, match="2 of 3 rows are bad") as caught:
        importing(lake, source)

    assert "missing type: 2" in str(caught.value)
    assert len(everything(lake)) == 0
    assert not list(tmp_path.glob("quarantine/*"))


@pytest.mark.parametrize("missing", ["user_id", "type", "timestamp"])
def test_a_missing_column_is_one_error_that_shows_a_mapping(
    lake: Lake, tmp_path: Path, missing: str
) -> None:
    frame = pl.read_csv(written(tmp_path / "e.csv", HEADER, GOOD))
    frame.rename({missing: "Other"}).write_csv(tmp_path / "o.csv")

    with pytest.raises(InputError, match=f"no column {missing}") as caught:
        importing(lake, tmp_path / "o.csv")

    assert "Other" in str(caught.value)
    assert "rename" in str(caught.value)
    assert len(everything(lake)) == 0


def test_files_that_cannot_be_read_are_one_clear_error_each(lake: Lake, tmp_path: Path) -> None:
    latin = written(tmp_path / "latin.csv", HEADER, GOOD.replace("i1", "café"), encoding="latin-1")
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(b"PAR1 not really")
    gzipped = tmp_path / "not.csv.gz"
    gzipped.write_text("plain")
    files = {
        latin: "cannot be read",
        torn: "cannot be read",
        gzipped: "cannot be read",
        written(tmp_path / "x.xlsx", "?"): "of no kind",
        tmp_path / "none.csv": "does not exist",
    }
    (tmp_path / "empty.csv").write_text("")
    files[tmp_path / "empty.csv"] = "cannot be read"

    for path, message in files.items():
        with pytest.raises(InputError, match=message):
            importing(lake, path)
    assert importing(lake, latin, rules=mapping(encoding="latin-1")).new == 1
    assert everything(lake)["item_id"].to_list() == ["café"]


def test_a_file_without_rows_says_so(lake: Lake, tmp_path: Path) -> None:
    summary = importing(lake, written(tmp_path / "e.csv", HEADER))

    assert (summary.rows, summary.notes) == (0, ["the files have no rows"])


def test_a_mapping_of_another_table_is_refused(lake: Lake, tmp_path: Path) -> None:
    source = written(tmp_path / "e.csv", HEADER, GOOD)

    with pytest.raises(ConfigError, match="makes events, not items"):
        importing(lake, source, rules=mapping(), table="items")


def test_csv_gzip_json_lines_and_parquet_give_the_same_events(tmp_path: Path) -> None:
    rows = [GOOD, GOOD, "u2,click,2017-05-02T00:00:00Z,i2,,,"]
    csv = written(tmp_path / "e.csv", HEADER, *rows)
    packed = tmp_path / "e.csv.gz"
    packed.write_bytes(gzip.compress(csv.read_bytes()))
    frame = pl.read_csv(csv)
    frame.with_columns(pl.col("timestamp").str.to_datetime("%Y-%m-%dT%H:%M:%SZ")).write_parquet(
        tmp_path / "e.parquet"
    )
    frame.write_ndjson(tmp_path / "e.jsonl")
    frame.write_csv(tmp_path / "e.tsv", separator="\t")
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbf" + csv.read_bytes())

    lakes = []
    for name in ("e.csv", "e.csv.gz", "e.parquet", "e.jsonl", "e.tsv", "bom.csv"):
        lakes.append(Lake(str(tmp_path / f"lake-{name}")))
        importing(lakes[-1], tmp_path / name)

    for other in lakes[1:]:
        assert everything(other).equals(everything(lakes[0]))


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["u1", "u2", "u3"]),
        st.sampled_from(["purchase", "view"]),
        st.sampled_from(["2017-05-01", "2017-05-02T03:04:05Z"]),
        st.sampled_from(["i1", "i2"]),
        st.sampled_from(["1", "2.5", ""]),
    ),
    min_size=1,
    max_size=30,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS, data=st.data())
def test_order_and_split_into_files_change_nothing_and_twice_is_once(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("split")
    header = "user_id,type,timestamp,item_id,value"
    lines = [",".join(row) for row in rows]
    whole, pieces = Lake(str(folder / "whole")), Lake(str(folder / "pieces"))
    importing(whole, written(folder / "all.csv", header, *lines))
    shuffled = data.draw(st.permutations(lines))
    cut = data.draw(st.integers(0, len(lines)))
    files = [
        written(folder / "a.csv", header, *shuffled[:cut]),
        written(folder / "b.csv", header, *shuffled[cut:]),
    ]

    first = importing(pieces, *files)
    again = importing(pieces, *files)

    assert (first.new, first.duplicates) == (len(rows), 0)
    assert (again.new, again.duplicates) == (0, len(rows))
    assert everything(pieces).equals(everything(whole))


def test_an_id_of_the_shop_is_kept_and_decides_what_is_equal(lake: Lake, tmp_path: Path) -> None:
    source = written(
        tmp_path / "e.csv", "event_id," + HEADER, "a," + GOOD, "a," + GOOD, "b," + GOOD, "," + GOOD
    )

    summary = importing(lake, source)

    assert (summary.new, summary.duplicates) == (3, 1)
    assert {"a", "b"} < set(everything(lake)["event_id"])


def test_a_purchase_without_value_is_worth_price_times_quantity(lake: Lake, tmp_path: Path) -> None:
    header = "user_id,type,timestamp,price,quantity"
    rows = ["u1,purchase,2017-05-01,2.5,4", "u1,view,2017-05-01,2.5,1"]
    importing(lake, written(tmp_path / "e.csv", header, *rows))

    by_type = dict(everything(lake).select("type", "value").iter_rows())
    assert by_type == {"purchase": 10.0, "view": None}


def test_a_mapping_may_keep_returns_as_a_type_of_their_own(lake: Lake, tmp_path: Path) -> None:
    source = written(tmp_path / "e.csv", HEADER, GOOD, BAD_ROWS["return"])
    kind = "CASE WHEN CAST(value AS DOUBLE) < 0 THEN 'return' ELSE type END"

    summary = importing(lake, source, rules=mapping(derive={"type": kind}))

    assert (summary.new, summary.quarantined) == (2, 0)
    assert set(everything(lake)["type"]) == {"purchase", "return"}


def test_rows_without_goods_are_kept_unless_the_mapping_drops_them(
    lake: Lake, tmp_path: Path
) -> None:
    source = written(tmp_path / "e.csv", HEADER, GOOD, "u1,purchase,2017-05-01,i1,0,,0")
    dropping = mapping(cast={"quantity": "number"}, drop=["quantity = 0"])

    dropped = importing(lake, source, rules=dropping)
    kept = importing(lake, source)

    assert (dropped.rows, dropped.new, dropped.dropped) == (2, 1, 1)
    assert (kept.new, kept.duplicates) == (1, 1)


def test_an_expression_that_fails_on_the_data_is_one_error(lake: Lake, tmp_path: Path) -> None:
    rows = [GOOD] * 6 + ["u1,purchase,2017-05-01,i1,much,1,1"]
    rules = mapping(derive={"value": "CAST(value AS DOUBLE) * 2"})

    with pytest.raises(InputError, match="expression"):
        importing(lake, written(tmp_path / "e.csv", HEADER, *rows), rules=rules)

    assert len(everything(lake)) == 0


def test_a_cast_that_fails_quarantines_the_row(lake: Lake, tmp_path: Path) -> None:
    rows = [GOOD, GOOD, "u1,purchase,2017-05-01,i1,much,1,1"]
    rules = mapping(cast={"value": "number"}, derive={"value": "value * 2"})

    summary = importing(lake, written(tmp_path / "e.csv", HEADER, *rows), rules=rules)

    assert summary.reasons == {"value is not a number": 1}
    assert set(everything(lake)["value"]) == {7.0}


def test_what_is_missing_is_said_once_with_what_gets_weaker(lake: Lake, tmp_path: Path) -> None:
    source = written(tmp_path / "e.csv", "user_id,type,timestamp", "u1,view,", "u1,view,")

    summary = importing(lake, source)

    assert summary.notes == [
        "no item_id: nothing can be learnt about items from these events",
        "no value: features of money are off for these events",
        "no basket_id: what goes together is learnt by the day",
        "2 events have no timestamp: features of time are off for them",
    ]


def test_types_that_mean_nothing_to_us_are_told(lake: Lake, tmp_path: Path) -> None:
    source = written(tmp_path / "e.csv", HEADER, GOOD, GOOD.replace("purchase", "addtocart"))

    (note,) = [note for note in importing(lake, source).notes if "addtocart" in note]

    assert "values" in note


def test_dictionary_columns_and_lists_of_parquet_are_read(lake: Lake, tmp_path: Path) -> None:
    frame = pl.read_csv(written(tmp_path / "e.csv", HEADER, GOOD, GOOD)).with_columns(
        pl.col("user_id", "type").cast(pl.Categorical),
        pl.col("value").cast(pl.String).cast(pl.Categorical),
        tags=pl.lit(["a", "b"]),
    )
    frame.write_parquet(tmp_path / "e.parquet")

    importing(lake, tmp_path / "e.parquet")

    row = everything(lake).row(0, named=True)
    assert (row["user_id"], row["type"], row["value"]) == ("u1", "purchase", 3.5)
    assert json.loads(row["attributes"]) == {"tags": ["a", "b"]}


def test_a_column_of_a_type_that_we_cannot_store_is_one_error(lake: Lake, tmp_path: Path) -> None:
    frame = pl.read_csv(written(tmp_path / "e.csv", HEADER, GOOD))
    frame.with_columns(item_id=pl.lit(["a", "b"])).write_parquet(tmp_path / "e.parquet")

    with pytest.raises(InputError, match="cannot be stored"):
        importing(lake, tmp_path / "e.parquet")


def test_progress_ends_at_the_size_of_all_files(lake: Lake, tmp_path: Path) -> None:
    files = [written(tmp_path / f"{i}.csv", HEADER, GOOD) for i in range(3)]
    calls: list[tuple[str, int, int]] = []

    import_table("events", files, None, lake, None, tmp_path, lambda *call: calls.append(call))

    total = sum(file.stat().st_size for file in files)
    assert calls[-1] == ("import events", total, total)
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


def test_a_killed_import_leaves_the_lake_as_it_was(lake: Lake, tmp_path: Path) -> None:
    """SIGKILL in the middle of a file, when rows already lie in the staging folder."""
    importing(lake, written(tmp_path / "first.csv", HEADER, GOOD))
    before = everything(lake)
    other = [GOOD.replace("u1", f"u{i}") for i in range(2, 60)]
    source = written(tmp_path / "second.csv", HEADER, *other)
    script = f"""
        import os, signal
        from pathlib import Path
        from reco.events import append, importing
        from reco.events.lake import Lake
        append.SPILL_ROWS = 10
        importing._Import.finish = lambda self: os.kill(os.getpid(), signal.SIGKILL)
        importing.import_table("events", [Path({str(source)!r})], None, Lake({lake.path()!r}),
                               None, Path({str(tmp_path / "q")!r}))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, check=False, timeout=60
    )

    assert done.returncode == -signal.SIGKILL
    assert list(Path(lake.path("staging")).rglob("*.parquet"))
    assert everything(lake).equals(before)
    assert importing(lake, source).new == len(other)


def test_items_are_imported_and_the_last_row_wins(lake: Lake, tmp_path: Path) -> None:
    lines = ["item_id,title,price,size", "1,Old,2,L", "1,New,3,", "2,Other,-1,", "3,T,4,M"]

    summary = importing(lake, written(tmp_path / "i.csv", *lines), table="items")

    assert (summary.new, summary.duplicates, summary.reasons) == (2, 1, {"price is negative": 1})
    assert lake.items().select("title", "price", "attributes").rows() == [
        ("New", 3.0, None),
        ("T", 4.0, '{"size":"M"}'),
    ]


def test_subscribers_are_imported_and_an_address_that_cannot_exist_is_left_out(
    lake: Lake, engine: Engine, tmp_path: Path
) -> None:
    lines = [
        "user_id,email,first_name,consent,shoe size",
        "1,Zoë.Smith@Example.com,Zoë,yes,39",
        "2,not an address,Ann,no,",
        "3,,Bob,,",
        ",x@example.com,Nobody,,",
    ]
    source = written(tmp_path / "s.csv", *lines)

    summary = import_table("subscribers", [source], None, lake, engine, tmp_path)

    assert (summary.new, summary.reasons) == (3, {"missing user_id": 1})
    assert "1 invalid addresses: kept without one, never mailed" in summary.notes
    one, two, three = SubscriberStore(engine).get(["1", "2", "3"])
    assert one is not None
    assert two is not None
    assert three is not None
    assert (one.email, one.consent_mail, one.attributes) == (
        "Zoë.Smith@Example.com",
        True,
        {"shoe size": "39"},
    )
    assert (two.email, two.consent_mail, two.consent_profiling) == (None, False, False)
    assert (three.email, three.consent_mail) == (None, True)


def test_subscribers_need_a_database(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="PostgreSQL"):
        importing(lake, written(tmp_path / "s.csv", "user_id", "1"), table="subscribers")


# Shops as they export their data, loaded by configuration only.


def shop(lake: Lake, name: str, *files: Path) -> ImportSummary:
    rules = load_mapping(MAPPINGS / f"{name}.yaml")
    return importing(lake, *files, rules=rules, table=rules.table)


def test_online_retail(lake: Lake, tmp_path: Path) -> None:
    lines = [
        "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country",
        '489434,85048,"15CM GLASS BALL, 20 LIGHTS",12,2009-12-01 07:45:00,6.95,13085.0,UK',
        "489434,79323p,PINK CHERRY LIGHTS,12,2009-07-01 07:45:00,6.75,13085.0,UK",
        "C489449,22087,PAPER BUNTING,-12,2009-12-01 10:33:00,2.95,16321.0,Australia",
        "489435,22350,CAT BOWL,12,2009-12-01 07:46:00,2.55,,UK",
        "489436,POST,POSTAGE,1,2009-12-01 07:46:00,18.0,13078.0,France",
    ]
    source = written(tmp_path / "retail.csv", *lines)

    events, items = shop(lake, "online_retail", source), shop(lake, "online_retail_items", source)

    assert (events.rows, events.new, events.dropped, events.quarantined) == (5, 2, 3, 0)
    row = everything(lake).filter(pl.col("item_id") == "79323P").row(0, named=True)
    assert (row["user_id"], row["value"], row["currency"]) == ("13085", 81.0, "GBP")
    assert row["timestamp"] == datetime(2009, 7, 1, 6, 45, tzinfo=UTC)  # summer time
    assert row["attributes"] is None
    assert items.new == 3
    assert "Pink Cherry Lights" in lake.items()["title"].to_list()


def test_retailrocket(lake: Lake, tmp_path: Path) -> None:
    lines = [
        "timestamp,visitorid,event,itemid,transactionid",
        "1433221332117,257597,view,355908,",
        "1433224214164,992329,addtocart,248676,",
        "1433222276276,599528,transaction,356475,4000",
    ]
    properties = [
        "timestamp,itemid,property,value",
        "1435460400000,355908,categoryid,1338",
        "1441508400000,248676,888,1116713 960601 n277.200",
    ]

    events = shop(lake, "retailrocket", written(tmp_path / "events.csv", *lines))
    items = shop(lake, "retailrocket_items", written(tmp_path / "p.csv", *properties))

    assert events.new == 3
    assert set(everything(lake)["type"]) == {"view", "cart", "purchase"}
    assert everything(lake)["timestamp"].min() == datetime(2015, 6, 2, 5, 2, 12, 117000, tzinfo=UTC)
    assert (items.new, items.dropped) == (1, 1)


def test_hm(lake: Lake, engine: Engine, tmp_path: Path) -> None:
    lines = [
        "t_dat,customer_id,article_id,price,sales_channel_id",
        "2018-09-20,000058a12d5b,0663713001,0.050830508474576264,2",
        "2018-09-20,000058a12d5b,0663713001,0.050830508474576264,2",
    ]
    customers = [
        "customer_id,FN,Active,club_member_status,fashion_news_frequency,age,postal_code",
        "000058a12d5b,1.0,1.0,ACTIVE,Regularly,49.0,52043ee2162cf5aa7ee79974281641c6",
        "00000dbacae5,,,ACTIVE,NONE,,2973abc54daa8a5f8ccfe9362140c63247c5eee",
    ]
    rules = load_mapping(MAPPINGS / "hm_subscribers.yaml")
    people = written(tmp_path / "customers.csv", *customers)

    assert shop(lake, "hm", written(tmp_path / "t.csv", *lines)).new == 2
    assert everything(lake)["item_id"].to_list() == ["0663713001"] * 2
    assert json.loads(everything(lake)["attributes"][0]) == {"sales_channel_id": "2"}
    import_table("subscribers", [people], rules, lake, engine, tmp_path)
    known = SubscriberStore(engine).get(["000058a12d5b", "00000dbacae5"])
    assert [s.consent_mail for s in known if s] == [True, False]


def test_instacart_is_timed_by_the_days_between_orders(lake: Lake, tmp_path: Path) -> None:
    written(
        tmp_path / "orders.csv",
        "order_id,user_id,eval_set,order_number,order_dow,order_hour_of_day,days_since_prior_order",
        "7,202279,train,4,5,10,3.0",
        "2,202279,prior,3,5,09,8.0",
        "1,202279,prior,1,5,09,",
        "5,202279,prior,2,5,09,2.0",
    )
    lines = ["order_id,product_id,add_to_cart_order,reordered", "2,33120,1,1", "5,28985,2,1"]

    summary = shop(lake, "instacart", written(tmp_path / "order_products__prior.csv", *lines))

    assert summary.new == 2
    rows = everything(lake).select("user_id", "basket_id", "timestamp").sort("basket_id").rows()
    assert rows == [
        ("202279", "2", datetime(2017, 12, 29, 9, tzinfo=UTC)),  # 3 days before the next order
        ("202279", "5", datetime(2017, 12, 21, 9, tzinfo=UTC)),
    ]


def test_an_expression_that_does_not_fit_the_file_beside_is_one_error(
    lake: Lake, tmp_path: Path
) -> None:
    source = written(tmp_path / "e.csv", HEADER, GOOD)
    written(tmp_path / "other.csv", "user_id,x", "u1,2")
    rules = mapping(join={"other.csv": "user_id"}, beside={"other.csv": {"y": "z + 1"}})

    with pytest.raises(ConfigError, match="beside"):
        importing(lake, source, rules=rules)
    with pytest.raises(ValueError, match="no file of `join`"):
        mapping(beside={"other.csv": {"y": "x"}})


def test_a_file_to_join_that_does_not_fit_is_one_error(lake: Lake, tmp_path: Path) -> None:
    source = written(tmp_path / "e.csv", HEADER, GOOD)
    rules = mapping(join={"other.csv": "user_id"})

    with pytest.raises(InputError, match="does not exist"):
        importing(lake, source, rules=rules)
    written(tmp_path / "other.csv", "user_id,x")
    with pytest.raises(InputError, match="no rows to join"):
        importing(lake, source, rules=rules)
    written(tmp_path / "other.csv", "customer,x", "u1,2")
    with pytest.raises(ConfigError, match="cannot be joined on user_id"):
        importing(lake, source, rules=rules)


def test_movielens_amazon_and_taobao(lake: Lake, tmp_path: Path) -> None:
    ratings = written(tmp_path / "r.csv", "userId,movieId,rating,timestamp", "1,2,3.5,1112486027")
    clicks = written(tmp_path / "UserBehavior.csv", "1,2268318,2520377,pv,1511544070")
    review = {
        "rating": 5.0,
        "title": "Such a lovely scent",
        "text": "…",
        "images": [],
        "asin": "B00YQ6X8EO",
        "parent_asin": "B00YQ6X8EO",
        "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ",
        "timestamp": 1588687728923,
        "helpful_vote": 0,
        "verified_purchase": True,
    }
    reviews = tmp_path / "All_Beauty.jsonl.gz"
    reviews.write_bytes(gzip.compress(json.dumps(review).encode()))

    for name, file in (("movielens", ratings), ("taobao", clicks), ("amazon_reviews", reviews)):
        assert shop(lake, name, file).new == 1

    assert sorted(everything(lake)["type"]) == ["rating", "rating", "view"]
    assert everything(lake)["attributes"].drop_nulls().to_list() == []
    assert everything(lake)["timestamp"].dt.year().sort().to_list() == [2005, 2017, 2020]


def test_a_shop_that_needs_every_key_of_a_mapping(lake: Lake, tmp_path: Path) -> None:
    written(tmp_path / "articles.csv", "Artikel;Sorte", "1;Grün", "2;Schwarz", encoding="latin-1")
    lines = [
        "Müller;04.12.2017 13:30;1;Kauf;2;1.234,50;x",
        "Müller;04.12.2017 13:31;2;Ansicht;1;n/a;",
        "n/a;04.12.2017 13:31;2;Ansicht;1;1;",
        "Ann;04.12.2017 13:31;2;Kauf;0;1;",
        "Ann;04.12.2017 13:31;2;Kauf;viel;1;",
    ]
    source = written(tmp_path / "sales.csv", *lines, encoding="latin-1")

    summary = shop(lake, "every_key", source)

    assert (summary.new, summary.dropped) == (2, 2)
    assert summary.reasons == {"Menge is not a number": 1}
    row = everything(lake).filter(pl.col("type") == "purchase").row(0, named=True)
    assert (row["user_id"], row["value"], row["currency"]) == ("Müller", 2469.0, "EUR")
    assert row["timestamp"] == datetime(2017, 12, 4, 12, 30, tzinfo=UTC)
    assert json.loads(row["attributes"]) == {"Sorte": "Grün", "same_kind": 1}


def test_a_file_of_torn_lines_only_is_refused(lake: Lake, tmp_path: Path) -> None:
    source = written(tmp_path / "e.csv", "user_id,type,timestamp", "1,2", "3")

    with pytest.raises(InputError, match="2 of 2 rows are bad"):
        importing(lake, source)


@pytest.mark.parametrize(("header", "name"), [("user_id", "user_id"), (",", "(empty)")])
def test_two_columns_of_one_name_are_one_error(
    lake: Lake, tmp_path: Path, header: str, name: str
) -> None:
    source = written(tmp_path / "e.csv", f"user_id,type,timestamp,{header}", "1,2,3,4,5")

    with pytest.raises(InputError, match="columns of the same name") as caught:
        importing(lake, source)

    assert name in caught.value.what


def test_a_torn_line_in_another_encoding_is_one_error(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "e.csv"
    source.write_bytes(f"{HEADER}\n{GOOD}\nMüller,purchase\n".encode("latin-1"))
    lost: list[object] = []  # exceptions that nobody can catch, which Python prints
    monkeypatch.setattr(sys, "unraisablehook", lost.append)

    with pytest.raises(InputError, match="cannot be read"):
        importing(lake, source)

    assert not lost


@pytest.mark.parametrize("header", ["a,b", "user_id,timestamp"])
def test_the_columns_of_a_file_without_rows_are_checked(
    lake: Lake, tmp_path: Path, header: str
) -> None:
    with pytest.raises(InputError, match="no column"):
        importing(lake, written(tmp_path / "e.csv", header))

    assert importing(lake, written(tmp_path / "e.csv", HEADER)).notes[0] == "the files have no rows"


@pytest.mark.parametrize(
    ("name", "advised"), [("e.parquet", False), ("e.jsonl", False), ("e.csv", True)]
)
def test_only_a_csv_is_said_to_have_an_encoding(
    lake: Lake, tmp_path: Path, name: str, advised: bool
) -> None:
    (tmp_path / name).write_bytes(b"\xff\xfe\x00")

    with pytest.raises(InputError, match="cannot be read") as caught:
        importing(lake, tmp_path / name)

    assert ("encoding" in caught.value.todo) == advised


def test_an_unclosed_quote_does_not_pass_as_one_long_id(lake: Lake, tmp_path: Path) -> None:
    lines = ["type,timestamp,user_id", *["view,2017-05-01,u1"] * 3]
    source = written(tmp_path / "e.csv", *lines, 'view,2017-05-01,"u2', *lines[1:])

    summary = importing(lake, source)

    assert (summary.new, summary.reasons) == (3, {"user_id holds a control character": 1})


def test_a_clean_file_leaves_the_quarantine_of_another_of_its_name(
    lake: Lake, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    kept = tmp_path / "quarantine"
    bad = written(tmp_path / "a" / "e.csv", HEADER, GOOD, BAD_ROWS["missing type"])
    first = import_table("events", [bad], None, lake, None, kept)
    good = written(tmp_path / "b" / "e.csv", HEADER, GOOD)
    import_table("events", [good], None, lake, None, kept)

    assert [*kept.iterdir()] == [first.quarantine_file]


def test_user_ids_that_are_addresses_are_counted_with_what_to_do(
    lake: Lake, tmp_path: Path
) -> None:
    lines = [HEADER, GOOD, *[GOOD.replace("u1", "ann@example.org")] * 2]

    summary = importing(lake, written(tmp_path / "e.csv", *lines))

    assert summary.new == 3
    assert [note for note in summary.notes if note.startswith("2 rows have a user_id with an @")]


def test_a_mapping_that_leaves_every_row_out_says_so(lake: Lake, tmp_path: Path) -> None:
    summary = importing(
        lake, written(tmp_path / "e.csv", HEADER, GOOD, GOOD), rules=mapping(drop=["1"])
    )

    assert (summary.rows, summary.dropped, summary.new) == (2, 2, 0)
    assert summary.notes[0] == "every row was left out by `drop` of the mapping"
