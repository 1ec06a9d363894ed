"""One sender on real stores and a real relay: every fault ends in the right state."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes

import polars as pl
import pytest
from sqlalchemy import update

from reco.campaigns.decisions import DecisionLog, files, records
from reco.campaigns.delivery import HandOff
from reco.campaigns.ledger import Ledger
from reco.campaigns.receivers import Receivers
from reco.campaigns.smtp import SmtpPool
from reco.database import DELIVERIES, SUBSCRIBERS
from reco.embedded import Services
from reco.errors import ServiceUnavailable
from reco.events.lake import Lake
from reco.features.history import day_of
from reco.outcomes.returned import ReturnedMail
from reco.rules.caps import Caps
from reco.rules.contact import Contacts
from reco.subscribers.mail_domains import MailDomains
from reco.subscribers.suppression import SuppressionList, SuppressionReason
from serve.chunks import Assembled, Choice, Request, Withheld
from serve.metrics import Meters
from serve.picking import showing_of
from serve.replay import write_replay
from serve.sender import Sender
from serve.senders import SenderOrder
from serve.single import Ask, SingleSends
from tests.name_server import running_name_server
from tests.small_world import MAILED, USERS, WITHHELD, World, campaign, small_world
from tests.smtpd import SmtpSink
from tests.stages import Stages

ONE_A_WEEK = {"times": 1, "days": 7}
CAPPED = {"frequency_cap": {"times": 1, "days": 7}}


@pytest.fixture
def world(services: Services) -> Iterator[World]:
    with small_world(services) as world:
        yield world


class Post:
    """A campaign in the ledger, and senders for it."""

    def __init__(self, world: World, sink_url: str, **changes: object) -> None:
        self.world = world
        self.campaign = campaign(**changes)
        self.stages = Stages(world)
        self.sink_url = sink_url
        self.ledger = Ledger(world.services.database_url)
        self.ledger.enqueue(self.campaign.id, [(user, "personal") for user in USERS])

    @asynccontextmanager
    async def sender(self, assemble=None, **more: object) -> AsyncIterator[Sender]:
        pool = SmtpPool(self.sink_url, connections=4, timeout_s=10)
        async with pool:
            yield Sender(
                self.campaign,
                assemble or self.assemble,
                self.ledger,
                pool,
                Caps(self.world.online._redis),
                Meters(),
                contacts=Contacts(self.world.online._redis),
                **more,
            )

    async def assemble(self, request: Request) -> Assembled:
        return await asyncio.to_thread(self.stages.assemble, request)

    async def send_all(self, **more: object) -> dict[str, int]:
        """Run a sender until nothing can be claimed; whose lease runs out is taken from it."""
        async with self.sender(**more) as sender:
            work = asyncio.create_task(sender.run())
            while not work.done() and self._open():
                self.ledger.recover(self.campaign.id)
                await asyncio.sleep(0.02)
            sender.stop()
            await work
        return {s: n for s, n in self.ledger.counts(self.campaign.id).items() if n}

    def _open(self) -> bool:
        counts = self.ledger.counts(self.campaign.id)
        return any(counts[state] for state in ("queued", "claimed", "handing_off"))


@pytest.fixture
def post(world: World, smtp_sink: SmtpSink) -> Iterator[Post]:
    post = Post(world, smtp_sink.url, rules=CAPPED)
    with post.ledger:
        yield post


def recipients(sink: SmtpSink) -> list[str]:
    return sorted(message.rcpt_to.partition("@")[0] for message in sink.messages)


async def test_everybody_gets_one_mail_or_a_reason(post, smtp_sink):
    counts = await post.send_all()

    assert counts == {"accepted": len(MAILED), "suppressed": len(WITHHELD)}
    assert recipients(smtp_sink) == MAILED
    rows = post.ledger.rows(post.campaign.id)
    reasons = dict(
        rows.filter(rows["state"] == "suppressed").select("user_id", "reply").iter_rows()
    )
    assert reasons == WITHHELD
    accepted = rows.filter(rows["state"] == "accepted")
    assert accepted["items"].list.len().unique().to_list() == [3]
    assert accepted["message_id"].n_unique() == len(MAILED)


async def test_the_envelope_names_the_delivery_so_that_bounces_find_it(post, smtp_sink):
    await post.send_all()

    senders = {message.mail_from for message in smtp_sink.messages}
    assert len(senders) == len(MAILED)
    assert all(sender.startswith("bounces+") for sender in senders)


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        ("mailbox_unavailable", "failed"),
        ("mailbox_full", "failed"),
        ("mailbox_busy", "deferred"),
        ("disconnect_before_reply", "uncertain"),
    ],
)
async def test_each_fault_ends_in_its_state_and_touches_nobody_else(post, smtp_sink, fault, state):
    smtp_sink.fault(fault, times=1, recipient="u10@mail.example")

    counts = await post.send_all()

    assert counts == {"accepted": len(MAILED) - 1, "suppressed": len(WITHHELD), state: 1}
    arrived = recipients(smtp_sink)
    assert arrived.count("u10") == (1 if state == "uncertain" else 0)
    assert [user for user in arrived if user != "u10"] == [u for u in MAILED if u != "u10"]


def may_see(world, users):
    """Who may see more of the first items, by the caps of another campaign."""
    showing = showing_of(Choice.of(campaign("next", rules=CAPPED)), day_of(datetime.now(UTC)))
    assert showing
    keys = world.catalogue.keys[:20].reshape(1, -1)
    caps = Caps(world.online._redis)
    return {
        user: caps.choose(showing, [user], keys, 3, reserve=False)[0, :3].all() for user in users
    }


async def test_a_failed_mail_gives_its_showings_back(post, smtp_sink, world):
    smtp_sink.fault("mailbox_unavailable", recipient="u10@mail.example")
    await post.send_all()

    assert len(post.ledger.rows(post.campaign.id)) == len(USERS)
    assert may_see(world, ["u10", "u11"]) == {"u10": True, "u11": False}


async def test_a_mail_that_cannot_be_made_gives_its_showings_back(post, smtp_sink, world):
    async def one_broken(request: Request) -> Assembled:
        made = await post.assemble(request)
        kept = [i for i, delivery in enumerate(made.deliveries) if delivery != "u10"]
        return replace(made.part(kept), broken=[Withheld("u10", "a line break in a title")])

    async with post.sender(one_broken) as sender:
        await sender.send_chunk(post.ledger.claim(post.campaign.id, 100))

    assert "u10" not in recipients(smtp_sink)
    assert may_see(world, ["u10", "u11"]) == {"u10": True, "u11": False}


async def test_an_opt_out_after_the_claim_is_respected(post, smtp_sink, world):
    claim = post.ledger.claim(post.campaign.id, 100)
    SuppressionList(world.engine, world.services.link_key).add(
        ["u12@mail.example"], SuppressionReason.COMPLAINT, "test"
    )

    async with post.sender() as sender:
        await sender.send_chunk(claim)

    assert "u12" not in recipients(smtp_sink)


async def test_what_cannot_be_assembled_goes_back_and_the_sender_stops(post, smtp_sink):
    async def broken(request: Request) -> Assembled:
        raise ServiceUnavailable("PostgreSQL does not answer.")

    async with post.sender(broken) as sender:
        with pytest.raises(ServiceUnavailable):
            await sender.run()

    assert post.ledger.counts(post.campaign.id)["queued"] == len(USERS)
    assert not smtp_sink.messages


async def test_an_unreachable_relay_stops_the_sender_before_it_claims(world):
    post = Post(world, "smtp://127.0.0.1:1")
    with post.ledger, pytest.raises(ServiceUnavailable, match="does not answer"):
        async with post.sender() as sender:
            await sender.run()

    assert post.ledger.counts(post.campaign.id)["queued"] == len(USERS)
    post.ledger.close()


async def test_a_claim_that_was_lost_sends_nothing(post, smtp_sink):
    stale = post.ledger.claim(post.campaign.id, 100, lease_s=0)
    post.ledger.recover(post.campaign.id)
    fresh = post.ledger.claim(post.campaign.id, 100)

    async with post.sender() as sender:
        await asyncio.gather(sender.send_chunk(stale), sender.send_chunk(fresh))

    assert recipients(smtp_sink) == MAILED


async def test_timings_name_every_stage(post):
    async with post.sender() as sender:
        await sender.send_chunk(post.ledger.claim(post.campaign.id, 100))

    stages = {timing.stage for timing in sender.take_timings()}
    assert stages == {"features", "scorer", "rules", "renderer", "assemble", "ledger", "smtp"}


async def test_a_rate_is_kept(world, smtp_sink):
    post = Post(world, smtp_sink.url)
    post.ledger.enqueue("other", [])
    begun = datetime.now(UTC)
    pool = SmtpPool(smtp_sink.url, connections=4)
    with post.ledger:
        async with pool:
            sender = Sender(
                post.campaign,
                post.assemble,
                post.ledger,
                pool,
                Caps(world.online._redis),
                Meters(),
                rate_per_s=20,
            )
            await sender.send_chunk(post.ledger.claim(post.campaign.id, 100))

    # 37 mails at 20/s with a burst of 20 need at least 17 / 20 s; a lower bound cannot flake.
    assert datetime.now(UTC) - begun >= timedelta(seconds=0.8)


@pytest.mark.smtp_fault("mailbox_unavailable", recipient="u05@mail.example")
@pytest.mark.smtp_fault("rejected", recipient="u06@mail.example")
async def test_a_dead_address_is_suppressed_while_sending_a_blocked_sender_is_not(post, world):
    suppressions = SuppressionList(world.engine, world.services.link_key)

    async with post.sender(returned=ReturnedMail(world.engine, suppressions)) as sender:
        claim = post.ledger.claim_these(post.campaign.id, ["u05", "u06", "u07"])
        await sender.send_chunk(claim)

    entries = suppressions.check([f"u0{n}@mail.example" for n in (5, 6, 7)])
    assert [SuppressionReason.HARD_BOUNCE, None, None] == [e and e.reason for e in entries]
    assert {"failed": 2, "accepted": 1} == {
        state: n
        for state, n in post.ledger.counts(post.campaign.id).items()
        if state in ("failed", "accepted")
    }


async def test_a_receiver_that_says_too_fast_delays_its_own_mails_only(post, world, smtp_sink):
    with world.engine.begin() as connection:
        connection.exec_driver_sql(
            "update subscribers set email = user_id || '@gmail.com' where user_id < 'u20' "
            "and user_id > 'u04'"
        )
    for n in range(5, 20):
        smtp_sink.fault("too_fast", recipient=f"u{n:02d}@gmail.com")
    counts = await post.send_all()

    assert counts["deferred"] == 15
    assert counts["accepted"] == len(MAILED) - 15
    assert not [m for m in smtp_sink.messages if m.rcpt_to.endswith("@gmail.com")]
    deferred = post.ledger.rows(post.campaign.id).filter(pl.col("state") == "deferred")
    held = deferred["reply"].str.starts_with("Held back").sum()
    assert held + deferred["reply"].str.contains("421").sum() == 15
    attempts = deferred.filter(deferred["reply"].str.starts_with("Held back"))["attempts"]
    assert attempts.to_list() == [0] * held


async def test_domains_of_one_receiver_share_its_pace(post, world, smtp_sink):
    """Two shops have their mail at one operator: what it says to one delays the other's."""
    with world.engine.begin() as connection:
        connection.exec_driver_sql(
            "update subscribers set email = user_id || '@' || case when user_id < 'u12' then 'a' "
            "else 'b' end || '.example' where user_id between 'u05' and 'u19'"
        )
    for n in range(5, 12):
        smtp_sink.fault("too_fast", recipient=f"u{n:02d}@a.example")
    with running_name_server() as dns:
        google = {"MX": ["1 aspmx.l.google.com."]}
        dns.zones |= {"a.example": google, "b.example": google}
        dns.zones["mail.example"] = {"A": ["192.0.2.1"]}
        receivers = Receivers(MailDomains(dns.address), patience_s=20)
        async with post.sender(receivers=receivers) as sender:
            for users in (USERS[5:12], USERS[12:20], USERS[20:]):
                await sender.send_chunk(post.ledger.claim_these(post.campaign.id, users))

    rows = {r["user_id"]: r for r in post.ledger.rows(post.campaign.id).iter_rows(named=True)}
    assert {"deferred"} == {rows[user]["state"] for user in USERS[5:20]}
    assert all(rows[user]["reply"].startswith("Held back") for user in USERS[12:20])
    assert {"accepted"} == {rows[user]["state"] for user in USERS[20:]}


