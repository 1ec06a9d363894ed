"""Features against an oracle: loops over plain events, one feature after the other."""

import math
from collections import defaultdict
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reco.features.definitions import (
    CONTEXT_FEATURES,
    ITEM_FEATURES,
    SCHEMA_HASH,
    USER_FEATURES,
    read_all,
    read_users,
)
from reco.features.history import Histories, cutoff_day, day_of, from_events
from reco.features.items import ItemFacts
from reco.features.moment import Moment
from reco.features.pairs import HALF_LIVES_DAYS, pairs
from reco.features.popularity import ItemCounts, ItemView, count_items, popular_keys
from reco.features.targets import strongest
from reco.features.view import Context, View
from reco.tables import item_key
from tests.feature_events import ITEM_IDS, NOON, USERS, event_frame, event_rows, shop

SHOP = shop()
AS_OF = cutoff_day(NOON)
CONTEXT = Context(AS_OF, ItemFacts.of(SHOP))
PRICES = dict(zip(SHOP.frame["item_id"], SHOP.frame["price"], strict=True))
CATEGORIES = dict(zip(SHOP.frame["item_id"], SHOP.frame["category"], strict=True))


def oracle_facts(rows, user=None):
    """(type, item, age or None, money) of the events that count."""
    for row in rows:
        if user is not None and row["user_id"] != user:
            continue
        when = row["timestamp"]
        age = None if when is None else AS_OF - day_of(when)
        if age is not None and age < 1:
            continue
        money = row["value"]
        if money is None:
            price = row["price"]
            money = 0.0 if price is None else price * (row["quantity"] or 1.0)
        yield row["type"], row["item_id"], age, round(money * 100) / 100


def _bands():
    known = sorted(p for p in PRICES.values() if p is not None)
    edges = [float(np.quantile(np.array(known, np.float32), q / 5)) for q in range(1, 5)]
    return {i: sum(p >= e for e in edges) for i, p in PRICES.items() if p is not None}


BANDS = _bands()  # fifth of the known prices, by item


def weight(age):
    return 1.0 if age is None else 0.5 ** (age / 120)


def oracle_user(rows, user):
    facts = list(oracle_facts(rows, user))
    out = {}
    for kind in ("purchase", "click", "open", "view", "any"):
        mine = [f for f in facts if kind in (f[0], "any")]
        for days in (7, 28, 90):
            within = [f for f in mine if f[2] is not None and f[2] <= days]
            out[f"count_{kind}_{days}d"] = len(within)
            out[f"money_{kind}_{days}d"] = sum(f[3] for f in within)
    dated = [f for f in facts if f[2] is not None]
    bought = [f for f in facts if f[0] == "purchase"]
    out["purchase_count_30d"] = sum(f[2] <= 30 for f in dated if f[0] == "purchase")
    for kind in ("open", "click", "purchase"):
        out[f"days_since_{kind}"] = min((f[2] for f in dated if f[0] == kind), default=math.nan)
    sent = sum(f[2] <= 90 for f in dated if f[0] == "delivery")
    for kind in ("open", "click"):
        seen = sum(f[2] <= 90 for f in dated if f[0] == kind)
        out[f"{kind}_rate_90d"] = min(1.0, seen / sent) if sent else math.nan
    out |= oracle_taste(bought)
    days = defaultdict(set)
    for _, item, age, _ in bought:
        if item is not None:
            days[item].add(0 if age is None else AS_OF - age)
    gaps = [(max(d) - min(d)) / (len(d) - 1) for d in days.values() if len(d) > 1]
    out["repeat_gap"] = sum(gaps) / len(gaps) if gaps else math.nan
    out["distinct_items"] = len(days)
    out["tenure"] = max((f[2] for f in dated), default=math.nan)
    out["active_days"] = len({f[2] for f in dated})
    return out


