"""The stream: each event counts once in lake and rows, in any order, whoever dies when."""

import json
import signal
import subprocess
import sys
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reco.demo import CUT
from reco.events.bus import Message, open_bus
from reco.events.completejourney import convert
from reco.events.deadletter import DeadLetters
from reco.events.importing import import_table
from reco.events.lake import Lake
from reco.features.history import NO_PROFILING
from reco.features.live import LiveRows, load_rows
from reco.features.online import Mark, OnlineStore
from reco.features.profile import tokens_of
from reco.features.verify import verify
from reco.tables import topk_key, type_code, user_bucket
from tests.conftest import ROOT
from tests.streams import (
    NOBODY,
    NOW,
    as_payloads,
    consumer,
    drain,
    processor,
    put,
    shuffled_with_repeats,
    small_lake,
    stream_events,
)
from tests.training_sets import training_set
from train.features import Job, build_bucket


@pytest.fixture
def lake(tmp_path):
    return small_lake(tmp_path / "lake")


class Killed(BaseException):
    """Stands for kill -9 at a certain moment: nothing after it runs."""


def messages(events, first=0):
    texts = [json.dumps(e).encode() for e in events]
    return [Message(text, f"m{first + i}", 0, None) for i, text in enumerate(texts)]


def ids(lake):
    return sorted(lake.events().collect()["event_id"])


def assert_rows_are_right(lake, client):
    users = lake.events().collect()["user_id"].n_unique()
    found = verify(lake, OnlineStore(client), None, NOW)

    assert (found.compared, found.pending, found.differing) == (users, 0, 0), found.examples


# -- each event once ---------------------------------------------------------------------------


def test_any_order_with_repeats_gives_the_rows_and_the_lake_of_the_ordered_stream(
    redis, redis_url, lake
):
    events = stream_events(3_000)
    one = consumer(lake, redis, redis_url, batch=500)

    put(open_bus(redis_url, lake.buckets), shuffled_with_repeats(events, share=0.3))

    assert 3_900 == drain(one)
    assert sorted(e["event_id"] for e in events) == ids(lake)
    assert_rows_are_right(lake, redis)


def test_a_batch_that_comes_again_changes_nothing(redis, lake):
    batch = messages(stream_events(200))
    stream = processor(lake, redis)
    stream.process(batch)
    store = OnlineStore(redis)
    before = store.fetch([f"u{i}" for i in range(30)]).pack()

    stream.process(batch)
    processor(lake, redis).process(batch)

    assert [row[16:] for row in before] == [
        row[16:] for row in store.fetch([f"u{i}" for i in range(30)]).pack()
    ]
    assert (200, 200) == (stream.tally.new, stream.tally.duplicates)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(deaths=st.lists(st.integers(0, 40), max_size=4), seed=st.integers(0, 99))
def test_a_death_at_any_write_loses_and_doubles_nothing(redis, tmp_path_factory, deaths, seed):
    redis.flushdb()
    lake = small_lake(tmp_path_factory.mktemp("x") / "lake")
    events = shuffled_with_repeats(stream_events(240, users=12, seed=seed), 0.2, seed)
    batches = [messages(events[i : i + 60], i) for i in range(0, len(events), 60)]
    deaths = [*deaths, 10**9]
    at = 0
    while at < len(batches):
        stream = processor(lake, redis)
        stream._rows._online = DyingStore(redis, deaths[0])
        try:
            for batch in batches[at:]:
                stream.process(batch)
                at += 1  # acknowledged
        except Killed:
            deaths.pop(0)

    assert sorted({e["event_id"] for e in events}) == ids(lake)
    assert_rows_are_right(lake, redis)


class DyingStore(OnlineStore):
    """Dies before or after its n-th write of rows, with some buckets of a batch written."""

    def __init__(self, client, death):
        super().__init__(client)
        self._left = death

    def swap_many(self, swaps):
        return [self._swap(one) for one in swaps]

    def _swap(self, one):
        self._left -= 1
        if self._left == -1:
            raise Killed
        (done,) = super().swap_many([one])
        if self._left == 0:
            raise Killed
        return done