async def test_a_receiver_with_a_rate_holds_up_its_own_mails_only(world, smtp_sink):
    slow = USERS[5:12]
    with world.engine.begin() as connection:
        connection.exec_driver_sql(
            "update subscribers set email = user_id || '@gmail.com' where user_id = any(%s)",
            (slow,),
        )
    post = Post(world, smtp_sink.url, operator_rates={"gmail": 4})
    with post.ledger:
        counts = await post.send_all(lease_s=1)

    assert counts == {"accepted": len(MAILED), "suppressed": len(WITHHELD)}
    order = [message.rcpt_to.partition("@")[0] for message in smtp_sink.messages]
    assert sorted(order) == MAILED
    assert set(order[-5:]) < set(slow)  # two of seven may be through before the others


async def test_what_its_receiver_has_no_place_for_comes_back_and_was_no_attempt(world, smtp_sink):
    with world.engine.begin() as connection:
        connection.exec_driver_sql("update subscribers set email = user_id || '@gmail.com'")
    post = Post(world, smtp_sink.url, operator_rates={"gmail": 0.1})
    with post.ledger:
        async with post.sender() as sender:
            claim = post.ledger.claim_these(post.campaign.id, MAILED[-9:])
            work = asyncio.create_task(sender.send_chunk(claim))
            while post.ledger.counts(post.campaign.id)["deferred"] < 6:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            sender.stop()
            await work
        rows = post.ledger.rows(post.campaign.id).filter(pl.col("state") == "deferred")

    assert rows["attempts"].to_list() == [0] * len(rows)
    assert rows["reply"].unique().to_list() == ["Held back: the pace to this receiver"]
    assert rows["size_bytes"].null_count() == len(rows)  # nobody said that they were about to go


