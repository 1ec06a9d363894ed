"""The lake: each event once, in one order, visible at once or not at all, while others read."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import log2
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reco.errors import ConfigError, InputError, NotFound
from reco.events.known_ids import KnownIds
from reco.events.lake import Lake
from reco.tables import EVENTS, KNOWN_TYPES, type_code, user_bucket

START = datetime(2017, 1, 1, tzinfo=UTC)


def events(n: int, *, users: int = 40, first: int = 0) -> pl.DataFrame:
    """n events of some users, an hour apart."""
    numbers = range(first, first + n)
    return pl.DataFrame(
        {
            "event_id": [f"e{i}" for i in numbers],
            "user_id": [f"u{i % users}" for i in numbers],
            "type": ["purchase" if i % 3 else "click" for i in numbers],
            "timestamp": [START + timedelta(hours=i) for i in numbers],
            "item_id": [f"i{i % 7}" for i in numbers],
            "value": [float(i) for i in numbers],
        }
    )


def everything(lake: Lake) -> pl.DataFrame:
    return lake.events().collect()


def visible_files(lake: Lake) -> set[str]:
    return {path for paths in lake.bucket_paths() for path in paths}


def test_all_events_of_a_user_lie_in_one_bucket_in_the_order_of_time(lake: Lake) -> None:
    lake.append(events(500).sample(fraction=1, shuffle=True, seed=1))

    for bucket in range(lake.buckets):
        rows = lake.read_bucket(bucket)
        assert {user_bucket(u, lake.buckets) for u in rows["user_id"]} <= {bucket}
        assert rows.equals(rows.sort("user_id", "timestamp", "event_id"))
    assert len(everything(lake)) == 500


def test_files_have_exactly_the_declared_schema(lake: Lake) -> None:
    lake.append(events(50))

    for path in visible_files(lake):
        assert pq.read_schema(path).equals(EVENTS)


def test_appending_again_changes_nothing(lake: Lake) -> None:
    lake.append(events(100))
    before = lake.manifest()

    again = lake.append(events(100))

    assert (again.new, again.duplicates) == (0, 100)
    assert lake.manifest() == before


def test_an_id_that_stands_twice_in_a_batch_is_added_once(lake: Lake) -> None:
    twice = pl.concat([events(30), events(30)])

    appended = lake.append(twice)

    assert (appended.new, appended.duplicates) == (30, 30)


def test_which_of_two_rows_with_one_id_is_kept_does_not_depend_on_their_order(
    tmp_path: Path,
) -> None:
    one = events(1)
    other = one.with_columns(value=pl.lit(99.0))
    lakes = [Lake(str(tmp_path / name)) for name in ("a", "b")]

    lakes[0].append(pl.concat([one, other]))
    lakes[1].append(pl.concat([other, one]))

    assert everything(lakes[0]).equals(everything(lakes[1]))


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 1000), cuts=st.lists(st.integers(0, 120), max_size=4), spill=st.booleans()
)
def test_any_order_and_any_split_of_events_without_ids_give_the_same_lake(
    tmp_path_factory: pytest.TempPathFactory, seed: int, cuts: list[int], spill: bool
) -> None:
    # Every row stands twice: two equal purchases are two, however they are cut.
    rows = pl.concat([events(60, users=9)] * 2).drop("event_id")
    straight, cut = (Lake(str(tmp_path_factory.mktemp("lake"))) for _ in range(2))
    straight.append(rows)
    shuffled = rows.sample(fraction=1, shuffle=True, seed=seed)
    bounds = [0, *sorted(cuts), len(rows)]

    with pytest.MonkeyPatch.context() as patch, cut.writer() as writer:
        if spill:
            patch.setattr("reco.events.append.SPILL_ROWS", 25)
        for begin, end in pairwise(bounds):
            writer.add(shuffled[begin:end])
        appended = writer.commit()

    assert (appended.new, appended.duplicates) == (120, 0)
    assert everything(straight).equals(everything(cut))


def test_many_small_appends_are_compacted_and_read_as_one_big_one(
    lake: Lake, tmp_path: Path
) -> None:
    appends = 40
    for i in range(appends):
        lake.append(events(32, users=16, first=32 * i))
    whole = Lake(str(tmp_path / "whole"))
    whole.append(events(32 * appends, users=16))

    for parts in lake.manifest().parts:
        assert len(parts) <= 1 + log2(1 + sum(part.rows for part in parts))
    assert everything(lake).equals(everything(whole))


def test_a_large_part_is_not_written_again_for_a_small_append(lake: Lake) -> None:
    lake.append(events(500))
    large = visible_files(lake)

    lake.append(events(40, first=500))

    assert large <= visible_files(lake)


def test_a_reader_keeps_the_files_it_listed_while_a_bucket_is_compacted(lake: Lake) -> None:
    lake.append(events(40))
    listed = visible_files(lake)

    lake.append(events(40, first=40))

    assert not listed & visible_files(lake)
    assert sum(pq.read_metadata(path).num_rows for path in listed) == 40


def test_files_that_nobody_lists_are_swept_after_the_grace(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.append(events(20))
    lost = Path(lake.path("events", "bucket=00", "part-lost.parquet"))
    lost.parent.mkdir(exist_ok=True)
    lost.write_bytes(b"of a writer that died")
    os.utime(lost, (0, 0))

    lake.append(events(20, first=20))

    assert not lost.exists()
    assert len(everything(lake)) == 40


def test_before_keeps_earlier_events_and_those_without_a_time(lake: Lake) -> None:
    untimed = events(5, first=1000).with_columns(timestamp=pl.lit(None, pl.Datetime("us", "UTC")))
    lake.append(pl.concat([events(48), untimed]))
    lake.append(events(48, first=48))
    cut = START + timedelta(hours=24)

    rows = lake.events(before=cut).collect()

    assert len(rows) == 24 + 5
    assert rows["timestamp"].drop_nulls().max() < cut
    by_bucket = [lake.read_bucket(b, before=cut) for b in range(lake.buckets)]
    assert pl.concat(by_bucket).equals(rows)


def test_columns_are_those_asked_for_in_their_order(lake: Lake) -> None:
    lake.append(events(20))
    lake.append(events(20, first=20))

    assert lake.read_bucket(3, columns=["value", "user_id"]).columns == ["value", "user_id"]
    assert lake.events(columns=["item_id"]).collect().columns == ["item_id"]


def test_an_empty_lake_has_no_events_but_all_columns(lake: Lake) -> None:
    assert everything(lake).columns == EVENTS.names
    assert len(everything(lake)) == 0
    assert lake.append(events(0)).new == 0


def test_types_that_share_a_code_are_refused_and_nothing_is_written(lake: Lake) -> None:
    names = [f"type{i}" for i in range(400)]
    first = names[0]
    clash = next(n for n in names[1:] if type_code(n) == type_code(first))
    lake.append(events(10).with_columns(type=pl.lit(first)))
    before = lake.manifest()

    with pytest.raises(InputError, match=clash):
        lake.append(events(10, first=10).with_columns(type=pl.lit(clash)))

    assert lake.manifest() == before
    on_disk = {str(p) for p in Path(lake.path("events")).rglob("*.parquet")}
    assert on_disk == visible_files(lake)


def test_known_types_never_clash(lake: Lake) -> None:
    frame = events(len(KNOWN_TYPES)).with_columns(type=pl.Series(KNOWN_TYPES))

    assert lake.append(frame).new == len(KNOWN_TYPES)


def test_writers_at_the_same_time_lose_nothing(lake: Lake) -> None:
    threads = [
        threading.Thread(
            target=lambda i=i: Lake(lake.path()).append(events(50, first=50 * i))  # type: ignore[misc]
        )
        for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(everything(lake)) == 300


def test_processes_at_the_same_time_lose_nothing(lake: Lake) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        pool.starmap(_append_in_process, [(lake.path(), 50 * i) for i in range(4)])

    assert len(everything(lake)) == 200


def _append_in_process(root: str, first: int) -> None:
    Lake(root).append(events(50, first=first))


def test_a_writer_killed_before_its_commit_leaves_the_lake_as_it_was(lake: Lake) -> None:
    """SIGKILL when the files are there and the manifest is about to be replaced."""
    lake.append(events(100))
    before = everything(lake)
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
        from reco.events import append
        from reco.events.lake import Lake
        from tests.test_lake import events
        append.publish = lambda files, old, new: os.kill(os.getpid(), signal.SIGKILL)
        Lake({lake.path()!r}).append(events(100, first=100))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)

    assert done.returncode == -signal.SIGKILL
    assert everything(lake).equals(before)
    assert lake.append(events(100, first=100)).new == 100  # its lock died with it


def test_a_writer_that_fails_leaves_no_file_behind(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    lake.append(events(100))
    monkeypatch.setattr("reco.events.append.SPILL_ROWS", 10)
    monkeypatch.setattr("reco.events.append.publish", fail)

    with pytest.raises(OSError, match="disk full"):
        lake.append(events(100, first=100))

    on_disk = {str(p) for p in Path(lake.path()).rglob("*.parquet")}
    assert on_disk == visible_files(lake)


def test_a_reader_during_appends_sees_whole_appends_only(lake: Lake) -> None:
    done = threading.Event()

    def write() -> None:
        for i in range(12):
            lake.append(events(64, first=64 * i))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while not done.is_set():
        seen.append(len(everything(lake)))
    writer.join()

    assert {n % 64 for n in seen} <= {0}
    assert seen == sorted(seen)


def test_items_merge_by_id_and_keep_columns_that_are_not_given(lake: Lake) -> None:
    lake.write_items(
        pl.DataFrame({"item_id": ["a", "b"], "title": ["A", "B"], "price": [1.0, 2.0]})
    )

    merged = lake.write_items(pl.DataFrame({"item_id": ["b", "c"], "price": [3.0, None]}))

    assert (merged.new, merged.duplicates) == (1, 1)
    rows = lake.items().select("item_id", "title", "price").rows()
    assert rows == [("a", "A", 1.0), ("b", "B", 3.0), ("c", "c", None)]


def test_an_item_without_a_title_is_called_by_category_and_id(lake: Lake) -> None:
    lake.write_items(pl.DataFrame({"item_id": ["7"], "category": ["Tea"]}))

    assert lake.items()["title"].to_list() == ["Tea 7"]


def test_before_any_items_are_imported_they_are_those_of_the_events(lake: Lake) -> None:
    lake.append(events(64))
    named = everything(lake)["item_id"].unique().sort().to_list()

    assert lake.items().select("item_id", "title").rows() == [(i, i) for i in named]
    assert not lake.has_items()

    lake.write_items(pl.DataFrame({"item_id": ["7"], "category": ["Tea"]}))
    assert lake.items()["item_id"].to_list() == ["7"]


def test_other_tables_are_replaced_and_a_missing_one_is_not_found(lake: Lake) -> None:
    name = "features/as_of=2017-12-04T000000/items"
    lake.write_table(name, pl.DataFrame({"a": [1, 2]}))
    lake.write_table(name, pl.DataFrame({"a": [3]}))

    assert lake.read_table(name)["a"].to_list() == [3]
    with pytest.raises(NotFound, match="nothing"):
        lake.read_table("nothing")


def test_any_pyarrow_filesystem_gives_the_same_rows(tmp_path: Path) -> None:
    """A sub-tree filesystem stands for an object store: no local paths, no lock."""
    by_path = Lake(str(tmp_path / "a"))
    by_uri = Lake((tmp_path / "b").as_uri())
    remote = Lake(str(tmp_path / "c"))
    remote._files.filesystem = pa.fs.SubTreeFileSystem(str(tmp_path / "c"), pa.fs.LocalFileSystem())
    remote._files.root, remote._files.is_local = "root", False
    remote.filesystem.create_dir("root/events")

    for lake in (by_path, by_uri, remote):
        lake.append(events(60))
        lake.append(events(60, first=30))

    assert everything(by_uri).equals(everything(by_path))
    assert everything(remote).equals(everything(by_path))
    cut = START + timedelta(hours=10)
    assert remote.events(before=cut).collect().equals(by_path.events(before=cut).collect())


def test_a_lake_travels_to_another_process(lake: Lake) -> None:
    lake.append(events(10))

    assert everything(pickle.loads(pickle.dumps(lake))).equals(everything(lake))


def test_a_lake_of_another_layout_is_refused(lake: Lake) -> None:
    Path(lake.path("lake.json")).write_text('{"layout": 99, "buckets": 16}')

    with pytest.raises(ConfigError, match="99"):
        Lake(lake.path())


def test_a_root_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="RECO_LAKE"):
        Lake(str(tmp_path / "file" / "lake"))
    with pytest.raises(ConfigError, match="RECO_LAKE"):
        Lake("nosuchscheme://x/y")


def test_landing_batches_is_appending_them_and_says_what_was_new(tmp_path: Path) -> None:
    landing, appending = Lake(str(tmp_path / "a")), Lake(str(tmp_path / "b"))
    known = KnownIds()
    batches = [events(60, first=first) for first in (0, 30, 30, 200, 100)]  # they overlap
    for batch in batches:
        before = landing.manifest()
        landed = landing.land(batch, known)
        after = landing.manifest()

        assert sum(len(part.rows) for part in landed) == appending.append(batch).new
        for part in landed:
            assert (part.before, part.version) == (
                before.version(part.bucket),
                after.version(part.bucket),
            )

    assert everything(landing).equals(everything(appending))


def test_landing_knows_what_another_process_appended(lake: Lake) -> None:
    known = KnownIds()
    lake.land(events(50), known)
    lake.append(events(50, first=50))

    assert [] == lake.land(events(100), known)
    assert [] == lake.land(events(100), KnownIds())


def test_a_stream_takes_swallowed_files_away_once_in_a_while(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files() -> int:
        return len([*Path(lake.path("events")).rglob("*.parquet")])

    monkeypatch.setattr("reco.events.append.GRACE_S", -1.0)
    known = KnownIds()
    for first in range(0, 200, 50):
        lake.land(events(50, first=first, users=1), known)
    kept = files()
    monkeypatch.setattr("reco.events.append.SWEEP_S", 0.0)
    lake.land(events(50, first=200, users=1), known)

    assert kept > len(visible_files(lake)) == files()


# -- upkeep ------------------------------------------------------------------------------------


def test_upkeep_leaves_one_file_a_bucket_and_the_same_rows_and_versions(lake: Lake) -> None:
    for size, first in ((400, 0), (200, 400), (90, 600)):
        lake.append(events(size, first=first))
    before, versions = everything(lake), [lake.manifest().version(b) for b in range(lake.buckets)]

    done = lake.tidy({})

    assert done.files_before > done.files == len(visible_files(lake)) <= lake.buckets
    assert before.equals(everything(lake))
    assert versions == [lake.manifest().version(b) for b in range(lake.buckets)]
    assert 0 == lake.append(events(690)).new


def test_events_of_a_type_leave_when_they_are_too_old_and_others_stay(lake: Lake) -> None:
    lake.append(events(300))
    limit = START + timedelta(hours=100)
    stays = everything(lake).filter((pl.col("type") != "click") | (pl.col("timestamp") >= limit))

    done = lake.tidy({"click": limit})

    assert {"click": 34} == dict(done.expired)
    assert stays.equals(everything(lake))
    assert 0 == lake.tidy({"click": limit}).expired.total()


def test_a_reader_keeps_what_it_listed_before_events_leave(lake: Lake) -> None:
    lake.append(events(300))
    live, before = lake.manifest(), everything(lake)

    lake.tidy({"click": START + timedelta(days=1000), "purchase": START + timedelta(days=1000)})
    late = pl.concat([lake.read_bucket(b, live=live) for b in range(lake.buckets)])

    assert before.equals(late)
    assert everything(lake).is_empty()
