"""Context at scoring: hour and weekday where one lives, promotions; learned and served alike."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reco.catalogue import Catalogue
from reco.embedded import connect_redis
from reco.events.lake import Lake
from reco.events.schema import conform
from reco.features.moment import Moment
from reco.features.occasion import CELLS, PROMOTION, cells, learn, write_occasions
from reco.features.online import FeaturesMeta, OnlineStore
from reco.models.occasion_lifts import Lifts
from reco.models.slates import Reason, Rung, Slates
from reco.subscribers.store import SubscriberStore
from reco.tables import EVENTS, ITEMS, item_keys
from serve.occasions import Occasions

NEW_YORK = "America/New_York"
MONDAY = datetime(2026, 6, 1, tzinfo=UTC)
AS_OF = MONDAY + timedelta(days=56)


def shop(tmp_path, **attributes):
    """Bread is bought in the morning of New York and wine in its evening; tea at any time."""
    lake = Lake(str(tmp_path / "lake"))
    said = [attributes.get(name) for name in ("bread", "tea", "wine")]
    items = pl.DataFrame(
        {"item_id": ["bread", "tea", "wine"], "category": ["b", "t", "w"], "attributes": said}
    )
    lake.write_items(conform(items, ITEMS))
    rows = [
        (f"u{i}", item, MONDAY + timedelta(days=day, hours=hour + 4))  # 4 h behind UTC in summer
        for day in range(56)
        for i in range(12)
        for item, hour in (("bread", 9), ("wine", 21), ("tea", 9), ("tea", 21))
    ]
    events = pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row")
    events = events.with_columns(event_id=pl.int_range(pl.len()).cast(pl.String))
    lake.append(conform(events.with_columns(pl.lit("purchase").alias("type")), EVENTS))
    return lake


def zones(zone=NEW_YORK):
    return pl.DataFrame({"user_id": [f"u{i}" for i in range(12)], "timezone": [zone] * 12})


def slates_of(*scores, rung=Rung.LIVE):
    keys = item_keys(["bread", "tea", "wine"])[None, :]
    order = np.argsort(-np.array(scores), kind="stable")
    return Slates(
        keys[:, order], np.array([scores], np.float32)[:, order],
        np.full((1, 3), Reason.REPEAT, np.uint8), np.full((1, 3), rung, np.uint8),
    )  # fmt: skip


def names(slates):
    known = {int(item_keys([name])[0]): name for name in ("bread", "tea", "wine")}
    return [known.get(int(key), "") for key in slates.items[0]]


@given(
    when=st.datetimes(datetime(2000, 1, 1), datetime(2037, 1, 1)),  # noqa: DTZ001
    zone=st.sampled_from([NEW_YORK, "Asia/Kathmandu", "Europe/Berlin", "Mars/Olympus", None]),
)
def test_a_moment_is_the_same_whether_one_or_many_are_asked_for(when, zone):
    when = when.replace(tzinfo=UTC)
    one, many = Moment.at(when, [zone]), Moment.each(pl.Series([when]), zone)

    assert int(one.seconds[0]) == int(many.seconds[0])
    assert one.weekday.tolist() == many.weekday.tolist()
    assert cells(one).tolist() == cells(many).tolist()
    assert 0 <= cells(one)[0] < CELLS


def test_bread_leads_in_the_morning_of_the_reader_and_wine_in_the_evening(tmp_path):
    lake = shop(tmp_path)
    lifts = Lifts.of(learn(lake, zones(), AS_OF), Catalogue.of(lake.items()))
    nearly = slates_of(0.30, 0.10, 0.31)
    noon_utc = datetime(2026, 7, 1, 12, tzinfo=UTC)

    new_york = lifts.joined(nearly, noon_utc, [NEW_YORK])  # 8 o'clock
    tokyo = lifts.joined(nearly, noon_utc, ["Asia/Tokyo"])  # 21 o'clock

    assert ["bread", "wine", "tea"] == names(new_york)
    assert ["wine", "bread", "tea"] == names(tokyo)
    assert new_york.scores[0, 0] > 0.31 > new_york.scores[0, 1]
    assert (np.diff(new_york.scores) <= 0).all()


def test_without_zones_and_where_little_is_known_nothing_moves(tmp_path):
    lake = shop(tmp_path)
    catalogue = Catalogue.of(lake.items())
    few = learn(lake, zones(), MONDAY + timedelta(days=1))
    other_times = datetime(2026, 7, 4, 6, tzinfo=UTC)  # 2 at night, on a Saturday

    for table in (few, learn(lake, zones(), AS_OF)):
        same = Lifts.of(table, catalogue).joined(slates_of(0.30, 0.29, 0.31), other_times, [""])
        assert ["wine", "bread", "tea"] == names(same)
    assert few["lift"].abs().max() < 0.1


def test_what_is_on_promotion_gains_what_promotions_have_sold(tmp_path):
    then = f'{{"promoted_from": "{MONDAY:%Y-%m-%d}", "promoted_until": "2026-06-08"}}'
    lake = shop(tmp_path, tea=then)
    more = pl.DataFrame({"user_id": [f"u{i % 12}" for i in range(900)]}).with_columns(
        event_id=pl.format("p{}", pl.int_range(pl.len())), type=pl.lit("purchase"),
        item_id=pl.lit("tea"), timestamp=pl.lit(MONDAY + timedelta(days=2)),
    )  # fmt: skip
    lake.append(conform(more, EVENTS))
    table = learn(lake, zones(), AS_OF)
    (lift,) = table.filter(pl.col("cell") == PROMOTION)["lift"]
    soon = '{"promoted_from": "2026-08-01T00:00:00+02:00"}'
    items = lake.items().with_columns(attributes=pl.lit(soon))
    lifts = Lifts.of(table, Catalogue.of(items.filter(pl.col("item_id") != "bread")))

    at_night = datetime(2026, 7, 31, 21, 59, tzinfo=UTC)
    before, after = (
        lifts.joined(slates_of(0.1, 0.2, 0.1), at_night + timedelta(minutes=m), [""])
        for m in (0, 2)
    )

    assert 0.5 < lift <= 1.5
    assert after.scores[0, 0] > 1.3 * before.scores[0, 0]


@pytest.mark.parametrize("text", ["", "soon", "2026-99-99"])
def test_a_promotion_that_cannot_be_read_is_none(tmp_path, text):
    lake = shop(tmp_path, tea=f'{{"promoted_from": "{text}"}}')

    assert PROMOTION not in learn(lake, zones(), AS_OF)["cell"]


def test_only_picks_of_the_model_move_and_no_order_that_is_not_of_chances(tmp_path):
    lake = shop(tmp_path)
    lifts = Lifts.of(learn(lake, zones(), AS_OF), Catalogue.of(lake.items()))
    morning = datetime(2026, 7, 1, 12, tzinfo=UTC)
    popular = slates_of(0.30, 0.10, 0.31, rung=Rung.POPULAR)
    valued = slates_of(0.30, 0.10, 0.31).take(np.array([[2, 0, 1]]))  # tea earns most
    empty = Slates.empty(1, 3)

    for slates in (popular, valued, empty):
        same = lifts.joined(slates, morning, [NEW_YORK])
        assert names(slates) == names(same)
        assert (slates.scores == same.scores).all()


def test_nothing_later_is_known(tmp_path):
    lake = shop(tmp_path)
    cut = MONDAY + timedelta(days=30)
    before = learn(lake, zones(), cut)
    late = pl.DataFrame({"event_id": ["l"], "user_id": ["u1"], "type": ["purchase"]}).with_columns(
        item_id=pl.lit("wine"), timestamp=pl.lit(AS_OF)
    )
    lake.append(conform(late, EVENTS))

    assert before.equals(learn(lake, zones(), cut))


def test_served_scores_are_those_of_the_moment_once_features_have_learned_it(
    services, engine, tmp_path
):
    lake = shop(tmp_path)
    client = connect_redis(services.redis_url)
    client.flushdb()
    online = OnlineStore(client)
    morning = datetime(2026, 7, 1, 12, tzinfo=UTC)
    nearly = slates_of(0.30, 0.10, 0.31)

    def served():
        occasions = Occasions(lake, online, Catalogue.of(lake.items()))
        return names(occasions.joined(nearly, morning, [NEW_YORK]))

    nothing_yet = served()
    online.write_meta(FeaturesMeta(AS_OF, 12, item_keys([])))
    no_table_yet = served()
    people = pl.DataFrame({"user_id": [f"u{i}" for i in range(12)], "timezone": [NEW_YORK] * 12})
    store = SubscriberStore(engine)
    store.upsert(people)
    name = write_occasions(lake, store, AS_OF)
    now_known = served()
    client.flushdb()
    client.close()

    assert [["wine", "bread", "tea"]] * 2 == [nothing_yet, no_table_yet]
    assert "features/as_of=2026-07-27T000000/occasions" == name
    assert ["bread", "wine", "tea"] == now_known