def oracle_taste(bought):
    liked, bands, out = defaultdict(float), [0.0] * 5, {}
    for _, item, age, _ in bought:
        if CATEGORIES.get(item) is not None:
            liked[SHOP.category_names.index(CATEGORIES[item])] += weight(age)
        if item in BANDS:
            bands[BANDS[item]] += weight(age)
    best = sorted(liked.items(), key=lambda pair: (-pair[1], pair[0]))
    for k in range(3):
        code, amount = best[k] if k < len(best) else (-1, 0.0)
        out[f"category_{k + 1}"] = code
        out[f"category_{k + 1}_share"] = amount / sum(liked.values()) if liked else 0.0
    total = sum(bands)
    out["price_band_mean"] = sum(b * w for b, w in enumerate(bands)) / total if total else math.nan
    half = (b for b in range(5) if sum(bands[: b + 1]) >= total / 2)
    out["price_band_median"] = next(half) if total else math.nan
    return out


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.integers(0, 300))
def test_user_features_are_what_the_oracle_says(seed, count):
    rows = event_rows(seed, count)
    values = read_users(from_events(event_frame(rows), USERS), CONTEXT)
    expected = [[oracle_user(rows, user)[f.name] for f in USER_FEATURES] for user in USERS]

    np.testing.assert_allclose(values, np.array(expected), rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.integers(0, 300), st.integers(0, len(USERS)))
def test_item_features_are_what_the_oracle_says_in_any_number_of_chunks(seed, count, cut):
    rows = event_rows(seed, count)
    histories = from_events(event_frame(rows), USERS)
    counts = ItemCounts(len(SHOP))
    for start, stop in ((0, cut), (cut, len(USERS))):
        counts.add(count_items(View(histories.take(start, stop), CONTEXT)))
    values = read_all(ITEM_FEATURES, ItemView.of(SHOP, counts, AS_OF))
    expected = [[oracle_item(rows, item)[f.name] for f in ITEM_FEATURES] for item in ITEM_IDS]

    np.testing.assert_allclose(values, np.array(expected), rtol=1e-5, atol=1e-5)


def oracle_item(rows, item):
    row = SHOP.frame.row(ITEM_IDS.index(item), named=True)
    buyers = {
        u: [f[2] for f in oracle_facts(rows, u) if f[:2] == ("purchase", item)] for u in USERS
    }
    buyers = {user: ages for user, ages in buyers.items() if ages}
    dated = [age for ages in buyers.values() for age in ages if age is not None]
    out = {"price": row["price"] or math.nan, "margin": row["margin"] or math.nan}
    out["price_bucket"] = BANDS.get(item, math.nan)
    for days in (7, 28):
        out[f"buyers_{days}d"] = sum(
            any(age is not None and age <= days for age in ages) for ages in buyers.values()
        )
        out[f"count_{days}d"] = sum(age <= days for age in dated)
    prior = sum(28 < age <= 56 for age in dated)
    out["trend"] = math.log((out["count_28d"] + 1) / (prior + 1))
    undated = any(age is None for ages in buyers.values() for age in ages)
    sold = math.nan if undated else max(dated, default=math.nan)
    published = row["published_at"]
    out["freshness"] = sold if published is None else AS_OF - day_of(published)
    again = sum(len(set(ages)) > 1 for ages in buyers.values())
    out["repeat_rate"] = again / len(buyers) if buyers else math.nan
    return out


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.integers(0, 300))
def test_pairs_are_what_the_oracle_says(seed, count):
    rows = event_rows(seed, count)
    p = pairs(from_events(event_frame(rows), USERS), AS_OF)
    seen = defaultdict(list)
    for owner, user in enumerate(USERS):
        for kind, item, age, money in oracle_facts(rows, user):
            if kind == "purchase" and item is not None:
                seen[owner, item_key(item)].append((0 if age is None else AS_OF - age, age, money))
    expected = []
    for (owner, key), facts in sorted(seen.items()):
        days = sorted({day for day, _, _ in facts})
        gap = (days[-1] - days[0]) / (len(days) - 1) if len(days) > 1 else math.nan
        decayed = [
            sum(1.0 if age is None else 0.5 ** (age / h) for _, age, _ in facts)
            for h in HALF_LIVES_DAYS
        ]
        money = sum(m for _, _, m in facts)
        expected.append(
            (owner, key, len(facts), len(days), money, days[0], days[-1], gap, *decayed)
        )

    assert list(zip(p.owner.tolist(), p.item.tolist(), strict=True)) == [e[:2] for e in expected]
    assert p.offsets.tolist() == np.searchsorted(p.owner, np.arange(len(USERS) + 1)).tolist()
    actual = np.column_stack(
        [p.count, p.days, p.money, p.first_day, p.last_day, p.mean_gap, p.decayed]
    )
    np.testing.assert_allclose(
        actual, np.array([e[2:] for e in expected]).reshape(-1, 9), rtol=1e-5, atol=1e-5
    )


