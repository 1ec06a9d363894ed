"""Purchases: a shown item counts when the same household really bought it in the window."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reco.campaigns.delivery import delivery_id
from reco.errors import InputError
from reco.outcomes.purchases import match, observed_until
from reco.tables import EVENTS

START = datetime(2017, 12, 4, tzinfo=UTC)


def events(*rows):
    """Events of (user, item, days after START, value); every other column is null."""
    frame = pl.DataFrame(
        [
            (f"e{i}", user, "purchase", START + timedelta(days=days), item, value)
            for i, (user, item, days, value) in enumerate(rows)
        ],
        schema=["event_id", "user_id", "type", "timestamp", "item_id", "value"],
        orient="row",
    )
    return pl.concat([pl.from_arrow(EVENTS.empty_table()), frame], how="diagonal_relaxed")


def mails(*rows):
    return pl.DataFrame(
        rows,
        schema={"user_id": pl.String, "arm": pl.String, "state": pl.String, "items": pl.List(str)},
        orient="row",
    )


def one(deliveries, purchases, **options):
    return match(deliveries, purchases, START, **options).row(0, named=True)


def test_single_sends_of_several_keys_are_of_one_user():
    deliveries = mails(
        (delivery_id("u", "order-1"), "personal", "accepted", ["milk"]),
        (delivery_id("u", "order-2"), "personal", "accepted", ["milk", "tea"]),
        ("v", "personal", "accepted", None),
    )
    bought = events(("u", "tea", 1, 2.0), ("u", "soap", 1, 3.0), ("v", "soap", 1, 5.0))

    outcomes = match(deliveries, bought, START).select(
        "user_id", "shown", "bought", "revenue", "household_revenue"
    )

    assert outcomes.rows() == [("u", 2, 1, 2.0, 5.0), ("v", 0, 0, 0.0, 5.0)]


def test_the_outcome_of_one_mail():
    deliveries = mails(("u", "personal", "accepted", ["milk", "bread", "tea", "tea"]))
    outcome = one(
        deliveries,
        events(
            ("u", "milk", -40, 9.0),  # known, but before the covariate's window
            ("u", "milk", 1, 2.0),
            ("u", "milk", 20, 3.0),
            ("u", "bread", 2, 1.5),
            ("u", "soap", 3, 4.0),  # bought, not shown
            ("u", "tea", -3, 6.0),  # shown and known, not bought
            ("other", "tea", 3, 8.0),
        ),
    )

    assert outcome == {
        "user_id": "u",
        "arm": "personal",
        "shown": 3,
        "known_shown": 2,
        "bought": 2,
        "repeats": 1,
        "any_bought": True,
        "revenue": 6.5,
        "household_revenue": 10.5,
        "revenue_before": 6.0,
    }


def test_the_window_is_half_open():
    deliveries = mails(("u", "a", "accepted", ["first", "last", "early", "late"]))
    day = 1 / 86_400
    outcome = one(
        deliveries,
        events(("u", "first", 0, 1.0), ("u", "last", 28 - day, 2.0), ("u", "early", -day, 4.0),
               ("u", "late", 28, 8.0)),
    )  # fmt: skip

    assert (outcome["bought"], outcome["revenue"], outcome["revenue_before"]) == (2, 3.0, 4.0)


def test_only_accepted_mails_have_an_outcome():
    """Nobody read the others, so a missing purchase says nothing about them."""
    states = ["accepted", "suppressed", "failed", "uncertain", "deferred", "queued"]
    deliveries = mails(*[(s, "a", s, ["milk"] if s == "accepted" else None) for s in states])

    assert match(deliveries, events(), START)["user_id"].to_list() == ["accepted"]


def test_a_household_that_bought_nothing_is_a_zero_not_a_gap():
    outcome = one(mails(("u", "a", "accepted", ["milk"])), events(("other", "milk", 1, 1.0)))

    assert (outcome["any_bought"], outcome["bought"], outcome["revenue"]) == (False, 0, 0.0)
    assert outcome["household_revenue"] == 0.0


def test_views_and_purchases_without_a_time_or_an_item_are_no_hits():
    timeless = events(("u", "milk", 1, 5.0)).with_columns(
        timestamp=pl.lit(None).cast(pl.Datetime("us", "UTC"))
    )
    views = events(("u", "milk", 1, 5.0)).with_columns(type=pl.lit("view"))
    nameless = events(("u", None, 1, 5.0))
    outcome = one(
        mails(("u", "a", "accepted", ["milk"])), pl.concat([timeless, views, nameless]).lazy()
    )

    assert (outcome["bought"], outcome["household_revenue"]) == (0, 5.0)


def test_without_a_value_the_price_times_the_quantity_counts():
    purchases = events(("u", "milk", 1, None)).with_columns(
        price=pl.lit(1.25), quantity=pl.lit(4.0)
    )

    assert one(mails(("u", "a", "accepted", ["milk"])), purchases)["revenue"] == 5.0


def test_without_a_start_each_mail_opens_its_own_window():
    deliveries = mails(
        ("early", "a", "accepted", ["milk"]), ("late", "a", "accepted", ["milk"])
    ).with_columns(accepted_at=pl.Series([START, START + timedelta(days=10)]))
    purchases = events(("early", "milk", 5, 1.0), ("late", "milk", 5, 1.0))

    assert match(deliveries, purchases)["any_bought"].to_list() == [True, False]


def test_mails_without_any_time_are_refused():
    with pytest.raises(InputError, match="accepted_at"):
        match(mails(("u", "a", "accepted", ["milk"])), events())


def test_the_last_purchase_bounds_what_was_observed():
    assert observed_until(events(("u", "a", 3, 1.0), ("v", "a", 1, 1.0))) == START + timedelta(
        days=3
    )
    assert observed_until(events()) is None


ITEMS = st.sampled_from("abcde")
BUYS = st.lists(
    st.tuples(st.sampled_from("uv"), ITEMS, st.integers(-60, 60), st.integers(1, 9).map(float)),
    max_size=25,
)


@given(BUYS, st.lists(ITEMS, max_size=4), st.integers(1, 40))
def test_matching_agrees_with_counting_by_hand(buys, items, days):
    outcome = one(mails(("u", "a", "accepted", items)), events(*buys), days=days)
    mine = [(item, day, value) for user, item, day, value in buys if user == "u"]
    inside = {item for item, day, _ in mine if 0 <= day < days}
    before = {item for item, day, _ in mine if day < 0}

    assert outcome["bought"] == len(set(items) & inside)
    assert outcome["repeats"] == len(set(items) & inside & before)
    assert outcome["known_shown"] == len(set(items) & before)
    assert outcome["revenue"] == sum(v for i, d, v in mine if 0 <= d < days and i in items)
    assert outcome["household_revenue"] == sum(v for _, d, v in mine if 0 <= d < days)
    assert outcome["revenue_before"] == sum(v for _, d, v in mine if -days <= d < 0)
