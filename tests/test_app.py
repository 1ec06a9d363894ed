"""The application as a whole: metrics, preflight, a model that comes, fails and is killed."""

import asyncio
import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event

import httpx
import numpy as np
import pytest
import ray
from ray.util.state import list_actors
from sqlalchemy import select, update

from reco.database import SUBSCRIBERS
from reco.embedded import Services
from reco.errors import NotFound
from reco.models.slates import Reason, Rung, Slates
from reco.models.topk import pack
from reco.tables import CHAMPION_KEY, item_keys, topk_key
from serve import metrics
from serve.check import check
from serve.graph import HURRY, SCORER_LATE, Graph, Hurry
from serve.preview import assemble_one, write_preview
from serve.reading import FEATURES_DOWN
from tests.model_world import artifact_of
from tests.serving import declare, running_app
from tests.small_world import MAILED, USERS, World, campaign, small_world

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def world(services: Services) -> Iterator[World]:
    with small_world(services) as world:
        yield world


@pytest.fixture(scope="module")
def client(ray_cluster, services: Services, world: World) -> Iterator[httpx.Client]:
    with running_app(services, declared=True) as client:
        yield client


def body(user: str, campaign_id: str = "spring", **more: object) -> dict[str, object]:
    return {"campaign": campaign(campaign_id).model_dump(mode="json"), "user_id": user, **more}


def test_our_metrics_are_exported_beside_those_of_ray(client):
    client.post("/v1/send", json=body("u05"))
    wanted = {
        f"ray_{metrics.STAGE_MS}_bucket",
        f"ray_{metrics.CHUNK_SIZE}_bucket",
        f"ray_{metrics.ASSEMBLED}_total",
        f"ray_{metrics.PICKS}_total",
        f"ray_{metrics.FALLBACKS}_total",
        f"ray_{metrics.OUTCOMES}_total",
    }
    (node,) = (n for n in ray.nodes() if n["Alive"])
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"

    until, found = time.monotonic() + 40, set[str]()
    while not wanted <= found and time.monotonic() < until:
        time.sleep(1)
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = set(re.findall(r"^(ray_reco_\w+)\{", answer.read().decode(), re.MULTILINE))

    assert wanted <= found


def test_fresh_slates_of_the_current_model_are_used_and_older_ones_are_not(client, world):
    picked = item_keys(["item-40", "item-41", "item-42"]).reshape(1, -1)
    scores = np.array([[0.5, 0.4, 0.3]], np.float32)
    reasons = np.full((1, 3), Reason.REPEAT, np.uint8)
    slates = Slates(picked, scores, reasons, np.full((1, 3), Rung.LIVE, np.uint8))
    redis = world.online._redis
    redis.set(CHAMPION_KEY, json.dumps({"version": "v2", "directory": "/nowhere"}))
    redis.set(topk_key("u05"), pack(slates, "v2", int(time.time()))[0])
    redis.set(topk_key("u06"), pack(slates, "v1", int(time.time()))[0])

    fresh = client.post("/v1/preview", json=body("u05", arm="personal")).json()["picks"]
    old = client.post("/v1/preview", json=body("u06", arm="personal")).json()["picks"]
    then = datetime(2026, 1, 5, tzinfo=UTC)
    redis.set(topk_key("u07"), pack(slates, "v2", int(then.timestamp()))[0])
    replay = campaign("replay", as_of=then).model_dump(mode="json")
    replays = [
        client.post(
            "/v1/preview", json={"campaign": replay, "user_id": user, "arm": "personal"}
        ).json()
        for user in ("u05", "u07")
    ]
    redis.delete(CHAMPION_KEY)

    assert [{pick["rung"] for pick in replay["picks"]} for replay in replays] == [
        {"popular"},
        {"fresh"},
    ]
    assert [(pick["item_id"], pick["rung"]) for pick in fresh] == [
        ("item-40", "fresh"),
        ("item-41", "fresh"),
        ("item-42", "fresh"),
    ]
    assert {pick["rung"] for pick in old} == {"popular"}


def test_preflight_makes_every_mail_and_sends_none(client, services):
    outbox = services.outbox
    assert outbox
    before = sum(1 for _ in outbox.rglob("*"))

    found = check(campaign("planned", limits={"fallback_share": 1.0}), services)

    assert found.ok, found.problems
    assert found.audience.total == len(USERS)
    assert found.findings.mails == found.audience.mailable == len(MAILED)
    assert found.findings.short_mails == 0
    assert sum(1 for _ in outbox.rglob("*")) == before
    assert client.get("/v1/campaigns/planned").status_code == 404


def test_preflight_refuses_what_is_beyond_the_limits(client, services):
    found = check(campaign("poor", limits={"fallback_share": 0.1}), services)

    assert not found.ok
    assert any("fall back" in problem for problem in found.problems)