async def test_a_long_hand_off_keeps_its_lease(world, smtp_sink):
    smtp_sink.fault("slow_reader", times=1, recipient="u10@mail.example")
    post = Post(world, smtp_sink.url)
    with post.ledger:
        async with post.sender(lease_s=0.6) as sender:
            claim = post.ledger.claim_these(post.campaign.id, ["u10", "u11"], 0.6)
            work = asyncio.create_task(sender.send_chunk(claim))
            while not work.done():
                found = post.ledger.recover(post.campaign.id)
                assert (found.requeued, found.uncertain) == (0, 0)
                await asyncio.sleep(0.02)
        counts = post.ledger.counts(post.campaign.id)

    assert counts["accepted"] == 2


async def test_a_mail_is_given_up_by_its_own_attempts_however_old_the_campaign(post, smtp_sink):
    def attempts_so_far(count: int) -> None:
        with post.world.engine.begin() as connection:
            connection.exec_driver_sql(
                "update deliveries set attempts = %s, queued_at = now() - interval '9 days'",
                (count,),
            )

    for user in ("u10", "u11"):
        smtp_sink.fault("mailbox_busy", recipient=f"{user}@mail.example")
    states = []
    async with post.sender() as sender:
        for count, user in ((3, "u10"), (4, "u11")):
            attempts_so_far(count)
            await sender.send_chunk(post.ledger.claim_these(post.campaign.id, [user]))
            rows = post.ledger.rows(post.campaign.id).filter(pl.col("user_id") == user)
            states.append((rows["state"].item(), rows["reply"].item().startswith("Given up")))

    assert states == [("deferred", False), ("failed", True)]


