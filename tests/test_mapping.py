"""Mappings: strict YAML, all mistakes at once, and values of any source as values of our types."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reco.errors import ConfigError
from reco.events.attributes import sparse_json
from reco.events.conversion import convert
from reco.events.mapping import (
    Kind,
    Mapping,
    check_expressions,
    check_names,
    load_mapping,
    renamed,
)
from reco.events.validation import check
from reco.tables import TABLES

ROOT = Path(__file__).parent.parent
MAPPINGS = sorted((ROOT / "configs" / "mappings").glob("*.yaml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "shop.yaml"
    path.write_text(text)
    return path


def mapping(**keys: object) -> Mapping:
    return Mapping.model_validate({"table": "events", **keys})


def converted(values: list[object], kind: Kind, **keys: object) -> list[object]:
    column = pl.Series("x", values, strict=False)
    expression = convert(pl.col("x"), column.dtype, kind, mapping(**keys))
    return column.to_frame().select(expression).to_series().to_list()


@pytest.mark.parametrize("path", MAPPINGS, ids=lambda path: path.stem)
def test_every_mapping_of_the_repository_loads_and_names_known_columns(path: Path) -> None:
    loaded = load_mapping(path)

    given = {*loaded.rename.values(), *loaded.derive, *loaded.constants, *(loaded.columns or [])}
    assert given & set(TABLES[loaded.table].names)
    assert f"--mapping configs/mappings/{path.name}" in path.read_text()


def test_one_mapping_explains_every_key() -> None:
    example = load_mapping(ROOT / "configs" / "mappings" / "every_key.yaml")

    assert example.model_fields_set == set(Mapping.model_fields)


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        table: event
        renam: {a: user_id}
        timezone: Europe/Londn
        encoding: utf-99
        separator: ";;"
        drop: ["Quantity >"]
        cast: {x: float}
        """,
    )

    with pytest.raises(ConfigError) as caught:
        load_mapping(path)

    text = str(caught.value)
    for key in ("table", "renam", "timezone", "encoding", "separator", "drop", "cast"):
        assert key in text
    assert str(path) in text
    assert "did you mean rename" in text


@pytest.mark.parametrize("line", ["values: {consent_mail: {yes: Y}}", "null_values: [NULL]"])
def test_words_that_yaml_reads_as_something_else_want_quotes(tmp_path: Path, line: str) -> None:
    path = written(tmp_path, f"table: subscribers\n{line}\n")

    with pytest.raises(ConfigError, match="must stand in quotes"):
        load_mapping(path)


def test_a_bare_boolean_is_a_value_that_we_write(tmp_path: Path) -> None:
    path = written(tmp_path, "table: subscribers\nvalues: {consent_mail: {Y: true, N: no}}\n")

    assert load_mapping(path).values == {"consent_mail": {"Y": "true", "N": "false"}}


def test_two_sources_for_one_column_are_a_mistake(tmp_path: Path) -> None:
    path = written(tmp_path, "table: events\nrename: {a: value}\nderive: {value: b * 2}\n")

    with pytest.raises(ConfigError, match="value more than once"):
        load_mapping(path)


def test_unknown_columns_are_told_with_the_key_that_names_them() -> None:
    rules = mapping(rename={"a": "user_id"}, derive={"value": "b * c"}, drop=["d > 1"])

    with pytest.raises(ConfigError) as caught:
        check_names(["b"], rules)

    text = str(caught.value)
    assert "rename: a" in text
    assert "derive: value: b * c: the source has no column c" in text
    assert "drop: d > 1" in text


def test_text_in_arithmetic_is_told_with_the_way_out() -> None:
    rules = mapping(derive={"value": "a * b"})

    with pytest.raises(ConfigError, match="cast") as caught:
        check_expressions(pl.DataFrame({"a": ["1"], "b": ["2"]}), rules)

    assert "derive: value: a * b" in str(caught.value)


def test_steps_follow_their_order() -> None:
    raw = pl.DataFrame({"who": ["7"], "what": ["buy"], "n": [2], "p": [1.5], "x": ["kept"]})
    rules = mapping(
        rename={"who": "user_id", "what": "type"},
        derive={"value": "n * p"},
        constants={"currency": "EUR", "timestamp": None},
        values={"type": {"buy": "purchase"}},
        ignore=["n", "p"],
    )

    row = renamed(raw, rules).row(0, named=True)

    assert row == {
        "user_id": "7",
        "type": "purchase",
        "value": 3.0,
        "currency": "EUR",
        "timestamp": None,
        "x": "kept",
    }


