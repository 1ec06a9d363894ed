"""Decision records: what was sent is made again byte for byte, and says why it was so."""

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sqlalchemy import delete, update

from reco.campaigns.campaign import Campaign
from reco.campaigns.decisions import DecisionLog, files, records
from reco.campaigns.delivery import HandOff, Settled, State
from reco.campaigns.forgetting import forget
from reco.campaigns.ledger import Ledger
from reco.database import DELIVERIES, SUBSCRIBERS
from reco.embedded import Services
from reco.errors import NotFound
from reco.events.lake import Lake
from reco.models.slates import Slates
from reco.rules.fates import Fate, followed, settled
from reco.rules.rules import RULES, Bought, RuleContext, apply
from reco.subscribers.store import SubscriberStore
from render.compile import STOCK
from serve.archive import KEPT_AGAIN_S, TRIED_AGAIN_S, Archive, Keeping
from serve.chunks import Assembled, Choice, Mode, Request
from serve.replay import write_replay
from serve.workshop import Workshop
from tests.small_shop import ITEM_COUNT, SHOP, slates_of
from tests.small_world import MAILED, TRACKED, World, campaign, items, small_world
from tests.stages import Stages


@pytest.fixture
def world(services: Services) -> Iterator[World]:
    shutil.rmtree(Path(services.lake) / "decisions", ignore_errors=True)
    with small_world(services) as world:
        yield world


def spec(wanted: Campaign) -> bytes:
    return wanted.model_dump_json().encode()


def sent(
    world: World, arm: str = "personal", users=MAILED, stages=None, **changes: object
) -> Assembled:
    """Mails of a campaign as a sender writes them down: in the ledger, and as records."""
    wanted = campaign(**changes)
    arms = [arm] * len(users)
    request = Request(Choice.of(wanted), list(users), arms, Mode.SEND, spec(wanted))
    made = (stages or Stages(world)).assemble(request)
    with Ledger(world.services.database_url) as ledger:
        ledger.enqueue(wanted.id, list(zip(users, arms, strict=True)))
        fence = ledger.claim(wanted.id, 1_000).fence
        mails = [
            HandOff(delivery, made.message_ids[i], 1, [], [], [], len(made.messages[i]))
            for i, delivery in enumerate(made.deliveries)
        ]
        ledger.hand_off(wanted.id, fence, mails)
        accepted = [Settled(mail.user_id, State.ACCEPTED, "250") for mail in mails]
        ledger.settle(wanted.id, fence, accepted)
    log = DecisionLog(Lake(world.services.lake), wanted.id)
    log.add(made.records, range(len(made)), fence)
    log.flush()
    return made


def again(world: World, delivery: str, folder: Path):
    lake = Lake(world.services.lake)
    return write_replay(delivery, world.services, lake, world.engine, folder / "mail.html")


@pytest.mark.parametrize(
    ("arm", "changes"),
    [
        ("control", {}),
        ("personal", {"offer_ends_at": "2030-01-01T00:00:00Z", "interests": ["aisle 1"]}),
        ("explore", {"arms": [{"name": "explore", "weight": 1, "slate": "explore"}]}),
        (
            "personal",
            {
                "variants": {
                    "key": "a",
                    "slots": {"subject": {"plain": "Picks", "asking": "Hungry?"}},
                }
            },
        ),
    ],
    ids=["editorial", "personal", "explore", "copy"],
)
def test_what_was_sent_is_made_again_byte_for_byte(world, tmp_path, arm, changes):
    made = sent(world, arm, **changes)

    for user in (TRACKED, "u05", "u10"):
        i = made.deliveries.index(user)
        by_id = again(world, made.message_ids[i], tmp_path)

        assert by_id.message.read_bytes() == made.messages[i]
        assert by_id.same
        assert by_id == again(world, f"spring/{user}", tmp_path)


def test_neither_catalogue_nor_profile_nor_template_of_today_is_asked(world, tmp_path):
    folder = tmp_path / "digest"
    shutil.copytree(STOCK / "digest", folder)
    made = sent(world, template=str(folder))
    changed = items().with_columns(title=pl.lit("Sold out"), price=99.0)
    Lake(world.services.lake).write_items(changed)
    with world.engine.begin() as connection:
        connection.execute(update(SUBSCRIBERS).values(first_name="Somebody", email="x@y.example"))
    (folder / "subject.jinja").write_text("Another subject")

    replay = again(world, "spring/u10", tmp_path)

    assert replay.message.read_bytes() == made.messages[made.deliveries.index("u10")]
    shutil.rmtree(folder)
    assert again(world, "spring/u10", tmp_path).same