def test_three_kills_of_the_process_lose_and_double_nothing(redis, redis_url, tmp_path):
    lake = small_lake(tmp_path / "lake")
    events = stream_events(6_000, users=200)
    put(open_bus(redis_url, lake.buckets), shuffled_with_repeats(events, share=0.2))
    program = (
        "import sys; from reco.embedded import connect_redis; from reco.events.lake import Lake; "
        "from tests.streams import consumer\n"
        "url, root = sys.argv[1:]\n"
        "one = consumer(Lake(root), connect_redis(url), url, batch=300)\n"
        "while True:\n"
        "    print(one.step(1.0, 0.0), flush=True)"
    )
    for batches in (2, 5, 3):
        with subprocess.Popen(
            [sys.executable, "-c", program, redis_url, str(tmp_path / "lake")],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT,
        ) as process:  # fmt: skip
            for _ in range(batches):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)

    drain(consumer(lake, redis, redis_url))

    assert sorted(e["event_id"] for e in events) == ids(lake)
    assert_rows_are_right(lake, redis)


def test_two_processors_of_the_same_users_do_not_harm_each_other(redis, lake):
    one, two = processor(lake, redis), processor(lake, redis)
    for i, batch in enumerate(range(0, 600, 60)):
        (one, two)[i % 2].process(messages(stream_events(600)[batch : batch + 60], batch))

    assert 600 == len(ids(lake))
    assert_rows_are_right(lake, redis)


def test_a_row_that_changed_since_it_was_read_is_not_overwritten(redis, lake):
    stream = processor(lake, redis)
    stream.process(messages(stream_events(150)))
    store = OnlineStore(redis)
    bucket = user_bucket("u1", lake.buckets)
    mark, (rows, _) = store.mark(bucket), store.held(["u1"])
    stream.process(messages(stream_events(150, seed=2), 150))

    assert not store.swap(bucket, mark, Mark(99), ["u1"], rows)
    assert_rows_are_right(lake, redis)


# -- beside other writers ----------------------------------------------------------------------


def load(lake, client, as_of):
    """What `reco features` does to the online rows."""
    from reco.catalogue import Catalogue
    from reco.features.items import ItemFacts
    from reco.features.view import Context

    context = Context(0, ItemFacts.of(Catalogue.of(lake.items())))
    job = Job(lake, None, OnlineStore(client), as_of, context)
    for bucket in range(lake.buckets):
        build_bucket(job, bucket, [])


def test_events_after_a_batch_load_are_added_to_what_it_loaded(redis, lake):
    stream = processor(lake, redis)
    events = stream_events(400)
    stream.process(messages(events[:200]))
    load(lake, redis, NOW - timedelta(days=70))  # in the past: it leaves out what came later
    stream.process(messages(events[200:], 200))
    stream.recover(range(lake.buckets))

    assert_rows_are_right(lake, redis)


def test_events_that_came_while_a_batch_load_ran_are_not_lost(redis, lake, monkeypatch):
    stream = processor(lake, redis)
    events = stream_events(400)
    stream.process(messages(events[:200]))
    read, came = Lake.read_bucket, iter(range(200, 400, 50))

    def read_late(self, bucket, **named):
        rows = read(self, bucket, **named)
        if (at := next(came, None)) is not None:
            monkeypatch.setattr(Lake, "read_bucket", read)
            stream.process(messages(events[at : at + 50], at))
            monkeypatch.setattr(Lake, "read_bucket", read_late)
        return rows

    monkeypatch.setattr(Lake, "read_bucket", read_late)
    load(lake, redis, NOW + timedelta(days=1))
    monkeypatch.setattr(Lake, "read_bucket", read)
    stream.recover(range(lake.buckets))

    assert 400 == len(ids(lake))
    assert_rows_are_right(lake, redis)


def test_a_load_that_died_half_way_is_made_good(redis, lake, monkeypatch):
    monkeypatch.setattr("reco.features.live.PATIENCE_S", 0.1)
    stream = processor(lake, redis)
    stream.process(messages(stream_events(200)))
    store = OnlineStore(redis)
    bucket = user_bucket("u1", lake.buckets)
    nothing, _ = store.held(["stranger"])
    store.swap(bucket, store.mark(bucket), Mark(1, NOW, loading=True), ["u1"], nothing)

    stream.process(messages(stream_events(100, seed=5), 200))
    stream.recover([bucket])

    assert_rows_are_right(lake, redis)


def test_a_dead_load_in_chunks_cannot_write_after_it_was_replaced(redis, lake, monkeypatch):
    monkeypatch.setattr("reco.features.live.CHUNK", 5)
    monkeypatch.setattr("reco.features.live.PATIENCE_S", 0.1)
    stream = processor(lake, redis)
    stream.process(messages(stream_events(300, users=200)))

    interruptions = iter([3])

    class Interrupted(OnlineStore):
        def swap(self, bucket, seen, mark, *rest):
            if seen.loading and next(interruptions, None):
                stream.process(messages(stream_events(300, users=200, seed=9), 300))
            return super().swap(bucket, seen, mark, *rest)

    users = [u for u in (f"u{i}" for i in range(200)) if user_bucket(u, lake.buckets) == 3]
    nothing, _ = OnlineStore(redis).held([f"no {u}" for u in users])
    load_rows(Interrupted(redis), 3, Mark(0, NOW), users, nothing)
    stream.recover(range(lake.buckets))

    assert_rows_are_right(lake, redis)