async def test_a_slow_rate_makes_nothing_uncertain_however_short_the_lease(world, smtp_sink):
    post = Post(world, smtp_sink.url)
    with post.ledger:
        counts = await post.send_all(rate_per_s=6, lease_s=3)

    assert counts == {"accepted": len(MAILED), "suppressed": len(WITHHELD)}
    assert recipients(smtp_sink) == MAILED


async def test_a_stopped_sender_gives_back_what_it_has_not_handed_off(world, smtp_sink):
    post = Post(world, smtp_sink.url)
    with post.ledger:
        async with post.sender(rate_per_s=1) as sender:
            work = asyncio.create_task(sender.run())
            while not smtp_sink.messages:  # noqa: ASYNC110 - the sink rings no bell
                await asyncio.sleep(0.02)
            sender.stop()
            await work
        counts = post.ledger.counts(post.campaign.id)

    assert counts["accepted"] == len(smtp_sink.messages) < 10
    assert counts["accepted"] + counts["queued"] + counts["suppressed"] == len(USERS)


async def test_what_goes_back_is_given_its_showings_back_first(post, world):
    users, free = MAILED[:3], []
    day = day_of(datetime.now(UTC))
    other = showing_of(Choice.of(campaign("next", rules=CAPPED)), day)
    keys = world.catalogue.keys[:20].reshape(1, -1).repeat(len(users), axis=0)

    def left():
        return Caps(world.online._redis).choose(other, users, keys, 20, reserve=False).tolist()

    class Watched(Ledger):
        def release(self, campaign_id, fence):
            free.append(left())
            return super().release(campaign_id, fence)

    everything = left()
    with Watched(world.services.database_url) as post.ledger:
        async with post.sender(closes_at=datetime.now(UTC)) as sender:
            await sender.send_chunk(post.ledger.claim_these(post.campaign.id, users))

    assert free == [everything]