def test_a_version_that_is_not_kept_is_named(world, tmp_path):
    sent(world)
    template = again(world, "spring/u10", tmp_path).template
    (Path(world.services.lake) / "decisions" / "templates" / f"{template}.zip").unlink()

    with pytest.raises(NotFound, match=f"template of version {template} is not kept"):
        again(world, "spring/u10", tmp_path)


def test_the_record_tells_model_features_rungs_and_what_each_rule_took(world, tmp_path):
    rules = {"seen": "drop", "max_per_category": 2, "frequency_cap": {"times": 1, "days": 7}}
    first = sent(world, users=["u10"], rules=rules)
    second = sent(world, users=["u10"], campaign_id="summer", rules=rules)
    replay = again(world, "summer/u10", tmp_path)

    fates = {line.split(":")[0]: line.rsplit(", ", 1)[1] for line in replay.candidates}
    assert {item for item, fate in fates.items() if fate == "shown"} <= set(second.item_ids[0])
    assert {fates[item] for item in first.item_ids[0] if item in fates} == {"capped"}
    assert "per_category" in fates.values()
    assert replay.features.startswith("2017-12-04T00:00:00Z ")
    assert len(replay.template) == 16
    assert len(replay.catalogue) == 24


def test_who_has_no_record_is_told_so(world, tmp_path):
    sent(world)

    with pytest.raises(NotFound, match="There is no delivery"):
        again(world, "spring/nobody", tmp_path)
    for path in files(Lake(world.services.lake), "spring"):
        Path(path).unlink()
    with pytest.raises(NotFound, match="no decision record"):
        again(world, "spring/u10", tmp_path)


def test_the_last_attempt_counts(world):
    lake = Lake(world.services.lake)
    made = sent(world)
    log = DecisionLog(lake, "spring")
    log.add(made.records, [0, 1], 10_000_000)
    log.flush()

    assert len(files(lake, "spring")) == 2
    assert len(records(lake, "spring")) == len(MAILED)
    assert records(lake, "spring", made.deliveries[1])["fence"].to_list() == [10_000_000]


def test_the_record_of_an_earlier_attempt_is_not_taken_for_what_was_sent(world, tmp_path):
    sent(world)
    assert again(world, "spring/u10", tmp_path).same
    with world.engine.begin() as connection:  # tried again by a sender that died before it wrote
        tried = update(DELIVERIES).where(DELIVERIES.c.user_id == "u10")
        connection.execute(tried.values(fence=DELIVERIES.c.fence + 1))

    replay = again(world, "spring/u10", tmp_path)

    assert not replay.same
    assert len(replay.changed) == 1
    assert "whose sender wrote no record" in replay.changed[0]


def test_fates_follow_the_rules_and_change_nothing():
    rng = np.random.default_rng(1)
    words = [f"i{n}" for n in range(ITEM_COUNT)]
    slates = slates_of(*([*rng.permutation(words)[:9].tolist(), "i0"] for _ in range(40)))
    context = RuleContext(
        SHOP, rng.random(ITEM_COUNT) < 0.2, Bought(np.zeros(0, np.uint64)), 1, 0.3
    )

    left, fates = followed(slates, context)

    expected = apply(slates, context)
    assert (left.items == expected.items).all()
    for row in range(40):
        kept = set(left.items[row]) - {0}
        open_ = fates[row] == Fate.LEFT
        assert set(slates.items[row][open_]) == kept
    chosen = np.zeros(left.items.shape, bool)
    chosen[:, 1] = True  # the first one is at its cap
    final = Slates.keep(left, chosen)
    told = settled(fates, slates, left, chosen, 1, final)
    shown = np.take_along_axis(slates.items, (told == Fate.SHOWN).argmax(axis=1)[:, None], 1)[:, 0]
    has = left.items[:, 1] != 0
    assert (shown[has] == left.items[has, 1]).all()
    capped = np.take_along_axis(slates.items, (told == Fate.CAPPED).argmax(axis=1)[:, None], 1)
    assert (capped[has, 0] == left.items[has, 0]).all()