def test_an_import_beside_the_stream_reaches_the_rows(redis, lake):
    stream = processor(lake, redis)
    events = stream_events(300)
    stream.process(messages(events[:100]))
    frame = pl.DataFrame(events[100:200])
    lake.append(frame.with_columns(pl.col("timestamp").str.to_datetime(time_zone="UTC")))
    stream.process(messages(events[200:], 200))
    stream.recover(range(lake.buckets))

    assert 300 == len(ids(lake))
    assert_rows_are_right(lake, redis)


def test_rows_follow_an_import_although_no_event_comes(redis, redis_url, lake, monkeypatch):
    one = consumer(lake, redis, redis_url)
    frame = pl.DataFrame(stream_events(80))
    lake.append(frame.with_columns(pl.col("timestamp").str.to_datetime(time_zone="UTC")))
    monkeypatch.setattr("reco.events.stream.FOLLOW_S", 0.0)

    assert 0 == one.step(0.01)
    assert_rows_are_right(lake, redis)


def test_rows_of_another_lake_are_made_anew(redis, tmp_path):
    old = processor(small_lake(tmp_path / "old"), redis)
    for i in range(4):
        old.process(messages(stream_events(100, seed=i), 100 * i))
    lake = small_lake(tmp_path / "new")
    processor(lake, redis).process(messages(stream_events(2_000, seed=7)))

    assert_rows_are_right(lake, redis)


def test_a_lost_store_is_filled_from_the_lake(redis, lake):
    stream = processor(lake, redis)
    stream.process(messages(stream_events(300)))
    redis.flushdb()

    processor(lake, redis).recover(range(lake.buckets))

    assert_rows_are_right(lake, redis)


def test_a_click_makes_a_precomputed_slate_stale_and_an_open_does_not(redis, lake):
    redis.mset({topk_key(user): b"slate" for user in ("clicks", "opens", "rests")})
    clicks = GOOD | {"user_id": "clicks", "event_id": "c"}
    opens = GOOD | {"user_id": "opens", "event_id": "o", "type": "open"}

    stream = processor(lake, redis)
    stream.recover(range(lake.buckets))
    stream.process(messages([clicks, opens]))

    assert [None, b"slate", b"slate"] == redis.mget(map(topk_key, ("clicks", "opens", "rests")))


# -- profiles ----------------------------------------------------------------------------------


def test_a_row_keeps_its_profile_and_a_new_user_gets_one(redis, lake):
    asked = []

    def profiles(users):
        asked.extend(users)
        return tokens_of([{"region": u} for u in users]), NOBODY(users)[1]

    stream = processor(lake, redis, profiles)
    stream.process(messages(stream_events(100)))
    stream.process(messages(stream_events(100, seed=4), 100))
    stream.recover(range(lake.buckets))
    users = sorted(set(asked))
    held, known = OnlineStore(redis).held(users)

    assert len(asked) == len(users)  # once each
    assert known.all()
    assert (held.tokens == tokens_of([{"region": u} for u in users])).all()


def test_who_refuses_profiling_has_no_history(redis, lake):
    def refused(users):
        tokens, flags = NOBODY(users)
        return tokens, flags | NO_PROFILING

    processor(lake, redis, refused).process(messages(stream_events(100)))

    assert 0 == len(OnlineStore(redis).fetch([f"u{i}" for i in range(30)]).records)
    assert 100 == len(ids(lake))


# -- bad events --------------------------------------------------------------------------------

