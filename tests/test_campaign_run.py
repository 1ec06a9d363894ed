"""Whole campaigns in a real Ray Serve: one mail each, whatever is killed, paused or gone."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from email import message_from_bytes
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from ray.util.state import list_actors
from sqlalchemy import select

from reco.campaigns.cancelling import cancel
from reco.campaigns.ledger import Ledger
from reco.campaigns.store import CampaignState, CampaignStore
from reco.database import COPY_CHOICES
from reco.embedded import Services
from reco.errors import Conflict, NotFound, ServiceUnavailable
from reco.events.lake import Lake
from serve.audience import enqueue
from serve.campaign import CampaignSummary, run
from serve.crew import Crew
from serve.latency import table_name
from serve.outgoing import GROUP
from serve.sender import IN_FLIGHT
from tests.serving import running_app
from tests.small_world import MAILED, USERS, WITHHELD, World, campaign, small_world
from tests.smtpd import SmtpSink

pytestmark = pytest.mark.ray

MORE = 800
REACHED = len(MAILED) + MORE
EVERYBODY = len(USERS) + MORE


@pytest.fixture(scope="module")
def world(services: Services) -> Iterator[World]:
    with small_world(services, MORE) as world:
        yield world


@pytest.fixture(scope="module")
def client(ray_cluster, services: Services, world: World) -> Iterator[httpx.Client]:
    with running_app(services) as client:
        yield client


@pytest.fixture
def mail_to(client, services: Services, smtp_sink: SmtpSink, world: World) -> Iterator[Services]:
    """The services, with the recording relay instead of the outbox.

    Whoever was suppressed by a refusal of that relay is forgotten for the next test.
    """
    yield replace(services, smtp_url=smtp_sink.url)
    with world.engine.begin() as connection:
        connection.exec_driver_sql("delete from suppressions where reason = 'hard_bounce'")


def arrived(sink: SmtpSink) -> Counter[str]:
    return Counter(message.rcpt_to.partition("@")[0] for message in sink.messages)


def assert_nobody_is_lost(summary: CampaignSummary, audience: int) -> None:
    assert summary.audience == audience
    states = ("accepted", "suppressed", "failed", "uncertain", "deferred", "open")
    assert sum(getattr(summary, state) for state in states) == audience


def test_everybody_gets_one_mail_and_the_report_gets_its_latencies(mail_to, smtp_sink, world):
    seen = []
    summary = run(campaign("whole"), mail_to, progress=lambda *step: seen.append(step))

    assert_nobody_is_lost(summary, EVERYBODY)
    assert (summary.state, summary.accepted) == ("finished", REACHED)
    assert summary.suppressed == len(WITHHELD)
    assert set(arrived(smtp_sink).values()) == {1}
    assert len(arrived(smtp_sink)) == REACHED
    assert seen[-1] == ("send", EVERYBODY, EVERYBODY)
    latency = Lake(mail_to.lake).read_table(table_name("whole"))
    assert {"features", "scorer", "rules", "renderer", "ledger", "smtp"} <= set(latency["stage"])
    with Ledger(mail_to.database_url) as ledger:
        rows = ledger.rows("whole")
    accepted = rows.filter(rows["state"] == "accepted")
    assert accepted["items"].list.len().unique().to_list() == [3]
    assert set(accepted["arm"]) == {"control", "personal"}


def test_a_campaign_that_is_done_sends_nothing_when_run_again(mail_to, smtp_sink):
    first = campaign("again", audience={"users": USERS})
    run(first, mail_to, senders=1)
    before = len(smtp_sink.messages)

    summary = run(first, mail_to, senders=1)

    assert summary.accepted == len(MAILED)
    assert len(smtp_sink.messages) == before


def test_killed_senders_and_replicas_cost_nobody_a_second_mail_and_lose_nobody(mail_to, smtp_sink):
    plan = ["SenderActor", "ServeReplica:default:Renderer", "SenderActor"]
    killed: list[int] = []

    def kill(_: str, done: int, total: int) -> None:
        if len(killed) < len(plan) and done > 150 * (len(killed) + 1):
            alive = list_actors(
                address=ray.get_runtime_context().gcs_address,
                filters=[("class_name", "=", plan[len(killed)]), ("state", "=", "ALIVE")],
            )
            if alive:
                os.kill(alive[0].pid, signal.SIGKILL)
                killed.append(alive[0].pid)

    # Slow enough that all are still at work when their turn comes.
    summary = run(campaign("killed", rate_per_s=150), mail_to, progress=kill, lease_s=6)

    assert len(killed) == len(plan)
    assert_nobody_is_lost(summary, EVERYBODY)
    assert (summary.state, summary.open) == ("finished", 0)
    assert summary.suppressed == len(WITHHELD)
    assert summary.uncertain <= 2 * IN_FLIGHT * GROUP
    assert set(arrived(smtp_sink).values()) == {1}
    assert summary.accepted <= len(arrived(smtp_sink)) <= summary.accepted + summary.uncertain


def test_two_drivers_at_once_still_send_one_mail_each(mail_to, smtp_sink):
    both = campaign("both")

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run, both, mail_to, senders=1) for _ in range(2)]
        summaries = [future.result() for future in runs]

    assert {summary.accepted for summary in summaries} == {REACHED}
    assert set(arrived(smtp_sink).values()) == {1}
    assert len(arrived(smtp_sink)) == REACHED


def test_pause_stops_it_and_resume_finishes_the_rest(mail_to, smtp_sink, world):
    store = CampaignStore(world.engine)
    paused: list[int] = []

    def pause(_: str, done: int, total: int) -> None:
        if done > 50 and not paused:
            paused.append(done)
            store.move("held", CampaignState.PAUSED, "by hand")

    slow = campaign("held", rate_per_s=150)  # the operator is quicker than the sender
    first = run(slow, mail_to, senders=1, progress=pause)
    second = run(slow, mail_to, senders=1)

    assert (first.state, first.note) == ("paused", "by hand")
    assert first.open > 0
    assert_nobody_is_lost(first, EVERYBODY)
    assert (second.state, second.accepted) == ("finished", REACHED)
    assert set(arrived(smtp_sink).values()) == {1}


def test_a_pause_does_not_wait_until_everybody_is_enqueued(mail_to, smtp_sink, world, monkeypatch):
    sent_home, dismiss = threading.Event(), Crew.dismiss

    def slowly(*audience: Any) -> int:
        known = enqueue(*audience)
        assert sent_home.wait(30)
        return known

    def dismissed(crew: Crew) -> None:
        dismiss(crew)
        sent_home.set()

    def pause(_: str, done: int, total: int) -> None:
        if done:
            with suppress(Conflict):
                CampaignStore(world.engine).move("large", CampaignState.PAUSED)

    monkeypatch.setattr("serve.campaign.enqueue", slowly)
    monkeypatch.setattr(Crew, "dismiss", dismissed)

    summary = run(campaign("large", rate_per_s=60), mail_to, senders=1, progress=pause)

    assert summary.state == "paused"
    assert_nobody_is_lost(summary, EVERYBODY)


def test_cancelled_it_ends_and_whoever_waits_is_suppressed(mail_to, smtp_sink, world):
    store = CampaignStore(world.engine)

    def end(_: str, done: int, total: int) -> None:
        if done > 10 and store.get("dropped").state is CampaignState.RUNNING:
            with Ledger(mail_to.database_url) as ledger:
                cancel(store, ledger, "dropped", "a wrong price")

    summary = run(campaign("dropped", rate_per_s=40), mail_to, senders=1, progress=end)

    assert (summary.state, summary.note, summary.open) == ("cancelled", "a wrong price", 0)
    assert_nobody_is_lost(summary, EVERYBODY)
    assert len(arrived(smtp_sink)) == summary.accepted < REACHED
    with world.engine.begin() as connection:  # what a sender left that died before its lease ended
        connection.exec_driver_sql(
            "update deliveries set state = 'claimed', lease_until = now() where user_id = %s",
            (MAILED[-1],),
        )
    with Ledger(mail_to.database_url) as ledger:
        assert cancel(store, ledger, "dropped").note == "a wrong price"
        assert ledger.counts("dropped")["claimed"] == ledger.counts("dropped")["queued"] == 0


def test_at_its_deadline_whoever_waits_is_suppressed(mail_to, smtp_sink):
    late = campaign("late", window={"duration_s": 0.01})

    summary = run(late, mail_to, senders=1)

    assert_nobody_is_lost(summary, EVERYBODY)
    assert summary.state == "finished"
    with Ledger(mail_to.database_url) as ledger:
        rows = ledger.rows("late")
    assert (rows["reply"] == "deadline").sum() > 0
    assert len(arrived(smtp_sink)) == summary.accepted


def test_deferred_mails_leave_it_paused_until_resume_sends_them_when_due(mail_to, smtp_sink, world):
    wanted = campaign("later", audience={"users": MAILED[:9]})
    smtp_sink.fault("mailbox_busy", times=1, recipient=f"{MAILED[0]}@mail.example")

    first = run(wanted, mail_to, senders=1)
    with world.engine.begin() as connection:
        connection.exec_driver_sql("update deliveries set next_at = now() where next_at > now()")
    second = run(wanted, mail_to, senders=1)

    assert (first.state, first.accepted, first.deferred) == ("paused", 8, 1)
    assert first.note.startswith("1 wait until ")
    assert first.note.endswith("UTC: reco campaign resume later")
    assert (second.state, second.accepted, second.note) == ("finished", 9, "")
    assert len(arrived(smtp_sink)) == 9


def test_deferred_mails_due_after_the_window_are_not_waited_for(mail_to, smtp_sink):
    wanted = campaign("brief", audience={"users": MAILED[:9]}, window={"duration_s": 600})
    smtp_sink.fault("mailbox_busy", times=1, recipient=f"{MAILED[0]}@mail.example")

    summary = run(wanted, mail_to, senders=1)

    assert (summary.state, summary.accepted, summary.suppressed) == ("finished", 8, 1)


def test_a_relay_that_is_gone_pauses_the_campaign_and_says_so(client, services, world):
    gone = replace(services, smtp_url="smtp://127.0.0.1:1")

    with pytest.raises(ServiceUnavailable, match=r"relay .* does not answer"):
        run(campaign("gone"), gone, senders=1)

    stored = CampaignStore(world.engine).get("gone")
    assert stored.state is CampaignState.PAUSED
    assert "relay" in (stored.note or "")
    with Ledger(services.database_url) as ledger:
        counts = ledger.counts("gone")
    assert counts["queued"] == sum(counts.values()) > 0


def test_copy_is_drawn_logged_and_sent(mail_to, smtp_sink, world):
    texts = {"plain": "Your picks", "asking": "What is for dinner?"}
    tried = campaign("tried", variants={"slots": {"subject": texts}}, audience={"users": USERS})

    summary = run(tried, mail_to, senders=1)

    query = select(COPY_CHOICES).where(COPY_CHOICES.c.campaign_id == "tried")
    with world.engine.connect() as connection:
        logged = {row.user_id: row for row in connection.execute(query)}
    sent = {
        message.rcpt_to.partition("@")[0]: message_from_bytes(message.content)["Subject"]
        for message in smtp_sink.messages
    }
    assert summary.accepted == len(MAILED) == len(sent)
    assert {user: texts[row.arm] for user, row in logged.items()} == sent
    assert set(texts.values()) == set(sent.values())
    assert {0.5} == {row.propensity for row in logged.values()}


def test_a_campaign_that_does_harm_pauses_by_itself(mail_to, smtp_sink, monkeypatch):
    monkeypatch.setattr("reco.outcomes.watch.LOOK_S", 0.2)
    smtp_sink.fault("mailbox_unavailable")

    summary = run(campaign("harmful", rate_per_s=60), mail_to, senders=1)

    assert summary.state == "paused"
    assert "The bounce rate of all arms, 100.00 %, is surely above its ceiling" in summary.note
    assert 10 <= summary.failed < REACHED
    assert_nobody_is_lost(summary, EVERYBODY)


def test_an_unknown_template_starts_nothing(mail_to, smtp_sink, world):
    with pytest.raises(NotFound, match="no template"):
        run(campaign("nowhere", template="nowhere"), mail_to)
    with pytest.raises(NotFound, match="There is no campaign"):
        CampaignStore(world.engine).get("nowhere")


def test_another_campaign_of_the_same_id_is_refused(mail_to, smtp_sink):
    run(campaign("taken", audience={"users": USERS[:5]}), mail_to, senders=1)

    with pytest.raises(Conflict, match="another configuration"):
        run(campaign("taken", picks=2, audience={"users": USERS[:5]}), mail_to, senders=1)


def test_the_audience_may_be_named_or_described(mail_to, smtp_sink):
    named = run(
        campaign("named", audience={"users": ["u05", "u06", "stranger"]}), mail_to, senders=1
    )
    described = run(
        campaign("described", audience={"where": {"region": "north"}}), mail_to, senders=1
    )

    assert (named.audience, named.accepted, named.suppressed) == (3, 2, 1)
    assert described.audience == len(USERS) // 2


def test_over_http_a_campaign_runs_on_its_own(client, services, world):
    assert services.outbox
    spec = campaign("remote", audience={"users": USERS}).model_dump(mode="json")

    started = client.post("/v1/campaigns", json=spec)
    CampaignStore(world.engine).join("remote")  # runs for sure, wherever its driver is
    joined = client.post("/v1/campaigns/remote/resume")
    until = time.monotonic() + 60
    while (status := client.get("/v1/campaigns/remote").json())["state"] != "finished":
        assert time.monotonic() < until, status
        time.sleep(0.3)

    assert (started.status_code, joined.status_code) == (202, 200)
    assert status["deliveries"]["accepted"] == len(MAILED)
    assert client.post("/v1/campaigns/remote/pause").status_code == 409
    mails = [p for p in Path(services.outbox).rglob("*") if p.is_file() and "spring" not in p.name]
    assert len(mails) >= len(MAILED)
