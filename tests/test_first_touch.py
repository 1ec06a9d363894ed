"""First touches: the earliest event says where somebody came from, in any order, once."""

import itertools
import json
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest
from sqlalchemy import create_engine, text

from reco.embedded import connect_redis
from reco.errors import ServiceUnavailable
from reco.events.stream import StreamProcessor
from reco.features.live import LiveRows
from reco.features.online import OnlineStore
from reco.features.profile import token
from reco.subscribers.first_touch import FirstTouches
from reco.subscribers.store import SubscriberStore
from serve.profile_changes import ProfileChanges
from tests.streams import NOBODY, NOW, small_lake
from tests.test_stream import messages


def event(number, kind="session", user="ann", day=0, **said):
    return {
        "event_id": f"t{number}", "user_id": user, "type": kind,
        "timestamp": (NOW - timedelta(days=30 - day)).isoformat(), **said,
    }  # fmt: skip


SIGNUP = event(
    1, "signup", day=2, device="phone", utm_source="news", utm_campaign="cheese-week",
    landing_page="https://shop.example/cheese?x=1", referrer="https://search.example/",
)  # fmt: skip


class Known:
    """Rows of nobody: what is tested here is the profile."""

    def follow(self, buckets, landed=()):
        pass


class Nowhere:
    def add(self, letters):
        assert not letters


@pytest.fixture
def take(engine, tmp_path):
    """Takes events as the stream does, each call a new process with a new lake."""
    numbers = itertools.count()

    def take(*events):
        lake, people = small_lake(tmp_path / f"lake{next(numbers)}"), FirstTouches(engine)
        stream = StreamProcessor(lake, Known(), Nowhere(), lambda: NOW, people=people)
        stream.process(messages(events))
        return lake

    return take


def person(engine, user="ann"):
    (found,) = SubscriberStore(engine).get([user])
    return found


def test_a_signup_over_the_bus_makes_a_subscriber_who_has_a_source_and_a_device(take, engine):
    lake = take(SIGNUP)
    ann = person(engine)

    assert ("news", "phone", NOW - timedelta(days=28)) == (
        ann.signup_source, ann.device, ann.signup_at
    )  # fmt: skip
    assert "cheese-week" == ann.attributes["utm_campaign"]
    assert {"landing_page", "referrer"} < set(ann.attributes)
    assert ann.email is None  # recommended to, never mailed
    (said,) = lake.events().collect()["attributes"]
    assert "https://search.example/" == json.loads(said)["referrer"]


def test_the_earliest_wins_in_any_order_and_twice_is_once(take, engine):
    events = [
        SIGNUP,
        event(2, day=1, utm_source="partner", device="tablet"),
        event(3, day=0, utm_source="search"),
        event(4, day=5, utm_source="late", device="desk", utm_term="brie"),
    ]
    found = []
    for order in [*itertools.permutations(events)][::4]:
        with engine.begin() as connection:
            connection.exec_driver_sql("truncate subscribers, first_touches")
        take(SIGNUP)  # without it there is nobody whose profile could be told
        for one in order:
            take(one, one)
        ann = person(engine)
        found.append((ann.signup_source, ann.device, ann.attributes["utm_term"]))

    assert {("search", "tablet", "brie")} == set(found)


def test_what_an_import_said_stays_and_what_it_did_not_say_is_filled(take, engine):
    people = pl.DataFrame({"user_id": ["ann"], "device": ["watch"]})
    SubscriberStore(engine).upsert(people)

    take(SIGNUP)
    take(event(2, day=0, device="tablet", utm_source="search"))

    assert ("watch", "search") == (person(engine).device, person(engine).signup_source)


def test_an_answer_to_the_shop_adds_an_interest_and_one_of_our_page_is_there_already(take, engine):
    take(SIGNUP)
    take(
        event(2, "preference", attributes={"category": ["wine", "cheese"]}),
        event(3, "preference", delivery_id="ann", attributes={"category": "tea"}),
    )
    assert ["cheese", "wine"] == person(engine).attributes["interests"]

    with engine.begin() as connection:
        connection.execute(text("update subscribers set attributes = '{}'"))  # taken back
    take(event(2, "preference", attributes={"category": ["wine", "cheese"]}))  # delivered again
    assert {} == person(engine).attributes


def test_a_session_before_the_signup_says_where_somebody_came_from(take, engine):
    take(event(2, day=1, utm_source="search", referrer="https://search.example/"))
    take(event(3, "signup", day=3, utm_source="news", device="phone"))
    ann = person(engine)

    assert ("search", "phone") == (ann.signup_source, ann.device)
    assert "https://search.example/" == ann.attributes["referrer"]


def test_who_was_erased_comes_back_by_a_new_signup_only(take, engine):
    take(SIGNUP)
    with engine.begin() as connection:
        connection.execute(text("delete from subscribers"))
        left = connection.execute(text("select count(*) from first_touches")).scalar_one()
        day = NOW - timedelta(days=20)
        connection.execute(text("update departures set left_at = :day"), {"day": day})

    take(event(2, "signup", day=5, utm_source="old"))
    erased = person(engine)
    take(event(3, "signup", day=15, utm_source="again"))

    assert (0, None) == (left, erased)
    assert "again" == person(engine).signup_source


def test_odd_values_and_strangers_harm_nobody(take, engine):
    take(
        event(1, "signup", utm_source={"a": 1}, device="\0", landing_page="x" * 3_000),
        event(2, user="stranger", utm_source="x"),
        event(3, "preference", attributes="cheese"),
    )
    ann = person(engine)

    assert (None, None, 500) == (ann.signup_source, ann.device, len(ann.attributes["landing_page"]))
    assert person(engine, "stranger") is None


def test_a_signup_changes_the_tokens_that_the_model_reads(take, engine, services):
    client = connect_redis(services.redis_url)
    client.flushdb()
    lake = take(SIGNUP)
    LiveRows(lake, OnlineStore(client), NOBODY).follow(range(lake.buckets))
    url = engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    changes = ProfileChanges(replace(services, lake=lake.path(), database_url=url))
    try:
        changes.follow()
    finally:
        changes.close()
    tokens = OnlineStore(client).fetch(["ann"]).tokens

    assert token("source_word", "cheese") in tokens
    assert token("device", "phone") in tokens
    client.flushdb()


def test_a_database_that_is_away_lets_the_batch_come_again(engine, take):
    away = FirstTouches(create_engine("postgresql+psycopg://127.0.0.1:1/none"))
    lake = take(SIGNUP)

    with pytest.raises(ServiceUnavailable):
        away.record(lake.events().collect())