GOOD = {"event_id": "g", "user_id": "u", "type": "click", "timestamp": NOW.isoformat()}
CLASH = next(f"t{i}" for i in range(10**6) if type_code(f"t{i}") == type_code("nudge"))
POISON = {
    b"{not json": "no JSON",
    b'["a", "list"]': "no JSON object",
    b"\xff\xfe": "no JSON",
    b"": "no JSON",
    b'{"user_id": "' + b"x" * 10_000_000 + b'"}': "larger than 65,536 bytes",
    json.dumps({k: v for k, v in GOOD.items() if k != "type"}).encode(): "missing type",
    json.dumps({k: v for k, v in GOOD.items() if k != "user_id"}).encode(): "missing user_id",
    json.dumps({k: v for k, v in GOOD.items() if k != "timestamp"}).encode(): "missing timestamp",
    json.dumps(GOOD | {"timestamp": "1970-01-01T00:00:00Z"}).encode(): "timestamp before 1990",
    json.dumps(GOOD | {"timestamp": "2100-06-01"}).encode(): "timestamp after 2100",
    json.dumps(GOOD | {"timestamp": "2027-01-01"}).encode(): "timestamp in the future",
    json.dumps(GOOD | {"timestamp": "yesterday"}).encode(): "unreadable timestamp",
    json.dumps(GOOD | {"value": float("nan")}).encode(): "value is not finite",
    json.dumps(GOOD | {"value": 10**400}).encode(): "value is not finite",
    json.dumps(GOOD | {"value": "much"}).encode(): "value is not a number",
    json.dumps(GOOD | {"slot": 10**12}).encode(): "slot is no small number",
    json.dumps(GOOD | {"user_id": "x" * 201}).encode(): "user_id longer than 200",
    json.dumps(GOOD | {"user_id": "u\n1"}).encode(): "user_id holds a control character",
    json.dumps(GOOD | {"price": -1}).encode(): "price is negative",
    json.dumps(GOOD | {"type": CLASH}).encode(): "type has the code of another one",
    b'{"user_id": "\\ud800", "type": "click"}': "no JSON",
    b"[" * 50_000: "no JSON",
}


def test_a_poisoned_batch_stops_nothing_and_is_counted_by_reason(redis, lake):
    nudge = json.dumps(GOOD | {"event_id": "n", "type": "nudge"}).encode()
    payloads = [nudge, *POISON, json.dumps(GOOD).encode()]
    stream = processor(lake, redis)

    stream.process([Message(p, f"m{i}", 0, None) for i, p in enumerate(payloads)])

    expected = pl.Series([*POISON.values()]).value_counts()
    assert dict(expected.iter_rows()) == DeadLetters(redis).counts()
    assert ["g", "n"] == ids(lake)
    assert (2, 0, dict(expected.iter_rows())) == (
        stream.tally.new,
        stream.tally.duplicates,
        dict(stream.tally.refused),
    )


def test_clocks_that_are_ahead_are_taken_up_to_a_day_and_reported(redis, lake):
    ahead = [timedelta(0), timedelta(seconds=30), timedelta(hours=5), timedelta(hours=25)]
    events = [
        GOOD | {"event_id": f"a{i}", "timestamp": (NOW + by).isoformat()}
        for i, by in enumerate(ahead)
    ]
    stream = processor(lake, redis)
    stream.process(messages(events))

    assert ["a0", "a1", "a2"] == ids(lake)
    assert {"timestamp in the future": 1} == DeadLetters(redis).counts()
    assert (1, 5 * 3600.0) == (stream.tally.early, stream.tally.ahead_s)

    stream.process(messages(events[:1]))
    assert (1, 0.0) == (stream.tally.early, stream.tally.ahead_s)


def test_a_refused_event_that_is_delivered_again_is_written_down_once(redis, lake):
    batch = [Message(p, f"m{i}", 0, None) for i, p in enumerate(POISON)]
    for _ in range(3):
        processor(lake, redis).process(batch)
    letters = [*DeadLetters(redis).letters()]

    assert len(POISON) - 1 == len(letters)  # without "nudge" nothing clashes with the last type
    assert {p for p in POISON if CLASH.encode() not in p} == {x.payload for x in letters}


def test_dead_letters_are_replayed_after_a_fix_and_leave(redis, redis_url, lake, monkeypatch):
    one = consumer(lake, redis, redis_url)
    bus, dead = open_bus(redis_url, lake.buckets), DeadLetters(redis)
    put(bus, [{**e, "type": "x" * 201} for e in stream_events(700)])
    put(bus, [GOOD | {"value": "much"}])
    drain(one)
    reason = "type longer than 200"
    assert {reason: 700, "value is not a number": 1} == dead.counts()

    monkeypatch.setattr("reco.events.payloads.MOST_LETTERS", 300)
    assert 700 == dead.replay(bus, reason)
    drain(one)

    assert 700 == len(ids(lake))
    assert {"value is not a number": 1} == dead.counts()
    assert 1 == len([*dead.letters()])
    assert 1 == dead.replay(bus)
    assert {} == dead.counts()


