"""The HTTP API and the public links, on a real Ray Serve with real stores."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import grpc
import httpx
import pytest
import ray
from google.protobuf.struct_pb2 import Struct
from ray.util.state import list_actors

from reco.campaigns.ledger import Ledger
from reco.embedded import Services, connect_redis
from reco.events.bus import open_bus
from reco.events.deadletter import DeadLetters
from reco.events.lake import Lake
from reco.events.stream import Consumer, StreamProcessor
from reco.features.live import LiveRows
from reco.features.online import OnlineStore
from reco.outcomes.bots import TRAP_SLOT
from render.links import Link, LinkKind, LinkSigner
from serve.readers import EVENT_STREAM
from serve.reco_pb2 import RecommendRequest, SendRequest
from serve.reco_pb2_grpc import RecoStub
from serve.triggers import Triggers
from tests.serving import free_port, running_app
from tests.small_world import POPULAR, SUPPRESSED, TRACKED, World, campaign, small_world
from tests.streams import NOBODY, consumer, drain

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def world(services: Services) -> Iterator[World]:
    with small_world(services) as world:
        yield world


@pytest.fixture(scope="module")
def grpc_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def client(ray_cluster, services: Services, world: World, grpc_port) -> Iterator[httpx.Client]:
    with running_app(services, grpc_port) as client:
        yield client


@pytest.fixture
def stub(client, grpc_port) -> Iterator[RecoStub]:
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        yield RecoStub(channel)


def body(user: str, campaign_id: str = "spring", **more: object) -> dict[str, object]:
    return {"campaign": campaign(campaign_id).model_dump(mode="json"), "user_id": user, **more}


def test_recommend_gives_ranked_items_and_says_where_they_come_from(client):
    answer = client.post("/v1/recommend", json={"users": ["u05", "nobody"], "k": 4})

    assert answer.status_code == 200
    found = answer.json()
    assert [user["user_id"] for user in found["users"]] == ["u05", "nobody"]
    picks = found["users"][0]["picks"]
    assert [pick["rank"] for pick in picks] == [1, 2, 3, 4]
    assert [pick["item_id"] for pick in picks] == POPULAR[:4]
    assert {pick["rung"] for pick in picks} == {"popular"}
    assert found["fallback"] == "no_model"


def test_preview_shows_the_mail_and_the_decisions_and_sends_nothing(client, world):
    before = world.services.outbox and len(list(world.services.outbox.rglob("*")))

    answer = client.post("/v1/preview", json=body("u05", arm="control"))

    assert answer.status_code == 200
    mail = answer.json()
    assert "Name5" in mail["html"]
    assert "Thing number 0" in mail["text"]
    assert mail["headers"]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert mail["arm"] == "control"
    assert [pick["rung"] for pick in mail["picks"]] == ["editorial"] * 3
    assert set(mail["took_ms"]) == {"features", "scorer", "rules", "renderer"}
    assert before == (world.services.outbox and len(list(world.services.outbox.rglob("*"))))


def test_send_is_idempotent_and_a_key_asks_for_one_more(client, world):
    first = client.post("/v1/send", json=body("u06", "receipt")).json()
    again = client.post("/v1/send", json=body("u06", "receipt")).json()
    keyed = client.post("/v1/send", json=body("u06", "receipt", key="order-1")).json()
    keyed_again = client.post("/v1/send", json=body("u06", "receipt", key="order-1")).json()

    assert first["state"] == keyed["state"] == "accepted"
    assert again == first
    assert keyed_again == keyed
    assert keyed["message_id"] != first["message_id"]
    with Ledger(world.services.database_url) as ledger:
        assert ledger.counts("receipt")["accepted"] == 2


def test_send_withholds_from_who_opted_out(client):
    answer = client.post("/v1/send", json=body(SUPPRESSED, "receipt")).json()

    assert (answer["state"], answer["reply"]) == ("suppressed", "unsubscribe")


def test_links_lead_to_the_item_and_leave_events(client, world):
    client.post("/v1/send", json=body(TRACKED, "linked"))
    html = client.post("/v1/preview", json=body(TRACKED, "linked")).json()["html"]
    paths = re.findall(rf"{re.escape(world.services.public_url)}(/[co]/[\w-]+)", html)
    world.online._redis.delete(EVENT_STREAM)

    answers = {path[1]: client.get(path) for path in paths}

    assert answers["c"].status_code == 302
    assert "utm_campaign=linked" in answers["c"].headers["location"]
    assert answers["o"].headers["content-type"] == "image/gif"
    events = [fields for _, fields in world.online._redis.xrange(EVENT_STREAM)]
    assert {fields[b"type"] for fields in events} == {b"click", b"open"}
    assert {fields[b"user_id"] for fields in events} == {TRACKED.encode()}
    assert {fields[b"address"] for fields in events} == {b"127.0.0.0/24"}
    assert all(fields[b"user_agent"].startswith(b"python-httpx") for fields in events)


def test_who_asks_for_headers_only_is_noted_as_such(client, world):
    client.post("/v1/send", json=body(TRACKED, "probed"))
    html = client.post("/v1/preview", json=body(TRACKED, "probed")).json()["html"]
    world.online._redis.delete(EVENT_STREAM)

    answer = client.head(re.findall(r"(/c/[\w-]+)", html)[0])

    assert answer.status_code == 302
    events = [fields for _, fields in world.online._redis.xrange(EVENT_STREAM)]
    assert [b"HEAD"] == [fields[b"method"] for fields in events]


def test_the_hidden_link_leads_to_the_front_page_and_is_noted(client, world):
    trap = Link(LinkKind.CLICK, "probed", TRACKED, TRAP_SLOT)
    world.online._redis.delete(EVENT_STREAM)

    answer = client.get(f"/c/{LinkSigner(world.services.link_key).sign(trap)}")

    assert answer.headers["location"] == world.services.public_url
    events = [fields for _, fields in world.online._redis.xrange(EVENT_STREAM)]
    assert [str(TRAP_SLOT).encode()] == [fields[b"slot"] for fields in events]


def test_unsubscribing_takes_a_post_and_holds_back_what_waits(client, world):
    sent = client.post("/v1/preview", json=body("u09", "leaving")).json()
    path = sent["headers"]["List-Unsubscribe"].strip("<>").removeprefix(world.services.public_url)

    page = client.get(path)
    after_get = client.post("/v1/send", json=body("u09", "leaving")).json()
    posted = client.post(path, data={"List-Unsubscribe": "One-Click"})
    after_post = client.post("/v1/send", json=body("u09", "next")).json()

    assert (page.status_code, posted.status_code) == (200, 200)
    assert '<form method="post">' in page.text
    assert after_get["state"] == "accepted"
    assert (after_post["state"], after_post["reply"]) == ("suppressed", "unsubscribe")


def test_pictures_are_drawn_for_known_categories_only(client):
    html = client.post("/v1/preview", json=body("u05")).json()["html"]
    path = re.search(r"/assets/categories/[\w.-]+", html)
    assert path

    assert client.get(path[0]).content.startswith(b"\x89PNG")
    assert client.get("/assets/categories/../../keys/api").status_code == 404
    assert client.get("/assets/categories/unknown.png").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "payload", "status", "code"),
    [
        ("POST", "/v1/recommend", {"users": []}, 422, "invalid"),
        ("POST", "/v1/recommend", {"users": ["a"], "kk": 3}, 422, "invalid"),
        ("POST", "/v1/recommend", {"users": ["a"], "as_of": "2017-01-01T00:00Z"}, 422, "config"),
        ("POST", "/v1/preview", {"campaign_id": "missing", "user_id": "a"}, 404, "not_found"),
        ("POST", "/v1/preview", body("u00"), 404, "not_found"),
        ("POST", "/v1/preview", {"user_id": "a"}, 422, "invalid"),
        ("GET", "/v1/campaigns/missing", None, 404, "not_found"),
        ("GET", "/nowhere", None, 404, "not_found"),
        ("GET", "/c/forged", None, 404, "not_found"),
        ("DELETE", "/v1/send", None, 405, "method_not_allowed"),
    ],
)
def test_errors_are_problems_with_a_stable_code(client, method, path, payload, status, code):
    answer = client.request(method, path, json=payload)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code


def test_an_unknown_template_variable_is_named(client, tmp_path):
    from render.compile import STOCK

    folder = tmp_path / "broken"
    folder.mkdir()
    for file in (STOCK / "digest").rglob("*"):
        if file.is_file():
            target = folder / file.relative_to(STOCK / "digest")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    (folder / "subject.jinja").write_text("For you, {{ user.frist_name }}")
    spec = campaign("broken", template=str(folder)).model_dump(mode="json")

    answer = client.post("/v1/campaigns", json=spec)
    preview = client.post("/v1/preview", json={"campaign": spec, "user_id": "u05"})

    assert (answer.status_code, answer.json()["code"]) == (422, "template")
    assert "frist_name" in answer.text
    assert preview.json()["code"] == "template"
    assert client.get("/v1/campaigns/broken").status_code == 404


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"X-API-Key": ""}])
def test_v1_needs_the_key_and_links_do_not(client, headers):
    with httpx.Client(base_url=client.base_url, headers=headers) as stranger:
        answer = stranger.get("/v1/campaigns/x")

        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert stranger.get("/healthz").json() == {"status": "ok"}
        assert stranger.get("/c/forged").status_code == 404


@pytest.mark.parametrize("path", ["/v1/send", "/v1/recommend"])
@pytest.mark.parametrize(
    "body", [b"{", b'{"users": ["u05"], "user_id": "u05", "campaign_id": "x"}']
)
def test_nothing_is_sent_or_recommended_without_the_key(client, path, body):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": ""}):
        with httpx.Client(base_url=client.base_url, headers=headers) as stranger:
            answer = stranger.post(path, content=body)

            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("path", ["/v1/send", "/v1/recommend", "/v1/preview"])
@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe\xff", b"[" * 100_000, b'{"users": 1}'])
def test_what_is_no_request_is_said_to_be_none(client, path, body):
    answer = client.post(path, content=body, headers={"content-type": "application/json"})

    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_body_may_begin_with_a_mark(client):
    body = b"\xef\xbb\xbf" + b'{"users": ["u05"], "k": 2}'
    answer = client.post("/v1/recommend", content=body)

    assert [len(user["picks"]) for user in answer.json()["users"]] == [2]


def test_the_key_may_come_in_either_header(client, services):
    with httpx.Client(base_url=client.base_url, headers={"X-API-Key": services.api_key}) as other:
        assert other.get("/v1/campaigns/missing").status_code == 404


def test_openapi_is_published(client):
    spec = client.get("/openapi.json").json()

    assert {"/v1/recommend", "/v1/preview", "/v1/send", "/v1/campaigns"} <= spec["paths"].keys()
    assert not any(path.startswith(("/c/", "/o/", "/u/")) for path in spec["paths"])


def test_what_was_bought_a_moment_ago_is_not_recommended_any_more(client, services):
    def picked() -> list[str]:
        asked = {"users": ["u39"], "k": 3, "rules": {"seen": "drop"}}
        (user,) = client.post("/v1/recommend", json=asked).json()["users"]
        return [pick["item_id"] for pick in user["picks"]]

    before, now = picked(), datetime.now(UTC)
    bought = {"event_id": "b", "user_id": "u39", "type": "purchase", "item_id": before[0]}

    answer = client.post("/v1/events", json=[bought])
    store = connect_redis(services.redis_url)
    drain(consumer(Lake(services.lake), store, services.bus_url, now=now))

    assert 202 == answer.status_code
    assert before[1:] == picked()[:2]
    assert 401 == client.post("/v1/events", headers={"Authorization": "Bearer no"}).status_code


def struct(values: dict[str, object]) -> Struct:
    out = Struct()
    out.update(values)
    return out


def test_grpc_recommends_as_http_does(client, stub, services):
    asked = {"users": ["u05", "nobody"], "k": 4, "rules": {"seen": "drop"}}
    http = client.post("/v1/recommend", json=asked).json()

    request = RecommendRequest(users=asked["users"], k=4, rules=struct(asked["rules"]))
    answer = stub.Recommend(request, metadata=[("x-api-key", services.api_key)], timeout=60)

    assert http["fallback"] == answer.fallback == "no_model"
    assert set(answer.took_ms) == set(http["took_ms"])
    assert http["users"] == [
        {
            "user_id": user.user_id,
            "picks": [
                {field.name: getattr(pick, field.name) for field in pick.DESCRIPTOR.fields}
                for pick in user.picks
            ],
        }
        for user in answer.users
    ]


def test_grpc_sends_what_http_knows_as_sent(client, stub, services):
    spec = struct(campaign("by-grpc").model_dump(mode="json"))
    bearer = [("authorization", f"Bearer {services.api_key}")]

    sent = stub.Send(
        SendRequest(campaign=spec, user_id="u06", key="order-1"), metadata=bearer, timeout=60
    )
    again = client.post(
        "/v1/send", json={"campaign_id": "by-grpc", "user_id": "u06", "key": "order-1"}
    ).json()

    assert sent.state == "accepted"
    assert again["message_id"] == sent.message_id


@pytest.mark.parametrize(
    ("request_", "key", "status", "code"),
    [
        (SendRequest(campaign_id="x", user_id="u05"), "wrong", "UNAUTHENTICATED", "unauthorized"),
        (SendRequest(campaign_id="missing", user_id="u05"), None, "NOT_FOUND", "not_found"),
        (SendRequest(user_id="u05"), None, "INVALID_ARGUMENT", "invalid"),
        (RecommendRequest(), None, "INVALID_ARGUMENT", "invalid"),
        (RecommendRequest(users=["a"], k=1000), None, "INVALID_ARGUMENT", "invalid"),
    ],
)
def test_grpc_errors_are_those_of_http(stub, services, request_, key, status, code):
    call = stub.Send if isinstance(request_, SendRequest) else stub.Recommend

    with pytest.raises(grpc.RpcError) as error:
        call(request_, metadata=[("x-api-key", key or services.api_key)], timeout=60)

    assert error.value.code() is grpc.StatusCode[status]
    assert error.value.details()
    assert dict(error.value.trailing_metadata())["reco-code"] == code


def test_questions_that_come_together_are_answered_each(client):
    def ask(i: int) -> dict[str, object]:
        asked = {"users": [f"u{i:02d}", f"u{i + 1:02d}"], "k": 2 + i % 2}
        return client.post("/v1/recommend", json=asked).json()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(5, 29)))

    for i, answer in enumerate(answers, 5):
        assert [user["user_id"] for user in answer["users"]] == [f"u{i:02d}", f"u{i + 1:02d}"]
        assert [len(user["picks"]) for user in answer["users"]] == [2 + i % 2] * 2


def test_a_signup_is_answered_within_seconds_once_and_not_while_paused(client, world, services):
    redis, lake = connect_redis(services.redis_url), Lake(services.lake)
    rows = LiveRows(lake, OnlineStore(redis), NOBODY)
    triggers = Triggers(world.engine)
    processor = StreamProcessor(lake, rows, DeadLetters(redis), triggers=triggers)
    reader = open_bus(services.bus_url, lake.buckets).reader(range(lake.buckets), "signups")
    stream = Consumer(reader, processor)

    def sign_up(user: str) -> None:
        now = datetime.now(UTC).isoformat()
        event = {"event_id": f"sign-{user}", "user_id": user, "type": "signup", "timestamp": now}
        assert client.post("/v1/events", json={"events": [event, event]}).status_code == 202

    def until(state: str, n: int) -> dict[str, int]:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            stream.step(0.1, 0.0)
            deliveries: dict[str, int] = client.get("/v1/campaigns/welcome").json()["deliveries"]
            if deliveries[state] >= n:
                break
        return {name: count for name, count in deliveries.items() if count}

    def await_no_sender() -> None:
        """Senders of a paused campaign end what they have begun and hear of it a moment later."""
        address, deadline = ray.get_runtime_context().gcs_address, time.monotonic() + 90
        alive = [("class_name", "=", "SenderActor"), ("state", "=", "ALIVE")]
        while list_actors(address=address, filters=alive) and time.monotonic() < deadline:
            time.sleep(0.1)

    spec = campaign("welcome", trigger={"event": "signup"}).model_dump(mode="json")
    assert client.post("/v1/campaigns", json=spec).status_code == 202
    sign_up("u11")
    sign_up("u11")
    assert until("accepted", 1) == {"accepted": 1}

    assert client.post("/v1/campaigns/welcome/pause").json()["state"] == "paused"
    await_no_sender()
    sign_up("u12")
    assert until("deferred", 1) == {"accepted": 1, "deferred": 1}
    assert client.post("/v1/campaigns/welcome/resume").json()["state"] == "running"
    assert until("accepted", 2) == {"accepted": 2}
    assert client.post("/v1/campaigns/welcome/cancel").json()["state"] == "cancelled"
    redis.close()
