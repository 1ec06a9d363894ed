from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reco.errors import ModelMismatch
from reco.features import history
from reco.features.history import (
    NO_PROFILING,
    RECORD,
    Histories,
    cutoff_day,
    day_of,
    from_events,
)
from reco.tables import item_key, type_code
from tests.feature_events import USERS, event_frame, event_rows

N = 3
FACT = st.tuples(
    st.integers(0, N - 1),  # owner
    st.tuples(
        st.sampled_from([0, 7, 2**63, 2**64 - 1]),  # item
        st.integers(-(2**31) + 1, 2**31 - 1),  # cents
        st.integers(0, 65_535),  # day
        st.integers(0, 255),  # count
        st.sampled_from([1, 2, 255]),  # type
    ),
)
FACTS = st.lists(FACT, max_size=30)
# Money that never reaches the limit, where sums stop: there the order would matter.
MODEST = FACTS.map(lambda facts: [(o, (i, c // 1000, d % 4, n, t)) for o, (i, c, d, n, t) in facts])


def histories(facts, flags=None):
    owner = np.array([owner for owner, _ in facts], np.int64)
    records = np.array([fact for _, fact in facts], RECORD)
    return Histories.of(owner, records, N, flags=flags)


@given(MODEST, MODEST)
def test_merge_is_commutative(a, b):
    a, b = histories(a), histories(b)

    assert a.merge(b).pack() == b.merge(a).pack()


@given(MODEST, MODEST, MODEST)
def test_merge_is_associative(a, b, c):
    a, b, c = histories(a), histories(b), histories(c)

    assert a.merge(b).merge(c).pack() == a.merge(b.merge(c)).pack()


@given(FACTS)
def test_nothing_merged_in_changes_nothing(facts):
    merged = histories(facts).merge(Histories.unpack([None] * N))

    assert merged.pack() == histories(facts).pack()


@given(st.integers(0, 10_000), st.data())
def test_events_in_any_order_and_grouping_give_the_same_bytes(seed, data):
    rows = event_rows(seed, 40)
    whole = from_events(event_frame(rows), USERS)
    shuffled = data.draw(st.permutations(rows))
    cuts = sorted(data.draw(st.lists(st.integers(0, 40), max_size=4)))
    merged = from_events(event_frame([]), USERS)
    for start, stop in zip([0, *cuts], [*cuts, 40], strict=True):
        merged = merged.merge(from_events(event_frame(shuffled[start:stop]), USERS))

    assert merged.pack() == whole.pack()


@given(FACTS)
def test_unpacking_gives_back_what_was_packed(facts):
    packed = histories(facts)
    unpacked = Histories.unpack(packed.pack())

    assert unpacked.pack() == packed.pack()
    assert unpacked.records.tobytes() == packed.records.tobytes()
    assert unpacked.offsets.tolist() == packed.offsets.tolist()


@given(FACTS)
def test_sorting_by_two_keys_gives_the_same_bytes_as_by_one(facts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "ONE_KEY", 0)
        by_two = histories(facts).pack()

    assert by_two == histories(facts).pack()


@given(FACTS)
def test_records_are_sorted_and_distinct(facts):
    compact = histories(facts)
    keys = [
        (int(o), int(r["type"]), int(r["item"]), int(r["day"]))
        for o, r in zip(compact.owner, compact.records, strict=True)
    ]

    assert keys == sorted({(o, t, i, d) for o, (i, _, d, _, t) in facts})


def test_equal_facts_add_up_and_stop_at_the_limits():
    fact = (7, 2_000_000_000, 100, 200, 1)
    one = histories([(0, fact), (0, fact)]).records

    assert one.tolist() == [(7, 2**31 - 1, 100, 255, 1)]


def test_an_event_becomes_a_record_of_its_item_day_money_and_type():
    row = {
        "user_id": "ann",
        "type": "purchase",
        "item_id": "tea",
        "timestamp": datetime(2017, 12, 3, 23, 59, tzinfo=UTC),
        "price": 1.1,
        "quantity": 3.0,
    }
    record = from_events(event_frame([row, row | {"value": 2.0}]), ["bob", "ann"])

    assert record.offsets.tolist() == [0, 0, 1]
    assert record.records.tolist() == [
        (item_key("tea"), 330 + 200, 17_503, 2, type_code("purchase"))
    ]


def test_tokens_and_flags_travel_with_the_row():
    tokens = np.arange(1, 2 * N + 1, dtype=np.uint32).reshape(N, 2)
    flags = np.array([0, NO_PROFILING, 0], np.uint16)
    packed = Histories.of(np.zeros(0, np.int64), np.zeros(0, RECORD), N, tokens, flags)
    unpacked = Histories.unpack([*packed.pack(), None])

    assert unpacked.tokens.tolist() == [*tokens.tolist(), [0, 0]]
    assert unpacked.flags.tolist() == [*flags.tolist(), 0]


def test_who_refuses_profiling_keeps_no_record_not_even_by_a_merge():
    fact = (7, 1, 100, 1, 1)
    refused = histories([(0, fact), (1, fact)], np.array([NO_PROFILING, 0, 0], np.uint16))
    merged = refused.merge(histories([(0, fact), (2, fact)]))

    assert refused.offsets.tolist() == [0, 0, 1, 1]
    assert merged.offsets.tolist() == [0, 0, 1, 2]
    assert merged.flags.tolist() == [NO_PROFILING, 0, 0]


def test_a_row_of_another_layout_is_refused():
    row = bytearray(histories([]).pack()[0])
    row[4] ^= 1  # the hash of the layout

    with pytest.raises(ModelMismatch, match="another layout"):
        Histories.unpack([bytes(row)])


@given(FACTS, st.integers(0, 70_000))
def test_before_keeps_exactly_the_earlier_days(facts, day):
    kept = [(o, f) for o, f in facts if f[2] < day]

    assert histories(facts).before(day).pack() == histories(kept).pack()


@given(FACTS, st.integers(0, N), st.integers(0, N))
def test_a_part_of_a_chunk_is_what_its_subscribers_have(facts, a, b):
    start, stop = sorted((a, b))

    assert histories(facts).take(start, stop).pack() == histories(facts).pack()[start:stop]


def test_at_midnight_the_day_that_begins_does_not_count_and_later_it_does():
    midnight = datetime(2017, 12, 4, tzinfo=UTC)

    assert cutoff_day(midnight) == day_of(midnight)
    assert cutoff_day(midnight + timedelta(microseconds=1)) == day_of(midnight) + 1
    assert cutoff_day(midnight + timedelta(hours=23)) == day_of(midnight) + 1
    assert cutoff_day(midnight.astimezone(timezone(timedelta(hours=-5)))) == day_of(midnight)


def test_events_of_others_are_left_out():
    frame = event_frame(event_rows(1, 200))
    mine = from_events(frame.filter(pl.col("user_id") == "u1"), ["u1"])

    assert from_events(frame, ["u1"]).pack() == mine.pack()
