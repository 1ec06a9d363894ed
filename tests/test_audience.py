"""Who a campaign is for: everybody once, by person and by address."""

from collections.abc import Iterator

import polars as pl
import pytest

from reco.campaigns.ledger import Ledger
from reco.subscribers.store import SubscriberStore
from reco.tables import SUBSCRIBERS
from serve.audience import SAME_ADDRESS, Addresses, enqueue
from tests.small_world import campaign

PEOPLE = {
    "a1": ("ann@mail.example", True),
    "a2": ("Ann@mail.example", True),
    "a3": ("ann@MAIL.example", True),
    "b1": ("ben@mail.example", False),
    "b2": ("ben@mail.example", True),
    "c1": ("cid@mail.example", True),
}


@pytest.fixture
def store(engine) -> SubscriberStore:
    store = SubscriberStore(engine)
    store.upsert(people(PEOPLE))
    return store


@pytest.fixture
def ledger(store, database_url: str) -> Iterator[Ledger]:
    with Ledger(database_url) as ledger:
        yield ledger


def people(rows: dict[str, tuple[str, bool]]) -> pl.DataFrame:
    columns = [{"user_id": u, "email": e, "consent": c} for u, (e, c) in rows.items()]
    schema = pl.from_arrow(SUBSCRIBERS.empty_table()).schema
    return pl.DataFrame(columns, schema={n: schema[n] for n in ("user_id", "email", "consent")})


def test_one_address_gets_one_mail_however_many_subscribers_have_it(store, ledger):
    assert 6 == enqueue(campaign("spring"), store, ledger)

    rows = {row["user_id"]: row for row in ledger.rows("spring").iter_rows(named=True)}
    left_out = {user for user, row in rows.items() if row["reply"] == SAME_ADDRESS}
    assert {"a2", "a3"} == left_out
    assert {"suppressed"} == {rows[user]["state"] for user in left_out}
    assert {"queued"} == {rows[user]["state"] for user in rows.keys() - left_out}


def test_whoever_has_the_mail_already_stays_the_one_when_it_is_resumed(store, ledger):
    enqueue(campaign("spring"), store, ledger)
    store.upsert(people({"a0": ("ann@mail.example", True)}))

    assert 7 == enqueue(campaign("spring"), store, ledger)

    rows = dict(ledger.rows("spring").select("user_id", "state").iter_rows())
    assert "suppressed" == rows["a0"]
    assert "queued" == rows["a1"]


def test_the_first_of_the_audience_counts_not_the_first_of_the_list(store, ledger):
    enqueue(campaign("few", audience={"users": ["a3", "a2"]}), store, ledger)

    assert [("a2", "suppressed"), ("a3", "queued")] == list(
        ledger.rows("few").select("user_id", "state").iter_rows()
    )


def test_pages_share_what_they_have_seen():
    addresses = Addresses({"a": "x", "b": "x", "c": "y", "d": "y"}, taken=["d"])

    assert [[], ["b"], ["c"]] == [addresses.others(page) for page in (["a"], ["b", "e"], ["c"])]
