import pickle
from datetime import UTC, datetime

import numpy as np
import pytest
import redis as redis_client

from reco.errors import ModelMismatch, ServiceUnavailable
from reco.features.definitions import SCHEMA_HASH
from reco.features.history import LAYOUT, Histories, from_events
from reco.features.online import FeaturesMeta, OnlineStore
from reco.features.profile import WIDTH, tokens_of
from reco.processes import free_port
from reco.tables import FEATURES_META_KEY, history_key
from tests.feature_events import USERS, event_frame, event_rows

TOKENS = tokens_of([{"region": f"r{i}"} for i in range(len(USERS))])
HISTORIES = from_events(event_frame(event_rows(1, 300)), USERS, TOKENS)
META = FeaturesMeta(
    as_of=datetime(2017, 12, 4, tzinfo=UTC),
    subscribers=6,
    popular=np.array([2**64 - 1, 1], np.uint64),
)


def test_what_is_loaded_is_fetched_in_the_order_asked_for(redis):
    store = OnlineStore(redis)
    store.load(USERS, HISTORIES)
    fetched = store.fetch(["u3", "stranger", "u0"])

    rows = HISTORIES.pack()
    assert fetched.pack()[::2] == [rows[3], rows[0]]
    assert fetched.offsets[1] == fetched.offsets[2]
    assert fetched.tokens.shape == (3, WIDTH)
    assert not fetched.tokens[1].any()


def test_more_subscribers_than_a_command_takes_all_arrive(redis):
    store = OnlineStore(redis)
    users = [f"many{i}" for i in range(1300)]
    histories = from_events(
        event_frame([r | {"user_id": users[i]} for i, r in enumerate(event_rows(2, 1300))]), users
    )
    store.load(users, histories)

    assert store.fetch(users).pack() == histories.pack()


def test_nobody_is_fetched_without_a_word(redis):
    assert len(OnlineStore(redis).fetch([])) == 0


def test_a_second_load_replaces_the_first(redis):
    store = OnlineStore(redis)
    store.load(USERS, HISTORIES)
    store.load(USERS, Histories.unpack([None] * len(USERS)))

    assert len(store.fetch(USERS).records) == 0


def test_the_time_of_the_data_stands_in_the_row(redis):
    OnlineStore(redis).load(USERS, HISTORIES, updated=1_512_345_600)
    row = redis.get(history_key("u0"))

    assert int.from_bytes(row[8:16], "little") == 1_512_345_600


def test_meta_comes_back_as_it_was_written(redis):
    store = OnlineStore(redis)
    assert store.meta() is None

    store.write_meta(META)
    meta = store.meta()

    assert (meta.as_of, meta.subscribers, meta.layout) == (META.as_of, 6, LAYOUT)
    assert meta.schema == SCHEMA_HASH
    assert meta.popular.tolist() == [2**64 - 1, 1]


def test_meta_of_another_layout_is_refused(redis):
    store = OnlineStore(redis)
    store.write_meta(META)
    redis.set(
        FEATURES_META_KEY, redis.get(FEATURES_META_KEY).replace(b'"layout": ', b'"layout": 1')
    )

    with pytest.raises(ModelMismatch, match="reco features"):
        store.meta()


def test_a_store_travels_to_another_process(redis):
    store = OnlineStore(redis)
    store.load(USERS, HISTORIES)
    travelled = pickle.loads(pickle.dumps(store))

    assert travelled.fetch(USERS).pack() == HISTORIES.pack()


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.fetch(["u0"]),
        lambda store: store.load(USERS, HISTORIES),
        lambda store: store.meta(),
        lambda store: store.write_meta(META),
    ],
)
def test_a_server_that_is_away_is_said_to_be_away(use):
    store = OnlineStore(redis_client.Redis(port=free_port(), retry=None))

    with pytest.raises(ServiceUnavailable, match="RECO_REDIS_URL"):
        use(store)
