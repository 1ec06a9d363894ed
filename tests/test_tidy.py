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
from tests.streams import NOBODY


@pytest.fixture
def run(services, monkeypatch):
    for name, value in services.environment().items():
        monkeypatch.setenv(name, value)
    return lambda *words: CliRunner().invoke(main, list(words), catch_exceptions=False)


def test_old_events_leave_the_lake_and_the_rows(run, services, engine, redis):
    lake, now = Lake(services.lake), datetime.now(UTC)
    online = OnlineStore(connect_redis(services.redis_url))
    days = {"gone": [400, 500], "part": [400, 1], "stays": [1, 2]}
    rows = [
        {
            "event_id": f"tidy-{user}-{day}",
            "user_id": f"tidy-{user}",
            "type": "tidied",
            "timestamp": now - timedelta(days=day),
            "item_id": f"i{day}",
        }
        for user, when in days.items()
        for day in when
    ]
    lake.append(pl.DataFrame(rows))
    LiveRows(lake, online, NOBODY).follow(range(lake.buckets))

    answer = run("tidy", "--keep", "tidied=365", "--json")

    assert 0 == answer.exit_code, answer.output
    assert {"tidied": 3} == json.loads(answer.stdout)["expired"]
    lengths = [len(online.fetch([f"tidy-{user}"]).records) for user in days]
    assert [0, 1, 2] == lengths


def test_an_age_that_is_none_is_named(run):
    answer = run("tidy", "--keep", "open=never")

    assert 1 == answer.exit_code
    assert "--keep open=never" in answer.output