async def test_what_was_claimed_before_the_window_ended_is_not_handed_off_after_it(post, smtp_sink):
    claim = post.ledger.claim_these(post.campaign.id, MAILED)
    async with post.sender(closes_at=datetime.now(UTC)) as sender:
        await sender.send_chunk(claim)

        assert sender._claim() is None
    assert post.ledger.counts(post.campaign.id)["queued"] == len(USERS)
    assert not smtp_sink.messages


async def test_a_sender_domain_with_umlauts_is_ascii_on_the_envelope_and_in_list_id(
    world, smtp_sink
):
    post = Post(world, smtp_sink.url, from_email="news@müller.example")
    with post.ledger:
        await post.send_all()

    assert len(smtp_sink.messages) == len(MAILED)
    assert all(m.mail_from.endswith("@xn--mller-kva.example") for m in smtp_sink.messages)
    headers = [message_from_bytes(m.content)["List-ID"] for m in smtp_sink.messages]
    assert set(headers) == {f"<{post.campaign.id}.xn--mller-kva.example>"}


def test_an_order_shows_no_password_of_the_relay():
    order = SenderOrder("/srv", "smtp://shop:hunter2@relay", b"{}", 15.0, None, 300.0)

    assert "hunter2" not in repr(order)


async def test_who_had_enough_mails_gets_no_other_and_a_failed_one_does_not_count(
    post, smtp_sink, world
):
    smtp_sink.fault("mailbox_unavailable", times=1, recipient="u10@mail.example")
    await post.send_all()

    with (second := Post(world, smtp_sink.url, id="second", message_cap=ONE_A_WEEK)).ledger:
        counts = await second.send_all()
        rows = second.ledger.rows("second").filter(pl.col("reply") == "message_cap")

    assert counts == {"accepted": 1, "suppressed": len(USERS) - 1}
    assert rows["user_id"].to_list() == [user for user in MAILED if user != "u10"]


