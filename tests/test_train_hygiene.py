"""What programs did, invalid addresses, and whoever withdrew consent: training never sees it."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from reco.events.lake import Lake
from reco.events.schema import conform
from reco.subscribers.store import SubscriberStore
from reco.subscribers.suppression import SuppressionList, SuppressionReason
from reco.tables import EVENTS
from train.examples import Job, read_shard, write_shard
from train.hygiene import Hygiene, programs

KEY = b"k" * 32
SENT = datetime(2026, 3, 2, 9, tzinfo=UTC)
BROWSER = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/132.0.0.0"
IDS = ("dead", "refused", "fine")


def held_by(lake, engine, database_url, as_of):
    """Records a subscriber that the examples hold, and how many events were left out."""
    clean = Hygiene.of(lake, engine, database_url, KEY)
    job = Job(lake, SubscriberStore(engine), "run", as_of, "purchase", 4.0, clean)
    held, left_out = {}, 0
    for bucket in range(lake.buckets):
        shard = write_shard(job, bucket, [])
        found = lake.read_bucket(bucket, before=as_of)["user_id"].unique().sort().to_list()
        records = np.diff(read_shard(lake, shard.path).offsets).tolist()
        held |= dict(zip(found, records, strict=True))
        left_out += shard.left_out
    return held, left_out


def test_dead_addresses_and_withdrawn_consent_teach_nothing(engine, database_url, tmp_path):
    lake, store = Lake(str(tmp_path / "lake")), SubscriberStore(engine)
    store.upsert(
        pl.DataFrame(
            {
                "user_id": IDS,
                "email": [f"{name}@a.example" for name in IDS],
                "consent": [True, False, True],
            }
        )
    )
    listed = SuppressionList(engine, KEY)
    listed.add(["dead@a.example"], SuppressionReason.HARD_BOUNCE, "test")
    now = datetime.now(UTC)
    days = [now - timedelta(days=1), now + timedelta(hours=1)]
    rows = [
        {"event_id": f"{name}{i}", "user_id": name, "type": "purchase", "timestamp": day,
         "item_id": f"i{i}"}
        for name in IDS for i, day in enumerate(days)
    ]  # fmt: skip
    lake.append(conform(pl.DataFrame(rows), EVENTS))

    held, left_out = held_by(lake, engine, database_url, now + timedelta(days=1))

    assert held == {"dead": 1, "refused": 0, "fine": 2}
    assert left_out == 1


def test_clicks_of_programs_are_named_and_left_out():
    clicks = [("person", BROWSER, 3600), ("scanner", "python-requests/2.32", 3600)]
    events = pl.DataFrame(
        [
            {"event_id": name, "user_id": "u", "type": "click", "campaign_id": "c",
             "delivery_id": "d", "slot": 0, "timestamp": SENT + timedelta(seconds=after),
             "item_id": "i", "attributes": f'{{"user_agent": "{agent}", "method": "GET"}}'}
            for name, agent, after in clicks
        ]
    )  # fmt: skip
    events = conform(events, EVENTS)
    mailed = pl.DataFrame(
        {"campaign_id": ["c"], "user_id": ["d"], "items": [["i", "j", "k"]], "accepted_at": [SENT]}
    )

    found = programs(events.lazy(), [mailed, mailed.clear()])

    assert found["event_id"].to_list() == ["scanner"]
    assert Hygiene(programs=found).cleaned(events)["event_id"].to_list() == ["person"]
    assert Hygiene().cleaned(events).equals(events)