def test_a_replay_that_died_half_way_may_be_repeated(redis, redis_url, lake, monkeypatch):
    one = consumer(lake, redis, redis_url)
    bus, dead = open_bus(redis_url, lake.buckets), DeadLetters(redis)
    nameless = [{k: v for k, v in e.items() if k != "event_id"} for e in stream_events(40)]
    monkeypatch.setattr("reco.events.payloads.MOST_LETTERS", 1)
    put(bus, nameless)
    drain(one)
    monkeypatch.undo()
    bus.append([(x.shard, x.payload) for x in dead.letters()])  # and killed before the removal
    drain(one)

    dead.replay(bus)
    drain(one)

    assert 40 == len(ids(lake))


# -- what events may look like -----------------------------------------------------------------


def test_fields_that_nobody_knows_become_attributes_without_a_restart(redis, lake):
    stream = processor(lake, redis)
    stream.process(messages([GOOD]))
    stream.process(
        messages([GOOD | {"event_id": "h", "utm": "spring", "attributes": {"a": 1}, "none": None}])
    )

    assert [None, '{"a": 1, "utm": "spring"}'] == (
        lake.events().sort("event_id").collect()["attributes"].to_list()
    )


def test_a_shop_that_is_streamed_gives_the_lake_the_rows_and_the_training_set_of_its_import(
    redis, slice_dir, tmp_path
):
    shop = convert(slice_dir, tmp_path / "shop", public_url="http://x", image_name=str)
    imported, lake = small_lake(tmp_path / "imported"), small_lake(tmp_path / "streamed")
    import_table("events", [shop.events], None, imported, None, tmp_path / "quarantine")
    rows = imported.events().collect()
    events = [*as_payloads(rows.sample(fraction=1.0, shuffle=True, seed=3))]
    for one in (imported, lake):
        import_table("items", [shop.items], None, one, None, tmp_path / "quarantine")

    stream = processor(lake, redis)
    for start in range(0, len(events), 4_000):
        stream.process(messages(events[start : start + 4_000], start))

    streamed = lake.events().collect()
    assert rows.drop("attributes").equals(streamed.drop("attributes"))
    read = [[t and json.loads(t) for t in frame["attributes"]] for frame in (rows, streamed)]
    assert read[0] == read[1]
    assert training_set(imported, CUT) == training_set(lake, CUT)
    assert_rows_are_right(lake, redis)


def test_ids_may_be_numbers_and_times_epochs(redis, lake):
    odd = {"user_id": 7, "item_id": 12, "type": "view", "timestamp": NOW.timestamp() * 1000}
    processor(lake, redis).process(messages([odd | {"event_id": 1}, GOOD]))
    rows = lake.events().sort("event_id").collect()

    assert ["1", "g"] == rows["event_id"].to_list()
    assert ["7", "u"] == rows["user_id"].to_list()
    assert ["12", None] == rows["item_id"].to_list()
    assert [NOW, NOW] == rows["timestamp"].to_list()


def test_an_event_without_id_is_the_same_event_when_it_comes_again(redis, lake):
    nameless = {k: v for k, v in GOOD.items() if k != "event_id"}
    for i in range(3):
        processor(lake, redis).process(messages([nameless], i))

    assert 1 == len(ids(lake))


def test_clicks_of_mails_reach_the_rows(redis, redis_url, lake):
    one = consumer(lake, redis, redis_url)
    redis.xadd(
        "reco:events",
        {"type": "click", "user_id": "u9", "campaign_id": "c", "delivery_id": "u9", "item_id": "i1",
         "slot": "2", "timestamp": NOW.isoformat()},
    )  # fmt: skip

    drain(one)

    (row,) = lake.events().collect().to_dicts()
    assert ("click", "c", 2, None) == (row["type"], row["campaign_id"], row["slot"], row["value"])
    assert_rows_are_right(lake, redis)


def test_landed_rows_are_merged_and_not_rebuilt(redis, lake, monkeypatch):
    stream = processor(lake, redis)
    stream.process(messages(stream_events(200)))
    monkeypatch.setattr(LiveRows, "_rebuild", lambda *_: pytest.fail("rebuilt"))

    stream.process(messages(stream_events(200, seed=3), 200))

    assert_rows_are_right(lake, redis)


def test_verify_finds_every_row_that_is_not_right(redis, lake):
    stream = processor(lake, redis)
    stream.process(messages(stream_events(500)))
    store = OnlineStore(redis)
    twice = store.fetch(["u3", "u8"])
    store.load(["u3", "u8"], twice.merge(twice))

    found = verify(lake, store, None, NOW)

    assert 2 == found.differing
    assert {"u3", "u8"} == {difference.user_id for difference in found.examples}
    assert found.largest >= 1