def test_a_history_read_for_an_earlier_day_is_one_without_what_came_later():
    frame = event_frame(event_rows(3, 500))
    early = day_of(NOON) - 30
    cut = from_events(
        frame.filter((frame["timestamp"].dt.epoch("d") < early).fill_null(True)), USERS
    )
    context = Context(early, CONTEXT.items)

    assert np.array_equal(
        read_users(from_events(frame, USERS), context), read_users(cut, context), equal_nan=True
    )


def test_values_do_not_depend_on_the_chunk():
    histories = from_events(event_frame(event_rows(4, 500)), USERS)
    alone = [read_users(histories.take(i, i + 1), CONTEXT) for i in range(len(USERS))]

    assert np.concatenate(alone).tobytes() == read_users(histories, CONTEXT).tobytes()


def test_nobody_and_someone_unknown_have_features():
    nobody = read_users(Histories.unpack([]), CONTEXT)
    unknown = dict(
        zip(
            [f.name for f in USER_FEATURES],
            read_users(Histories.unpack([None]), CONTEXT)[0],
            strict=True,
        )
    )

    assert nobody.shape == (0, len(USER_FEATURES))
    assert unknown["count_any_90d"] == 0
    assert unknown["category_1"] == -1
    assert math.isnan(unknown["days_since_purchase"])


def test_a_shop_without_times_keeps_its_counts_and_loses_what_needs_a_clock():
    rows = [row | {"timestamp": None} for row in event_rows(5, 300)]
    values = read_users(from_events(event_frame(rows), USERS), CONTEXT)
    of = {f.name: values[:, i] for i, f in enumerate(USER_FEATURES)}

    assert (of["distinct_items"] > 0).all()
    assert (of["category_1"] >= 0).all()
    assert (of["count_any_90d"] == 0).all()
    assert np.isnan(of["tenure"]).all()


def test_the_clock_is_the_one_where_the_subscriber_lives():
    summer = datetime(2017, 7, 3, 2, 30, tzinfo=UTC)  # a Monday
    zones = ["America/New_York", None, "Asia/Tokyo", "Nowhere/Land", "../etc/passwd"]
    values = read_all(CONTEXT_FEATURES, Moment.at(summer, zones))

    assert values[:, 0].tolist() == [22, 2, 11, 2, 2]
    assert values[:, 1].tolist() == [6, 0, 0, 0, 0]
    np.testing.assert_allclose(values[:, 2] ** 2 + values[:, 3] ** 2, 1, rtol=1e-6)
    np.testing.assert_allclose(
        values[1, 2:4], [math.sin(math.pi * 5 / 24), math.cos(math.pi * 5 / 24)], rtol=1e-6
    )


def test_popular_items_are_ranked_by_buyers_and_ties_by_key():
    bought = (("u0", "i1"), ("u1", "i1"), ("u0", "i2"), ("u0", "i2"), ("u0", "i3"))
    lately = {"type": "purchase", "timestamp": datetime(2017, 12, 1, tzinfo=UTC)}
    rows = [lately | {"user_id": user, "item_id": item} for user, item in bought]
    counts = ItemCounts(len(SHOP))
    counts.add(count_items(View(from_events(event_frame(rows), USERS), CONTEXT)))
    ties = sorted([item_key("i2"), item_key("i3")])

    assert popular_keys(SHOP, counts, 5).tolist() == [item_key("i1"), *ties]
    assert popular_keys(SHOP, counts, 2).tolist() == [item_key("i1"), ties[0]]


@pytest.mark.parametrize(
    ("types", "target"),
    [
        ({"view", "purchase", "open"}, "purchase"),
        ({"rating", "open"}, "rating"),
        ({"listen", "open", "delivery"}, "listen"),
        ({"open"}, "purchase"),
    ],
)
def test_the_target_is_the_strongest_type_of_the_shop(types, target):
    assert strongest(types) == target


def test_features_have_names_of_their_own_and_say_what_they_are():
    for features in (USER_FEATURES, ITEM_FEATURES, CONTEXT_FEATURES):
        assert len({f.name for f in features}) == len(features)
        assert all(f.unit and f.doc.endswith(".") for f in features)

    assert len(SCHEMA_HASH) == 8