def test_preflight_finds_holes_in_mails_and_addresses_that_no_server_takes(client, services, world):
    table, user = SUBSCRIBERS, SUBSCRIBERS.c.user_id
    with world.engine.begin() as connection:
        before = connection.execute(select(user, table.c.email, table.c.first_name)).all()
        connection.execute(update(table).where(user == "u10").values(first_name=None))
        connection.execute(update(table).where(user == "u07").values(email="élise@mail.example"))
        connection.execute(update(table).where(user == "u08").values(email="nonsense"))

    limits = {"fallback_share": 1.0}
    greeting = campaign("greeting", limits=limits, subject="{{ user.first_name }}, your week")
    found = check(greeting, services)

    with world.engine.begin() as connection:
        for row in before:
            old = {"email": row.email, "first_name": row.first_name}
            connection.execute(update(table).where(user == row.user_id).values(old))
    assert found.findings.missing == {"user.first_name": 1}
    assert found.audience.invalid_address == 2
    assert found.findings.mails == found.audience.mailable == len(MAILED) - 2
    assert [problem.split("% ")[1] for problem in found.problems] == [
        "of the addresses are invalid; the limit is 2.0%.",
        "of the mails lack user.first_name; the limit is 0.0%.",
    ]


def test_preflight_tells_what_the_campaign_misspells_and_links_that_reach_nobody(client, services):
    misspelt = campaign(
        "misspelt",
        limits={"fallback_share": 1.0},
        rules={
            "blocked_items": ["item-4o"],
            "blocked_categories": ["Diary"],
            "blocked_attributes": {"kind": ["CIGARETS"]},
        },
    )

    found = check(misspelt, replace(services, outbox=None))

    assert "rules.blocked_items: the catalogue has no item-4o." in found.notes
    assert "rules.blocked_categories: the catalogue has no Diary." in found.notes
    assert "rules.blocked_attributes.kind: the catalogue has no CIGARETS." in found.notes
    assert [p for p in found.problems if "set RECO_PUBLIC_URL" in p] == list(found.problems)


def test_a_preview_is_a_file_and_its_decisions(client, services, tmp_path):
    out = tmp_path / "preview.html"

    summary = write_preview(campaign(), "u05", "control", services, out)

    assert "Thing number 0" in out.read_text()
    assert summary.arm == "control"
    assert summary.picks[0].startswith("Thing number 0 (item-00): ")
    with pytest.raises(NotFound, match="has no arm"):
        write_preview(campaign(), "u05", "third", services, out)
    with pytest.raises(NotFound, match="gets no mail"):
        write_preview(campaign(), "u00", None, services, out)


def scorer_pid() -> int:
    (replica,) = list_actors(
        address=ray.get_runtime_context().gcs_address,
        filters=[("class_name", "=", "ServeReplica:default:Scorer"), ("state", "=", "ALIVE")],
    )
    return int(replica.pid)


@contextmanager
def hanging(pid: int) -> Iterator[None]:
    """A process that is there and does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_another_model_by_user_config_drops_no_request(client, services, world, tmp_path):
    for name in ("one", "two"):
        artifact_of(world.catalogue, candidates=20).save(str(tmp_path / name))
    asked = {"users": ["u05", "u06"], "k": 3}
    stop, answers = Event(), []

    def keep_asking() -> None:
        while not stop.is_set():
            answers.append(client.post("/v1/recommend", json=asked))

    def until_it_is(model: str) -> None:
        until = time.monotonic() + 60
        while client.post("/v1/recommend", json=asked).json()["model"] != model:
            assert time.monotonic() < until

    declare(services, tmp_path / "one")
    until_it_is("one")
    before = scorer_pid()
    with ThreadPoolExecutor(4) as pool:
        try:
            askers = [pool.submit(keep_asking) for _ in range(4)]
            declare(services, tmp_path / "two")
            until_it_is("two")
        finally:
            stop.set()
        for asker in askers:
            asker.result()

    assert {answer.status_code for answer in answers} == {200}
    found = [answer.json() for answer in answers]
    assert {(one["model"], one["fallback"]) for one in found} <= {("one", ""), ("two", "")}
    assert {pick["rung"] for one in found for user in one["users"] for pick in user["picks"]} <= {
        "live",
        "lookalike",
    }
    assert scorer_pid() == before


def test_a_scorer_that_hangs_costs_the_picks_and_not_the_mail(client):
    graph = Graph.of_app(0.5)

    with hanging(scorer_pid()):
        made = asyncio.run(assemble_one(graph, campaign(), "u05", "personal"))

    assert made.fallback == SCORER_LATE
    assert len(made.item_ids[0]) == 3
    assert made.messages[0]


def test_in_a_hurry_the_model_is_left_out_and_the_mail_says_so(client):
    graph = replace(Graph.of_app(20), hurry=Hurry(on=True))

    made = asyncio.run(assemble_one(graph, campaign(), "u05", "personal"))

    assert made.fallback == HURRY
    assert len(made.item_ids[0]) == 3


def test_a_store_that_hangs_costs_the_picks_and_not_the_mail(client, world):
    store = world.online._redis.info("server")["process_id"]
    spec = campaign("hanging", rules={"frequency_cap": {"times": 1, "days": 7}})
    asked = {"campaign": spec.model_dump(mode="json"), "user_id": "u05", "arm": "personal"}

    with hanging(store):
        answer = client.post("/v1/preview", json=asked).json()

    assert answer["fallback"] == FEATURES_DOWN
    assert len(answer["picks"]) == 3
    assert client.post("/v1/preview", json=asked).json()["fallback"] != FEATURES_DOWN


def test_a_killed_scorer_costs_the_picks_and_not_the_mail(client):
    os.kill(scorer_pid(), signal.SIGKILL)

    answers = [client.post("/v1/preview", json=body(user)) for user in MAILED[:6]]

    assert {answer.status_code for answer in answers} == {200}
    assert all(len(answer.json()["picks"]) == 3 for answer in answers)