def test_ids_are_text_without_the_marks_of_a_number() -> None:
    assert converted([17850, None], "text") == ["17850", None]
    assert converted([17850.0, 1.5], "text") == ["17850", "1.5"]
    assert converted(["0663713001", " a ", "", "x\x00y"], "text") == [
        "0663713001",
        "a",
        None,
        "xy",
    ]


def test_numbers_of_both_worlds_are_read() -> None:
    assert converted(["1.5", " 2 ", "x", "", "1e3"], "number") == [1.5, 2.0, None, None, 1000.0]
    assert converted(["1.234,50", "-3"], "number", decimal_comma=True) == [1234.5, -3.0]


def test_truth_is_read_from_words_and_digits() -> None:
    assert converted(["Yes", "n", "1", "FALSE", "perhaps"], "boolean") == [
        True,
        False,
        True,
        False,
        None,
    ]
    assert converted([1, 0, None], "boolean") == [True, False, None]


NOON = datetime(2017, 12, 4, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2017-12-04T12:00:00Z",
        "2017-12-04 12:00:00",
        "2017-12-04 12:00",
        "2017-12-04T12:00:00.000000",
        "2017-12-04T13:00:00+01:00",
        "2017-12-04 07:00:00 -0500",
        "2017-12-04 12:00:00 UTC",
        "1512388800",
        "1512388800.0",
        "1512388800000",
        "1512388800000000",
    ],
)
def test_a_time_is_read_in_any_usual_form(text: str) -> None:
    assert converted([text], "time") == [NOON]


@pytest.mark.parametrize("text", ["2017-12-04", "20171204", "2017-12-04 00:00:00"])
def test_a_day_begins_at_midnight_of_the_shop(text: str) -> None:
    assert converted([text], "time", timezone="America/New_York") == [
        datetime(2017, 12, 4, 5, tzinfo=UTC)
    ]


def test_a_time_that_cannot_be_read_is_none() -> None:
    assert converted(["yesterday", "2017-13-01", "04/12/2017", "-"], "time") == [None] * 4


def test_a_given_format_decides() -> None:
    days_first = {"timestamp_format": "%d/%m/%Y %H:%M", "timezone": "Europe/London"}
    assert converted(["04/07/2017 13:00"], "time", **days_first) == [
        datetime(2017, 7, 4, 12, tzinfo=UTC)
    ]
    assert converted(["04/12/2017 12:00 +0000"], "time", timestamp_format="%d/%m/%Y %H:%M %z") == [
        NOON
    ]
    assert converted([1512388800], "time", timestamp_format="epoch_s") == [NOON]
    assert converted(["1512388800000"], "time", timestamp_format="epoch_ms") == [NOON]


def test_the_hours_at_which_clocks_change_are_read() -> None:
    """02:30 did not exist on 12 March 2017, 01:30 came twice on 5 November."""
    assert converted(
        ["2017-03-12 02:30:00", "2017-11-05 01:30:00"], "time", timezone="America/New_York"
    ) == [datetime(2017, 3, 12, 7, 30, tzinfo=UTC), datetime(2017, 11, 5, 5, 30, tzinfo=UTC)]


@given(st.integers(631_152_000_000_000, 4_070_908_800_000_000))
def test_every_instant_from_1990_to_2099_survives_text_and_epochs(micros: int) -> None:
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    exact = converted([when.isoformat()], "time") + converted([when], "time")

    assert exact == [when, when]
    seconds = converted([str(micros // 1_000_000)], "time", timestamp_format="epoch_s")
    assert seconds == [when.replace(microsecond=0)]


def test_attributes_hold_what_is_not_null() -> None:
    frame = pl.DataFrame(
        {
            "a": ['quote " and "a":null, }', None, None],
            "b": [None, 2, None],
            "c d": [None, "é", None],
        }
    )

    assert sparse_json(frame).to_list() == [
        '{"a":"quote \\" and \\"a\\":null, }"}',
        '{"b":2,"c d":"é"}',
        None,
    ]


def test_given_attributes_and_further_columns_become_one_object() -> None:
    frame = pl.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "attributes": ['{"x":1}', None, "{}"],
            "colour": ["red", "blue", None],
        }
    )

    rows = check(frame, Mapping.model_validate({"table": "items"})).rows

    assert rows["attributes"].to_list() == ['{"x":1,"colour":"red"}', '{"colour":"blue"}', None]


def test_every_column_of_every_table_has_a_kind() -> None:
    for schema in TABLES.values():
        frame = pl.DataFrame({name: [None] for name in schema.names})
        table = next(name for name, other in TABLES.items() if other is schema)
        checked = check(frame, Mapping.model_validate({"table": table}))
        assert set(checked.rows.columns) <= set(schema.names)
        assert isinstance(schema, pa.Schema)
