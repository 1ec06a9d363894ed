"""reco tidy: what leaves the lake leaves the served rows."""

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from click.testing import CliRunner

from reco.cli import main
from reco.embedded import connect_redis
from reco.events.lake import Lake
from reco.features.live import LiveRows
from reco.features.online import OnlineStore
from tests.streams import NOBODY, small_lake


@pytest.fixture
def run(services, monkeypatch):
    for name, value in services.environment().items():
        monkeypatch.setenv(name, value)
    return lambda *words: CliRunner().invoke(main, list(words), catch_exceptions=False)


DAYS = {"gone": [400, 500], "part": [400, 1], "stays": [1, 2]}


def fill(lake):
    """Three users, of whom some have events that are older than a year."""
    now = datetime.now(UTC)
    rows = [
        {
            "event_id": f"tidy-{user}-{day}",
            "user_id": f"tidy-{user}",
            "type": "tidied",
            "timestamp": now - timedelta(days=day),
            "item_id": f"i{day}",
        }
        for user, when in DAYS.items()
        for day in when
    ]
    lake.append(pl.DataFrame(rows))


def lengths(online):
    return [len(online.fetch([f"tidy-{user}"]).records) for user in DAYS]


def test_old_events_leave_the_lake_and_the_rows(run, services, engine, redis):
    lake, online = Lake(services.lake), OnlineStore(connect_redis(services.redis_url))
    fill(lake)
    LiveRows(lake, online, NOBODY).follow(range(lake.buckets))

    answer = run("tidy", "--keep", "tidied=365", "--json")

    assert 0 == answer.exit_code, answer.output
    assert {"tidied": 3} == json.loads(answer.stdout)["expired"]
    assert [0, 1, 2] == lengths(online)


@pytest.mark.parametrize("who", ["a stream that runs", "the next tidying"])
def test_a_kill_between_lake_and_rows_leaves_nothing_that_should_be_gone(redis, tmp_path, who):
    lake, online = small_lake(tmp_path / "lake"), OnlineStore(redis)
    fill(lake)
    rows = LiveRows(lake, online, NOBODY)
    rows.follow(range(lake.buckets))
    lake.tidy({"tidied": datetime.now(UTC) - timedelta(days=365)})  # and killed
    before = lengths(online)

    if who == "a stream that runs":
        LiveRows(lake, online, NOBODY).follow(range(lake.buckets))
    else:
        LiveRows(lake, online, NOBODY).redo_gone()

    assert [2, 2, 2] == before
    assert [0, 1, 2] == lengths(online)


def test_buckets_that_lost_everything_take_events_again(redis, tmp_path):
    lake, online = small_lake(tmp_path / "lake"), OnlineStore(redis)
    fill(lake)
    for _ in range(2):
        rows = LiveRows(lake, online, NOBODY)
        rows.follow(range(lake.buckets))
        lake.tidy({"tidied": datetime.now(UTC)})
        rows.redo_gone()
        assert [0, 0, 0] == lengths(online)
        fill(lake)
        rows.follow(range(lake.buckets))
        assert [2, 2, 2] == lengths(online)


def test_an_age_that_is_none_is_named(run):
    answer = run("tidy", "--keep", "open=never")

    assert 1 == answer.exit_code
    assert "--keep open=never" in answer.output
