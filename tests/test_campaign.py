"""Campaign configuration, its conditions and its stored state."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import Engine

from reco.campaigns.campaign import Campaign, load
from reco.campaigns.pacing import TokenBucket, next_attempt
from reco.campaigns.starting import start
from reco.campaigns.store import CampaignState, CampaignStore
from reco.campaigns.timing import Window
from reco.errors import ConfigError, Conflict, NotFound
from serve.audience import assigned_arms
from serve.chunks import Choice
from serve.letterhead import list_header
from serve.pausing import pausing

DIGEST = Path(__file__).parent.parent / "configs" / "campaigns" / "digest.yaml"
EXPLORING = "arms: [{name: learn, weight: 1, slate: explore}]\n"
ONCE = "{times: 1, days: 7}"
NEEDED = """\
id: c
template: digest
from_name: Shop
from_email: Shop@Example.COM
postal_address: 1 Street, Town
"""


def written(folder: Path, text: str) -> Path:
    """A file with this text."""
    path = folder / "campaign.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_demo_campaign_loads_and_survives_json() -> None:
    campaign = load(DIGEST)

    assert campaign.weights == {"control": 0.2, "personal": 0.8}
    assert campaign.now() == datetime(2017, 12, 4, tzinfo=UTC)
    assert Campaign.model_validate_json(campaign.model_dump_json()) == campaign


def test_a_holdout_is_the_same_in_every_campaign_and_more_traffic_moves_nobody(
    tmp_path: Path,
) -> None:
    users = [f"u{i}" for i in range(2_000)]
    parts = load(written(tmp_path, NEEDED)).model_copy(update={"holdout": 0.1, "share": 0.3})
    more = parts.model_copy(update={"share": 0.6})
    other = parts.model_copy(update={"id": "d"})
    first, second, third = (assigned_arms(one, users) for one in (parts, more, other))

    assert {"holdout", "outside", "personal"} == set(first)
    assert 150 < first.count("holdout") < 250
    assert all(a in (b, "outside") for a, b in zip(first, second, strict=True))
    held = [[arm == "holdout" for arm in one] for one in (first, second, third)]
    assert held[0] == held[1] == held[2]
    assert first != third
    assert {"holdout", "outside"} <= Choice.of(parts).static


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    campaign = load(written(tmp_path, NEEDED))

    assert campaign.arm_salt == "c"
    assert set(assigned_arms(campaign, [f"u{i}" for i in range(500)])) == {"personal"}
    assert list_header(campaign) == "c.example.com"
    assert campaign.weights == {"personal": 1.0}
    assert abs(campaign.now() - datetime.now(UTC)) < timedelta(minutes=1)


def test_every_mistake_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    text = NEEDED.replace("Shop@Example.COM", "nobody") + (
        "pickz: 3\n"
        "arms:\n"
        "  - {name: a, weight: 0}\n"
        "segments: [{name: s, when: {plan: {mn: 3}}}]\n"
        "as_of: yesterday\n"
        "id: d\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text))

    for part in (
        "line 4, from_email: expected an e-mail address",
        "line 6, pickz: unknown key; did you mean picks?",
        "line 8, arms[0].weight",
        "line 9, segments[0].when.plan.mn: unknown key; did you mean min?",
        "line 10, as_of",
        "line 11, id: stands twice",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("arms: [{name: a, weight: 1}, {name: a, weight: 1}]", "named twice: a"),
        ("picks: 3\neditorial: [x, y, y]", "at least 3 different items"),
        ('subject: "a\\r\\nBcc: all@example.com"', "subject"),
        ("locale: xx_YY", "expected a locale"),
        ("audience: {file: nobody.txt}", "is not a file"),
        ("rules: {frequency_cap: {times: 2}}", "rules.frequency_cap.days: is required"),
        (f"{EXPLORING}rules: {{frequency_cap: {ONCE}}}", "leave frequency_cap out"),
        (f"{EXPLORING}rules: {{category_cap: {ONCE}}}", "leave category_cap out"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path: Path, more: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(written(tmp_path, NEEDED + more))


@pytest.mark.parametrize("text", ["", "- a", "id: [", "id: c\n\tx: 1"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load(written(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load(tmp_path / "none.yaml")


def test_an_audience_may_lie_in_a_file_beside_the_campaign(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("7\n\n 8 \n7\n", encoding="utf-8")
    campaign = load(written(tmp_path, NEEDED + 'audience: {users: ["9"], file: ids.txt}'))

    assert campaign.audience.user_ids() == ["9", "7", "8"]
    assert load(written(tmp_path, NEEDED)).audience.user_ids() is None


def test_an_audience_file_may_have_a_byte_order_mark_and_must_be_utf_8(tmp_path: Path) -> None:
    people = tmp_path / "people.txt"
    people.write_bytes(b"\xef\xbb\xbfu1\r\nu2\r\n")
    audience = load(written(tmp_path, NEEDED + "audience: {file: people.txt}\n")).audience
    assert audience.user_ids() == ["u1", "u2"]

    people.write_bytes("u1\nu2\n".encode("utf-16"))
    with pytest.raises(ConfigError, match=r"people\.txt cannot be read"):
        audience.user_ids()


def test_the_first_segment_that_fits_wins(tmp_path: Path) -> None:
    campaign = load(
        written(
            tmp_path,
            NEEDED
            + "segments:\n"
            + "  - {name: vip, when: {plan: [gold, black], attributes.buys: {min: 3}}}\n"
            + "  - {name: buyer, when: {attributes.buys: {min: 1, max: 9}}}\n"
            + "  - name: stranger\n"
            + "    when: {attributes.buys: {known: false}, device: {known: false}}\n",
        )
    )
    frame = pl.DataFrame(
        {"plan": ["gold", "gold", None, "blue", "black"], "attributes.buys": [3, 2, None, 10, 3]}
    )

    assert campaign.segments_of(frame) == ["vip", "buyer", "stranger", "other", "vip"]
    assert campaign.segment_fields == {"plan", "attributes.buys", "device"}


def test_values_are_compared_as_the_configuration_wrote_them(tmp_path: Path) -> None:
    campaign = load(
        written(
            tmp_path,
            NEEDED
            + "segments:\n"
            + '  - {name: text, when: {attributes.x: "3"}}\n'
            + "  - {name: number, when: {attributes.x: 3.5}}\n"
            + "  - {name: flag, when: {attributes.y: true}}\n",
        )
    )
    frame = pl.DataFrame(
        {"attributes.x": ["3", "3.50", None], "attributes.y": [False, False, True]}
    )

    assert campaign.segments_of(frame) == ["text", "number", "flag"]


def test_a_condition_on_what_does_not_exist_is_a_mistake(tmp_path: Path) -> None:
    text = NEEDED + "audience: {where: {regoin: north, count_purchase_90d: 3, attributes.x: 1}}\n"
    text += "segments: [{name: s, when: {count_purchas_90d: {min: 3}, attributes.x: 1}}]\n"

    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text))

    message = str(caught.value)
    assert "audience.where: regoin is no field of a profile (did you mean region?)" in message
    assert "count_purchase_90d is no field of a profile" in message
    assert "segments[0].when: count_purchas_90d is neither" in message
    assert "(did you mean count_purchase_90d?)" in message
    assert "x is" not in message


def test_a_window_closes_at_its_first_end(tmp_path: Path) -> None:
    more = "window: {deadline_at: 2026-01-01T12:00:00Z, duration_s: 3600}"
    window = load(written(tmp_path, NEEDED + more)).window
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)

    assert window.closes_at(noon - timedelta(hours=5)) == noon - timedelta(hours=4)
    assert window.closes_at(noon - timedelta(minutes=5)) == noon
    assert Campaign.model_fields["window"].default.closes_at(noon) is None


def test_before_its_time_a_campaign_waits_and_can_be_cancelled(
    tmp_path: Path, engine: Engine
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1.5)
    store = CampaignStore(engine)
    timed = load(written(tmp_path, NEEDED + f"window: {{start_at: {soon.isoformat()}}}\n"))

    assert start(store, timed) >= soon

    later = timed.model_copy(
        update={"id": "later", "window": Window(start_at=datetime(2999, 12, 24, tzinfo=UTC))}
    )
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(start, store, later)
        while "later" not in [stored.campaign.id for stored in store.all()]:
            time.sleep(0.01)
        assert store.get("later").state is CampaignState.DRAFT
        store.move("later", CampaignState.CANCELLED)
        with pytest.raises(Conflict, match="cancelled"):
            waiting.result()


def test_a_campaign_is_stored_once_and_not_changed(engine: Engine) -> None:
    store, campaign = CampaignStore(engine), load(DIGEST)
    assert store.create(campaign).state is CampaignState.DRAFT
    assert store.create(campaign).campaign == campaign

    with pytest.raises(Conflict, match="another configuration"):
        store.create(campaign.model_copy(update={"picks": 4}))
    with pytest.raises(NotFound):
        store.get("other")


def test_whatever_goes_wrong_in_a_run_pauses_it_with_the_reason(
    tmp_path: Path, engine: Engine
) -> None:
    store = CampaignStore(engine)
    start(store, load(written(tmp_path, NEEDED)))

    with pytest.raises(ZeroDivisionError), pausing(store, "c"):
        1 / 0  # noqa: B018 - any error that is not ours

    stored = store.get("c")
    assert (stored.state, stored.note) == (
        CampaignState.PAUSED,
        "ZeroDivisionError('division by zero')",
    )


def test_resuming_leaves_alone_what_runs_but_not_what_is_cancelled(
    tmp_path: Path, engine: Engine
) -> None:
    store = CampaignStore(engine)
    start(store, load(written(tmp_path, NEEDED)))
    store.move("c", CampaignState.PAUSED)

    resumed, again, joined = store.resume("c"), store.resume("c"), store.join("c")
    store.move("c", CampaignState.CANCELLED)

    assert resumed == again == joined
    assert resumed.state is CampaignState.RUNNING
    for call in (store.join, store.resume):
        with pytest.raises(Conflict, match="cancelled"):
            call("c")


def test_only_who_says_so_resumes_a_campaign(tmp_path: Path, engine: Engine) -> None:
    store, wanted = CampaignStore(engine), load(written(tmp_path, NEEDED))
    start(store, wanted)
    store.move("c", CampaignState.PAUSED, "it does harm")

    with pytest.raises(Conflict, match="it does harm"), pausing(store, "c"):
        start(store, wanted, resume=False)  # a driver that Ray starts again

    assert store.get("c").note == "it does harm"
    start(store, wanted)
    assert store.get("c").state is CampaignState.RUNNING


def test_single_sends_are_held_up_and_go_on_without_a_mail_to_the_whole_audience(
    tmp_path: Path, engine: Engine
) -> None:
    store = CampaignStore(engine)
    store.create(load(written(tmp_path, NEEDED)))
    with pytest.raises(Conflict, match="single sends"):
        store.resume("c")
    store.move("c", CampaignState.PAUSED)

    resumed = store.resume("c")

    assert (resumed.state, resumed.goes_on) == (CampaignState.DRAFT, False)


def test_states_change_only_along_their_table(engine: Engine) -> None:
    store = CampaignStore(engine)
    store.create(load(DIGEST))
    started = store.move("digest", CampaignState.RUNNING).started_at
    paused = store.move("digest", CampaignState.PAUSED, "the disk is full")
    with pytest.raises(Conflict, match="the disk is full"):
        store.move("digest", CampaignState.FINISHED)
    again = store.move("digest", CampaignState.RUNNING)
    with pytest.raises(Conflict):
        store.move("digest", CampaignState.RUNNING)
    done = store.move("digest", CampaignState.FINISHED)

    assert paused.note == "the disk is full"
    assert (again.started_at, again.note) == (started, None)
    assert done.finished_at is not None
    assert [stored.state for stored in store.all()] == [CampaignState.FINISHED]


def test_retries_come_later_and_later_and_end() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    waits = [next_attempt(n, start) for n in range(1, 6)]

    assert [t - start if t else None for t in waits] == [
        timedelta(minutes=15),
        timedelta(hours=1),
        timedelta(hours=4),
        timedelta(hours=12),
        None,
    ]


def test_a_bucket_lets_through_its_rate_after_a_burst() -> None:
    now = [0.0]
    bucket = TokenBucket(10, burst=2, clock=lambda: now[0])

    assert [bucket.reserve() for _ in range(4)] == pytest.approx([0, 0, 0.1, 0.2])
    now[0] = 0.2
    assert bucket.reserve() == pytest.approx(0.1)
    now[0] = 100
    assert [bucket.reserve() for _ in range(3)] == pytest.approx([0, 0, 0.1])
