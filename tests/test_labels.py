"""Labels of shown items: what counts, how much, and what nobody can know."""

from datetime import UTC, datetime, timedelta

import polars as pl

from reco.outcomes.labels import labels

T0 = datetime(2026, 3, 2, 9, tzinfo=UTC)
NOW = T0 + timedelta(days=30)
HOUR = timedelta(hours=1)
TIME = pl.Datetime("us", "UTC")
MAILS = pl.DataFrame(
    {"campaign_id": "c", "delivery_id": ["d"], "user_id": ["u"], "items": [["a", "b", "x", "y"]],
     "accepted_at": [T0]},
    schema_overrides={"accepted_at": TIME},
)  # fmt: skip


def clicks(*rows, kind="click"):
    return pl.DataFrame(
        [
            {"campaign_id": "c", "delivery_id": "d", "type": kind, "slot": slot, "timestamp": at,
             "machine": machine, "human": machine < 0.5}
            for slot, at, machine in rows
        ],
        schema={"campaign_id": pl.String, "delivery_id": pl.String, "type": pl.String,
                "slot": pl.Int32, "timestamp": TIME, "machine": pl.Float64, "human": pl.Boolean},
    )  # fmt: skip


def purchases(*rows):
    return pl.DataFrame(
        [{"user_id": "u", "item_id": item, "timestamp": at} for item, at in rows],
        schema={"user_id": pl.String, "item_id": pl.String, "timestamp": TIME},
    )


def of(clicked=(), bought=(), now=NOW, **more):
    frame = labels(MAILS, clicks(*clicked, **more), purchases(*bought), now).sort("slot")
    return frame["clicked"].to_list(), frame["weight"].to_list(), frame["bought"].to_list()


def test_items_above_the_last_click_were_looked_at_and_those_below_perhaps():
    clicked, weight, _ = of([(1, T0 + HOUR, 0.25)])

    assert [0, 1, 0, 0] == clicked
    assert [1.0, 0.75, 0.5, 0.5] == weight


def test_a_mail_without_a_click_of_a_person_says_nothing():
    nothing = ([None] * 4, [0.0] * 4, [None] * 4)

    assert nothing == of()
    assert nothing == of([(1, T0 + HOUR, 0.9)])
    assert nothing == of([(1, T0 + HOUR, 0.0)], kind="open")


def test_clicks_count_for_72_hours_and_nothing_is_known_before():
    assert of([(0, T0 + 73 * HOUR, 0.0)])[0] == [None] * 4
    assert of([(0, T0 + 72 * HOUR, 0.0)])[0] == [1, 0, 0, 0]
    assert of([(0, T0 + HOUR, 0.0)], now=T0 + 71 * HOUR)[0] == [None] * 4


def test_purchases_count_for_7_days_after_the_click():
    at = T0 + HOUR
    week = timedelta(days=7)

    assert of([(1, at, 0.0)], [("b", at + week), ("b", at + HOUR)])[2] == [None, 1, None, None]
    assert of([(1, at, 0.0)], [("b", at + week + HOUR), ("b", T0)])[2] == [None, 0, None, None]
    assert of([(1, at, 0.0)], [("a", at + HOUR)], now=at + HOUR)[2] == [None] * 4
