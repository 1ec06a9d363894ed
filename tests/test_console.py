"""The console on a real Ray Serve shows the ledger's numbers, and nothing to strangers."""

import os
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from reco.campaigns.ledger import Ledger
from reco.campaigns.store import CampaignState, CampaignStore
from reco.embedded import Services
from reco.events.lake import Lake
from reco.outcomes.gather import campaign_report
from serve.sessions import COOKIE
from tests.browser import CHROMIUM
from tests.chromium import open_tab
from tests.serving import running_app
from tests.small_world import TRACKED, USERS, World, campaign, small_world

pytestmark = pytest.mark.ray
MORE = 400
EVERYBODY = len(USERS) + MORE
PICTURES = os.environ.get("TEST_PICTURES")  # a folder to keep the screenshots in


@pytest.fixture(scope="module")
def world(services: Services) -> Iterator[World]:
    with small_world(services, MORE) as world:
        yield world


@pytest.fixture(scope="module")
def client(ray_cluster, services: Services, world: World) -> Iterator[httpx.Client]:
    with running_app(services) as client:
        yield client


@pytest.fixture
def visitor(client) -> Iterator[httpx.Client]:
    """A browser without a session and without the key."""
    with httpx.Client(base_url=client.base_url, timeout=60) as visitor:
        yield visitor


@pytest.fixture
def operator(visitor, services) -> httpx.Client:
    """A browser that has logged in."""
    answer = visitor.post("/console/login", data={"key": services.api_key})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console")
    return visitor


def test_a_login_is_read_no_further_than_a_key_is_long(visitor):
    assert visitor.post("/console/login", data={"key": "x" * 10_000}).status_code == 413


def send(client, name, **changes):
    """Run a campaign to its end over HTTP."""
    spec = campaign(name, **changes).model_dump(mode="json")
    assert client.post("/v1/campaigns", json=spec).status_code == 202
    until = time.monotonic() + 200
    while client.get(f"/v1/campaigns/{name}").json()["state"] != "finished":
        assert time.monotonic() < until
        time.sleep(0.3)


def shown(html):
    """Deliveries by state, as a page of a campaign says."""
    found = re.findall(r'data-state="(\w+)">([\d,]+)<', html)
    return {state: int(n.replace(",", "")) for state, n in found}


@pytest.mark.parametrize(
    "path",
    ["", "/data", "/campaigns/x", "/campaigns/x/results", "/campaigns/x/mail",
     "/campaigns/x/mail/page?user=u05"],
)  # fmt: skip
def test_strangers_are_asked_for_the_key(visitor, path):
    answer = visitor.get(f"/console{path}")

    assert (answer.status_code, answer.headers["location"]) == (303, "/console/login")


def test_a_wrong_key_opens_nothing(visitor):
    answer = visitor.post("/console/login", data={"key": "guess"})

    assert answer.status_code == 401
    assert "This is not the key" in answer.text
    assert COOKIE not in visitor.cookies


def test_the_cookie_is_out_of_reach_of_scripts_and_of_other_sites(visitor, services):
    cookie = visitor.post("/console/login", data={"key": services.api_key}).headers["set-cookie"]

    assert {"HttpOnly", "SameSite=strict", "Path=/console"} <= set(cookie.split("; "))


def test_pages_load_nothing_from_elsewhere_and_are_in_no_frame(operator):
    policy = operator.get("/console").headers["content-security-policy"]

    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]


def settled_in_ray() -> int:
    """Mails that all campaigns of this cluster had accepted so far."""
    import ray

    port = ray.nodes()[0]["MetricsExportPort"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in lines
        if line.startswith("ray_reco_mails_settled_total{") and 'state="accepted"' in line
    )


def test_console_report_ledger_and_prometheus_have_the_same_numbers(client, operator, world):
    before = settled_in_ray()
    send(client, "counted")

    page = operator.get("/console/campaigns/counted")
    with Ledger(world.services.database_url) as ledger:
        counts = ledger.counts("counted")
    lake = Lake(world.services.lake)
    report = campaign_report("counted", lake, world.engine, world.services.database_url)
    assert {s: n for s, n in counts.items() if n} == {
        s: n for s, n in shown(page.text).items() if n
    }
    assert report.delivery.ledger.states["accepted"] == shown(page.text)["accepted"]
    assert report.delivery.ledger.audience == sum(shown(page.text).values()) == EVERYBODY
    until = time.monotonic() + 40
    while (settled := settled_in_ray() - before) < counts["accepted"] and time.monotonic() < until:
        time.sleep(1)
    assert counts["accepted"] == settled
    assert operator.get("/console").text.count("counted") >= 2