def test_every_rule_has_a_fate():
    assert {rule.__name__.upper() for rule in RULES} <= set(Fate.__members__)


def test_who_is_erased_leaves_no_record_and_the_others_stay_as_they_were(world, tmp_path):
    lake = Lake(world.services.lake)
    made = sent(world)
    with world.engine.begin() as connection:
        connection.execute(delete(SUBSCRIBERS).where(SUBSCRIBERS.c.user_id == "u10"))

    done = forget(lake, SubscriberStore(world.engine).known)

    assert (done.records, done.erased, done.expired) == (len(MAILED) - 1, 1, 0)
    with pytest.raises(NotFound, match="no decision record"):
        again(world, "spring/u10", tmp_path)
    assert b"u10@" not in b"".join(Path(p).read_bytes() for p in files(lake, "spring"))
    i = made.deliveries.index("u11")
    assert again(world, "spring/u11", tmp_path).message.read_bytes() == made.messages[i]


def test_old_records_leave_with_the_versions_that_only_they_were_made_of(world, tmp_path):
    lake, store = Lake(world.services.lake), SubscriberStore(world.engine)
    sent(world)
    sent(world, campaign_id="summer", subject="Another")
    folder = Path(lake.path("decisions"))
    for path in folder.rglob("*"):
        os.utime(path, (0, 0))
    for path in files(lake, "spring"):
        Path(path).rename(Path(path).with_name("20200101T000000-0123456789ab.parquet"))

    done = forget(lake, store.known, datetime(2021, 1, 1, tzinfo=UTC))

    assert (done.expired, done.records, done.versions) == (len(MAILED), len(MAILED), 1)
    assert again(world, "summer/u10", tmp_path).same
    assert forget(lake, store.known).versions == 0


def test_what_was_checked_a_day_before_the_send_is_still_kept(world, tmp_path):
    stages, wanted = Stages(world), campaign()
    checked = Request(
        Choice.of(wanted), MAILED, ["personal"] * len(MAILED), Mode.CHECK, spec(wanted)
    )
    stages.assemble(checked)
    age(world)
    forget(Lake(world.services.lake), SubscriberStore(world.engine).known)

    sent(world, stages=stages)

    assert again(world, "spring/u10", tmp_path).same


def test_what_a_replica_makes_mails_of_stays_though_no_record_is_left(world):
    lake, now = Lake(world.services.lake), [0.0]
    archive, services = Archive(lake), world.services
    version = Workshop(spec(campaign()), world.catalogue, services).template_version
    kept = Keeping(
        lambda: archive.keep(spec(campaign()), version, world.catalogue, services), lambda: now[0]
    )
    made_of = kept.made_of()

    age(world)
    now[0] = KEPT_AGAIN_S
    kept.made_of()
    assert forget(lake, SubscriberStore(world.engine).known).versions == 0

    age(world)
    assert forget(lake, SubscriberStore(world.engine).known).versions == 3
    now[0] = 2 * KEPT_AGAIN_S
    assert kept.made_of() == made_of
    assert archive.bundle(made_of).template == version


def test_a_lake_that_is_away_is_asked_again():
    now, answers = [0.0], iter([OSError("away"), "abc", OSError("away")])

    def keep() -> str:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    kept = Keeping(keep, lambda: now[0])
    found = []
    for now[0] in (0, 1, TRIED_AGAIN_S, TRIED_AGAIN_S + 1, TRIED_AGAIN_S + KEPT_AGAIN_S):
        found.append(kept.made_of())

    assert found == ["", "", "abc", "abc", "abc"]


def age(world: World) -> None:
    """All that is kept was written long ago."""
    for path in (Path(world.services.lake) / "decisions").rglob("*"):
        os.utime(path, (0, 0))


def test_upkeep_makes_one_file_a_day(world):
    lake = Lake(world.services.lake)
    made = sent(world)
    log = DecisionLog(lake, "spring")
    for fence in (10**6, 10**7):
        log.add(made.records, [0], fence)
        log.flush()
    before = records(lake, "spring")

    forget(lake, SubscriberStore(world.engine).known)

    assert len(files(lake, "spring")) == 1
    assert records(lake, "spring").sort("delivery").equals(before.sort("delivery"))
