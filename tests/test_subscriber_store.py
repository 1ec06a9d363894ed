"""Subscribers in a real PostgreSQL: upserts keep what is known, reads follow the caller's order."""

import json
import pickle
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from reco.errors import InputError
from reco.events.schema import conform
from reco.subscribers.store import Subscriber, SubscriberStore
from reco.tables import SUBSCRIBERS


@pytest.fixture
def store(engine: Engine) -> SubscriberStore:
    return SubscriberStore(engine)


def people(*user_ids: str, **columns: object) -> pl.DataFrame:
    given = {name: [value] * len(user_ids) for name, value in columns.items()}
    return pl.DataFrame({"user_id": list(user_ids), **given})


def only(store: SubscriberStore, user_id: str) -> Subscriber:
    (subscriber,) = store.get([user_id])
    assert subscriber is not None
    return subscriber


def test_a_whole_row_is_read_as_it_was_written(store: SubscriberStore) -> None:
    signup_at = datetime(2017, 5, 1, 12, 30, tzinfo=UTC)
    frame = people(
        "7",
        email="zoë@example.com",
        first_name="Zoë",
        language="en",
        region="US",
        timezone="America/New_York",
        device="mobile",
        plan="gold",
        signup_at=signup_at,
        signup_source="fair",
        consent=True,
        attributes='{"age":"65+","size":38}',
    )

    store.upsert(frame)

    assert only(store, "7") == Subscriber(
        user_id="7",
        email="zoë@example.com",
        first_name="Zoë",
        language="en",
        region="US",
        timezone="America/New_York",
        device="mobile",
        plan="gold",
        signup_at=signup_at,
        signup_source="fair",
        attributes={"age": "65+", "size": 38},
    )


def test_ids_decide_the_order_and_unknown_ones_are_none(store: SubscriberStore) -> None:
    assert store.upsert(people("a", "b", "c")) == 3

    found = store.get(["c", "x", "a", "c"])

    assert [s and s.user_id for s in found] == ["c", None, "a", "c"]
    assert store.get([]) == []


def test_the_same_rows_again_are_not_new_and_not_touched(
    store: SubscriberStore, engine: Engine
) -> None:
    frame = people("a", "b", email="a@example.com", attributes='{"x":1}')
    store.upsert(frame)
    query = "SELECT user_id, xmin::text FROM subscribers ORDER BY 1"
    with engine.connect() as connection:
        before = connection.exec_driver_sql(query).all()

    assert store.upsert(frame) == 0

    with engine.connect() as connection:
        assert connection.exec_driver_sql(query).all() == before


def test_a_column_that_is_not_given_keeps_what_is_known(store: SubscriberStore) -> None:
    store.upsert(people("a", email="a@example.com", plan="gold", attributes='{"x":1}'))

    store.upsert(people("a", plan=None, first_name="Ann"))

    known = only(store, "a")
    assert (known.email, known.plan, known.first_name) == ("a@example.com", None, "Ann")
    assert known.attributes == {"x": 1}


def test_a_consent_that_is_not_stated_is_given_once_and_never_given_back(
    store: SubscriberStore,
) -> None:
    unstated = people("a").with_columns(consent=pl.lit(None, pl.Boolean))
    store.upsert(unstated)
    assert only(store, "a").consent_mail

    store.upsert(people("a", consent=False))
    store.upsert(unstated)
    store.upsert(people("a", plan="gold"))

    assert not only(store, "a").consent_mail
    assert not only(store, "a").consent_profiling


def test_the_last_row_of_a_subscriber_wins(store: SubscriberStore) -> None:
    frame = pl.DataFrame({"user_id": ["a", "a"], "plan": ["old", "new"]})

    assert store.upsert(frame) == 1
    assert only(store, "a").plan == "new"


def test_a_batch_with_one_bad_row_changes_nothing(store: SubscriberStore) -> None:
    store.upsert(people("a", plan="gold"))
    frame = pl.DataFrame({"user_id": ["a", "b"], "attributes": ['{"x":1}', "{not json"]})

    with pytest.raises(InputError, match="nothing was written"):
        store.upsert(frame)

    assert store.count() == 1
    assert only(store, "a").attributes == {}


def test_pages_of_ids_go_through_everybody_once(store: SubscriberStore) -> None:
    ids = [f"user-{i}" for i in range(250)]
    store.upsert(people(*ids))

    sizes, seen, after = [], [], ""
    while page := store.ids(after=after, limit=100):
        sizes.append(len(page))
        seen += page
        after = page[-1]

    assert sizes == [100, 100, 50]
    assert sorted(seen) == sorted(ids)
    assert store.count() == 250


def test_an_empty_frame_and_one_of_all_columns_are_welcome(store: SubscriberStore) -> None:
    assert store.upsert(conform(pl.DataFrame(), SUBSCRIBERS)) == 0
    assert store.upsert(conform(people("a"), SUBSCRIBERS)) == 1
    assert store.upsert(people("a")) == 0


def test_a_store_travels_to_another_process(store: SubscriberStore) -> None:
    store.upsert(people("a"))

    other = pickle.loads(pickle.dumps(store))

    assert other.count() == 1
    other._engine.dispose()


TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=TEXT | st.none(), key=TEXT, value=TEXT)
def test_any_text_comes_back_as_it_was(
    store: SubscriberStore, name: str | None, key: str, value: str
) -> None:
    """Quotes, commas, line ends, backslashes and COPY's own marks, and empty is not none."""
    attributes = json.dumps({key: value})

    store.upsert(people("a", first_name=name, attributes=attributes))

    assert only(store, "a").first_name == name
    assert only(store, "a").attributes == {key: value}