def test_results_and_a_mail_are_shown_with_reasons(client, operator):
    send(client, "shown", audience={"users": USERS})

    results = operator.get("/console/campaigns/shown/results")
    mail = operator.get("/console/campaigns/shown/mail", params={"user": TRACKED})
    page = operator.get(
        "/console/campaigns/shown/mail/page", params={"user": TRACKED, "arm": "control"}
    )

    assert "Where every recipient ended" in results.text
    assert '<iframe title="The mail of u04' in mail.text
    assert page.text.count("<iframe") == 2
    assert "Name4" in page.text


def test_what_is_wrong_is_said_in_words(operator):
    missing = operator.get("/console/campaigns/missing")

    assert missing.status_code == 404
    assert "There is no campaign missing." in missing.text


def test_data_health_counts_what_there_is_and_names_what_is_missing(operator):
    page = operator.get("/console/data").text

    assert f"<dd>{EVERYBODY}</dd>" in page
    assert "No model was promoted" in page


def test_names_are_escaped(operator, world):
    CampaignStore(world.engine).create(campaign("safe"))

    page = operator.get("/console/campaigns/safe/mail", params={"user": '"><script>x</script>'})

    assert "<script>x" not in page.text


def test_only_our_own_form_stops_a_campaign(operator, world):
    store = CampaignStore(world.engine)
    store.create(campaign("held"))
    store.move("held", CampaignState.RUNNING)
    page = operator.get("/console/campaigns/held").text
    (token,) = set(re.findall(r'name="token" value="(\w+)"', page))

    forged = operator.post("/console/campaigns/held/pause", data={"token": "0" * 64})
    assert (forged.status_code, store.get("held").state) == (403, CampaignState.RUNNING)
    with httpx.Client(base_url=operator.base_url) as stranger:
        stranger.post("/console/campaigns/held/pause", data={"token": token})
    assert store.get("held").state is CampaignState.RUNNING

    done = operator.post("/console/campaigns/held/pause", data={"token": token})
    assert (done.status_code, store.get("held").state) == (303, CampaignState.PAUSED)
    assert "by hand" in operator.get("/console/campaigns/held").text


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
def test_an_operator_watches_a_campaign_with_the_keyboard_alone(client, services, tmp_path):
    """Logs in, opens a running campaign, sees it move without a reload, pauses and resumes it."""
    folder = Path(PICTURES or tmp_path)
    spec = campaign("watched", rate_per_s=60, connections=2).model_dump(mode="json")
    with open_tab() as page:
        page.size(1100, 800)
        page.open(f"{client.base_url}/console")
        page.wait("document.activeElement.id === 'key'")
        page.type(services.api_key)
        page.press("Enter")
        page.wait("document.querySelector('h1').innerText === 'Campaigns'")
        client.post("/v1/campaigns", json=spec)
        page.open(f"{client.base_url}/console/campaigns/watched")
        accepted = "Number(document.querySelector('[data-state=accepted]')?.innerText ?? 0)"
        page.wait(f"{accepted} > 0")
        first = page.run(accepted)
        page.picture(folder / "console-running.png")
        page.wait(f"{accepted} > {first}")
        _tab_to(page, "pause")
        page.press("Enter")
        page.wait("document.querySelector('[role=status]').innerText === 'paused'")
        _tab_to(page, "resume")
        page.press("Enter")
        page.wait("document.querySelector('[role=status]').innerText === 'finished'")
        done = page.run("document.querySelector('progress').value")
        page.picture(folder / "console-finished.png")
        page.open(f"{client.base_url}/console/campaigns/watched/mail?user={TRACKED}")
        time.sleep(2)
        page.picture(folder / "console-mail.png")
        page.size(390, 800)
        page.open(f"{client.base_url}/console/campaigns/watched")
        narrow = page.run("document.documentElement.scrollWidth <= window.innerWidth")
        page.picture(folder / "console-phone.png")

    assert EVERYBODY == done
    assert narrow


def _tab_to(page, name):
    for _ in range(15):
        if page.run("document.activeElement.id") == name:
            return
        page.press("Tab")
    pytest.fail(f"{name} cannot be reached with the keyboard")