async def test_a_mail_waits_for_the_morning_of_its_reader(world, smtp_sink):
    now = datetime.now(UTC)
    night = {
        "starts": f"{now - timedelta(hours=2):%H:%M}",
        "ends": f"{now + timedelta(hours=2):%H:%M}",
    }
    with world.engine.begin() as connection:
        asleep = SUBSCRIBERS.c.user_id == "u10"
        connection.execute(update(SUBSCRIBERS).values(timezone="Asia/Tokyo"))
        connection.execute(update(SUBSCRIBERS).where(asleep).values(timezone="UTC"))
    with (post := Post(world, smtp_sink.url, quiet_hours=night)).ledger:
        counts = await post.send_all()
        (late,) = (
            post.ledger.rows(post.campaign.id).filter(pl.col("state") == "deferred").to_dicts()
        )

        assert counts == {"accepted": len(MAILED) - 1, "deferred": 1, "suppressed": len(WITHHELD)}
        assert (late["user_id"], late["reply"], late["attempts"]) == ("u10", "quiet_hours", 0)
        due = post.ledger.next_due(post.campaign.id)
        assert now + timedelta(minutes=118) <= due <= now + timedelta(hours=2)
        with world.engine.begin() as connection:
            connection.execute(update(SUBSCRIBERS).values(timezone="Asia/Tokyo"))
            connection.execute(
                update(DELIVERIES).where(DELIVERIES.c.user_id == "u10").values(next_at=now)
            )
        async with post.sender() as sender:
            await sender.send_chunk(post.ledger.claim(post.campaign.id, 10))

    assert recipients(smtp_sink) == MAILED


async def test_every_mail_that_was_tried_leaves_a_record_by_which_it_is_made_again(
    post, smtp_sink, world, tmp_path
):
    lake = Lake(world.services.lake)
    shutil.rmtree(lake.path("decisions", "records"), ignore_errors=True)
    log = DecisionLog(lake, post.campaign.id)

    async with log.watching():
        await post.send_all(decisions=log)

    found = records(lake, post.campaign.id)
    rows = post.ledger.rows(post.campaign.id).filter(pl.col("state") == "accepted")
    assert found.sort("delivery")["delivery"].to_list() == MAILED
    assert found.sort("delivery")["fence"].to_list() == rows["fence"].to_list()
    assert len(files(lake, post.campaign.id)) == 1
    for mail in smtp_sink.messages[::12]:
        user = mail.rcpt_to.partition("@")[0]
        out = tmp_path / f"{user}.html"
        replay = write_replay(f"spring/{user}", world.services, lake, world.engine, out)
        assert (replay.same, replay.message.read_bytes()) == (True, mail.content)


async def test_asking_again_sends_what_a_dead_replica_had_only_claimed(post, smtp_sink):
    campaign_id = post.campaign.id
    dead = post.ledger.take(campaign_id, [("u05", "personal"), ("u06", "personal")], lease_s=0)
    post.ledger.hand_off(campaign_id, dead.fence, [HandOff("u06", "<m>", 1, [], [], [], 1)], 0)

    async with post.sender() as sender:
        sends = SingleSends(post.ledger)
        asks = [Ask(post.campaign, user) for user in ("u05", "u06")]
        found = await sends.send(sender, post.campaign, asks)

    assert [sent.outcome.state for sent in found] == ["accepted", "uncertain"]
    assert recipients(smtp_sink) == ["u05"]
