"""Rules over slates: what may be shown, and that no rule brings in what was not there."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reco.catalogue import Catalogue
from reco.features.history import Histories, day_of, from_events
from reco.models.slates import Slates
from reco.rules.rules import RULES, Bought, Rule, RuleContext, apply, blocked_rows, cut, trace
from reco.tables import EVENTS, item_keys
from tests.small_shop import ITEM_COUNT, ITEMS_SCHEMA, SHOP, names, slates_of


def history(user_items: dict[int, list[str]], n: int) -> Histories:
    """Purchases of 2017-12-01 by subscriber position."""
    rows = [
        {
            "event_id": f"{u}{i}",
            "user_id": str(u),
            "type": "purchase",
            "timestamp": datetime(2017, 12, 1, tzinfo=UTC),
            "item_id": i,
            "value": 1.0,
        }
        for u, items in user_items.items()
        for i in items
    ]
    schema = pl.from_arrow(EVENTS.empty_table()).schema
    events = pl.DataFrame([dict.fromkeys(EVENTS.names) | row for row in rows], schema=schema)
    return from_events(events, [str(u) for u in range(n)])


def context(**changes: object) -> RuleContext:
    return RuleContext(**({"catalogue": SHOP, "blocked": np.zeros(ITEM_COUNT, bool)} | changes))


contexts = st.builds(
    lambda blocked, limit, diversity, bought: context(
        blocked=np.array(blocked),
        max_per_category=limit,
        diversity=diversity,
        bought=Bought.of(history({0: bought}, 3), 0) if bought else None,
    ),
    st.lists(st.booleans(), min_size=ITEM_COUNT, max_size=ITEM_COUNT),
    st.none() | st.integers(1, 3),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.lists(st.sampled_from([f"i{i}" for i in range(ITEM_COUNT)]), max_size=4, unique=True),
)
candidates = st.lists(
    st.lists(
        st.sampled_from(["", "unknown", *(f"i{i}" for i in range(ITEM_COUNT))]),
        min_size=7,
        max_size=7,
    ),
    min_size=3,
    max_size=3,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@given(rows=candidates, rules=contexts)
def test_a_rule_brings_in_nothing_and_moves_a_pick_with_its_score(rule: Rule, rows, rules):
    slates = slates_of(*rows)

    left = rule(slates, rules)

    for before, after, old, new in zip(
        slates.items, left.items, slates.scores, left.scores, strict=True
    ):
        pairs = list(zip(before.tolist(), old.tolist(), strict=True))
        for item, score in zip(after.tolist(), new.tolist(), strict=True):
            assert item == 0 or (item, score) in pairs
        assert len(after[after != 0]) <= len(before[before != 0])


@given(rows=candidates, rules=contexts)
def test_all_rules_together_hold_each_of_them_and_change_nothing_the_second_time(rows, rules):
    left = apply(slates_of(*rows), rules)

    for position, shown in enumerate(names(left)):
        assert len(set(shown)) == len(shown)
        assert not any(rules.blocked[SHOP.index.rows(item_keys(shown))])
        assert "i11" not in shown
        categories = [
            c for c in SHOP.category[SHOP.index.rows(item_keys(shown))].tolist() if c >= 0
        ]
        if rules.max_per_category is not None:
            assert all(categories.count(c) <= rules.max_per_category for c in categories)
        if rules.bought is not None and position > 0:
            assert not rules.bought.has(left.items)[position].any()
    again = apply(left, rules)
    assert np.array_equal(np.sort(again.items), np.sort(left.items))


@given(rows=candidates, rules=contexts)
def test_slates_of_other_subscribers_do_not_matter(rows, rules):
    alone = apply(slates_of(rows[0]), rules)

    assert np.array_equal(apply(slates_of(*rows), rules).items[0], alone.items[0])


def test_blocklist_names_items_categories_and_brands():
    mask = blocked_rows(SHOP, ["i3", "nowhere"], ["c0"], ["b1"])

    left = apply(slates_of(["i0", "i3", "i2", "i5", "i6"]), context(blocked=mask))

    assert names(left) == [["i2", "i6"]]


def test_bought_filter_is_per_subscriber_and_forgets_old_purchases():
    day = day_of(datetime(2017, 12, 1, tzinfo=UTC))
    histories = history({0: ["i0", "i1"], 1: ["i2"]}, 2)
    slates = slates_of(["i0", "i1", "i2"], ["i0", "i1", "i2"])

    recent = apply(slates, context(bought=Bought.of(histories, day)))
    older = apply(slates, context(bought=Bought.of(histories, day + 1)))

    assert names(recent) == [["i2"], ["i0", "i1"]]
    assert names(older) == [["i0", "i1", "i2"]] * 2


def test_items_without_category_are_not_counted_against_the_limit():
    left = apply(slates_of(["i3", "i7", "i0", "i4", "i1"]), context(max_per_category=1))

    assert names(left) == [["i3", "i7", "i0", "i1"]]


def test_diversity_moves_like_items_apart_and_loses_none():
    left = apply(slates_of(["i0", "i4", "i8", "i1"]), context(diversity=0.9))

    assert names(left) == [["i0", "i1", "i4", "i8"]]


def test_cut_and_widen_keep_the_order():
    slates = slates_of(["i0", "i1", "i2"])

    assert names(cut(slates, 2)) == [["i0", "i1"]]
    assert cut(slates, 5).items.shape == (1, 5)
    assert cut(Slates.empty(2, 0), 3).items.shape == (2, 3)
    assert names(cut(slates, 5)) == [["i0", "i1", "i2"]]


def test_trace_names_every_rule_in_its_order():
    steps = dict(trace(slates_of(["i0", "i0", "i11"]), context()))

    assert list(steps) == [rule.__name__ for rule in RULES]
    assert names(steps["distinct"]) == [["i0", "i11"]]
    assert names(steps["in_stock"]) == [["i0"]]


def test_rules_take_an_empty_catalogue_and_an_empty_chunk():
    empty = Catalogue.of(pl.DataFrame(schema=ITEMS_SCHEMA))
    nothing = RuleContext(empty, np.zeros(0, bool), max_per_category=1, diversity=0.5)

    assert not apply(slates_of(["i0", "i1"]), nothing).items.any()
    assert apply(Slates.empty(0, 3), context()).items.shape == (0, 3)


def test_values_of_the_shops_own_columns_block_items():
    texts = ['{"kind": "CIGARETTES"}', '{"kind": "APPLES", "age": 18}', None, '{"age": "18"}']
    items = pl.DataFrame(
        [{"item_id": f"a{n}", "attributes": text} for n, text in enumerate(texts)],
        schema=ITEMS_SCHEMA,
    )

    blocked = blocked_rows(
        Catalogue.of(items), [], [], [], (("kind", ["CIGARETTES"]), ("age", ["18"]))
    )

    assert blocked.tolist() == [True, True, False, True]
