"""Campaigns by event: who does something gets their mail, once, and with every check."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from reco.campaigns.cancelling import cancel
from reco.campaigns.delivery import recipient_of
from reco.campaigns.ledger import Ledger
from reco.campaigns.smtp import SmtpPool
from reco.campaigns.store import CampaignState, CampaignStore
from reco.embedded import Services
from reco.events.schema import conform
from reco.rules.caps import Caps
from reco.rules.contact import Contacts
from reco.tables import EVENTS
from serve.metrics import Meters
from serve.sender import Sender
from serve.triggers import Triggers
from tests.small_world import NO_CONSENT, SUPPRESSED, World, campaign, small_world
from tests.stages import Stages

CART = {"event": "cart", "after_s": 600, "unless": ["purchase"], "once_every_days": 7}


@pytest.fixture
def world(services: Services) -> Iterator[World]:
    with small_world(services) as world:
        yield world


@pytest.fixture
def ledger(world: World) -> Iterator[Ledger]:
    with Ledger(world.services.database_url) as ledger:
        yield ledger


def now() -> datetime:
    """The database has a clock of its own, and the whole run of tests takes longer than a cart."""
    return datetime.now(UTC).replace(microsecond=0)


def events(*rows: tuple[str, str, float]) -> pl.DataFrame:
    """(user, type, seconds before now)."""
    return conform(
        pl.DataFrame(
            [
                {
                    "event_id": f"{user}-{kind}-{ago}",
                    "user_id": user,
                    "type": kind,
                    "timestamp": now() - timedelta(seconds=ago),
                }
                for user, kind, ago in rows
            ]
        ),
        EVENTS,
    )


def running(world: World, trigger: dict[str, object], **changes: object) -> CampaignStore:
    store = CampaignStore(world.engine)
    store.create(campaign(trigger=trigger, **changes))
    store.join("spring")
    return store


def states(ledger: Ledger) -> dict[str, str]:
    rows = ledger.rows("spring")
    return {
        recipient_of(user): state for user, state in rows.select("user_id", "state").iter_rows()
    }


def test_an_event_starts_one_mail_however_often_it_comes(world, ledger):
    running(world, {"event": "signup"})
    batch = events(
        ("u05", "signup", 3), ("u06", "signup", 2), ("u06", "view", 1), ("u07", "view", 1)
    )

    started = [Triggers(world.engine).record(batch) for _ in range(3)]

    assert started == [2, 0, 0]
    assert states(ledger) == {"u05": "deferred", "u06": "deferred"}
    assert sorted(d.user_id for d in ledger.claim("spring", 10).deliveries) == ["u05", "u06"]
    assert Triggers(world.engine).record(events(("u05", "signup", 0))) == 0  # once for ever


def test_a_cart_waits_and_a_purchase_calls_its_mail_off(world, ledger):
    running(world, CART)
    triggers = Triggers(world.engine)

    triggers.record(events(("u05", "cart", 60), ("u06", "cart", 60), ("u06", "purchase", 120)))
    assert len(ledger.claim("spring", 10)) == 0
    assert abs((ledger.next_due("spring") - now()).total_seconds() - 540) < 30
    triggers.record(events(("u05", "purchase", 30)))
    triggers.record(events(("u05", "cart", 60)))  # the bus delivers it again

    assert states(ledger) == {"u05": "suppressed", "u06": "deferred"}
    row = ledger.rows("spring").filter(pl.col("state") == "suppressed").to_dicts()[0]
    assert row["reply"] == "unless: purchase"


@pytest.mark.parametrize("days", [7, None])
def test_a_cart_after_the_purchase_that_called_the_first_off_has_its_mail(world, ledger, days):
    running(world, CART | {"once_every_days": days})
    triggers = Triggers(world.engine)

    assert triggers.record(events(("u05", "cart", 3_000), ("u05", "purchase", 2_900))) == 1
    assert states(ledger) == {"u05": "suppressed"}
    assert triggers.record(events(("u05", "cart", 3_000))) == 0  # the bus delivers it again
    assert triggers.record(events(("u05", "cart", 60))) == 1
    assert triggers.record(events(("u05", "purchase", 2_900))) == 0
    assert states(ledger) == {"u05": "deferred"}
    assert abs((ledger.next_due("spring") - now()).total_seconds() - 540) < 30
    triggers.record(events(("u05", "purchase", 30)))
    assert triggers.record(events(("u05", "cart", 60))) == 0

    assert states(ledger) == {"u05": "suppressed"}


def test_one_batch_may_hold_a_cart_its_purchase_and_the_next_cart(world, ledger):
    running(world, CART)

    Triggers(world.engine).record(
        events(("u05", "cart", 300), ("u05", "purchase", 200), ("u05", "cart", 100))
    )

    assert states(ledger) == {"u05": "deferred"}
    assert abs((ledger.next_due("spring") - now()).total_seconds() - 500) < 30


def test_a_purchase_calls_off_the_mail_of_a_cart_that_comes_late(world, ledger):
    running(world, CART)
    triggers = Triggers(world.engine)

    triggers.record(events(("u05", "purchase", 30), ("u06", "purchase", 90)))
    triggers.record(events(("u05", "cart", 60), ("u06", "cart", 60)))

    assert states(ledger) == {"u05": "suppressed", "u06": "deferred"}


def test_a_second_cart_within_the_days_starts_nothing_and_one_after_them_does(world, ledger):
    running(world, CART | {"within_s": 30 * 86_400})
    triggers = Triggers(world.engine)

    def cart(days_ago: float) -> int:
        started = triggers.record(events(("u05", "cart", days_ago * 86_400)))
        with world.engine.begin() as connection:  # as if it had come when it happened
            when = now() - timedelta(days=days_ago)
            connection.exec_driver_sql(
                "update deliveries set queued_at = least(queued_at, %(at)s)", {"at": when}
            )
        return started

    assert [cart(20), cart(19), cart(14), cart(12), cart(6), cart(0)] == [1, 0, 0, 1, 0, 1]


def test_what_is_too_old_or_of_others_starts_nothing(world, ledger):
    running(world, {"event": "signup"}, audience={"where": {"region": "north"}})

    Triggers(world.engine).record(
        events(("u05", "signup", 1), ("u06", "signup", 1), ("u07", "signup", 4_000))
    )

    assert states(ledger) == {"u05": "deferred"}  # odd ones live in the north


def test_events_wait_while_it_is_paused_and_start_nothing_when_it_is_cancelled(world, ledger):
    store = running(world, {"event": "signup"})
    store.move("spring", CampaignState.PAUSED)
    Triggers(world.engine).record(events(("u05", "signup", 1)))
    assert states(ledger) == {"u05": "deferred"}

    cancel(store, ledger, "spring")
    Triggers(world.engine).record(events(("u06", "signup", 1)))

    assert states(ledger) == {"u05": "suppressed"}


async def test_consent_suppression_and_caps_hold_for_mails_by_event(world, ledger, smtp_sink):
    running(world, {"event": "signup"}, message_cap={"times": 1, "days": 7})
    contacts = Contacts(world.online._redis)
    assert contacts.may_write("other", ["u06"], ["u06"], now(), None, reserve=True)
    users = ("u05", "u06", "nobody", NO_CONSENT, SUPPRESSED)
    Triggers(world.engine).record(events(*((user, "signup", 1) for user in users)))
    stages = Stages(world)

    async def assemble(request):
        return await asyncio.to_thread(stages.assemble, request)

    async with SmtpPool(smtp_sink.url, connections=2) as pool:
        wanted = CampaignStore(world.engine).get("spring").campaign
        caps = Caps(world.online._redis)
        sender = Sender(wanted, assemble, ledger, pool, caps, Meters(), contacts=contacts)
        await sender.send_chunk(ledger.claim("spring", 10))

    assert [message.rcpt_to for message in smtp_sink.messages] == ["u05@mail.example"]
    why = dict(ledger.rows("spring").select("user_id", "reply").iter_rows())
    assert {user: why[user] for user in users[1:]} == {
        "u06": "message_cap",
        "nobody": "unknown",
        NO_CONSENT: "no_consent",
        SUPPRESSED: "unsubscribe",
    }


def test_a_campaign_whose_file_of_users_is_gone_stops_no_other(world, ledger, tmp_path):
    named = tmp_path / "named.txt"
    named.write_text("u1\n")
    store = running(world, {"event": "signup"})
    store.create(campaign(id="named", trigger={"event": "signup"}, audience={"file": str(named)}))
    store.join("named")
    named.unlink()

    started = Triggers(world.engine).record(events(("u1", "signup", 5)))

    assert started == 1
    assert states(ledger)["u1"] == "deferred"
