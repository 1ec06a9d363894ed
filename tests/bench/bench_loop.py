"""The closed loop on a running application, with SIMULATED shoppers (tests/taste_world.py).

    python tests/bench/bench_loop.py                   1,500 recipients, both trainings
    python tests/bench/bench_loop.py --seed 1          other shoppers
    python tests/bench/bench_loop.py 20000 --watch     a campaign from start to end, no training;
                                                       then one that does harm, and must pause

import -> features -> train -> serve -> campaign (watched in the console) -> opens, clicks,
unsubscriptions, bounces and purchases through the public doors -> report -> train again.
Every stage is the command of the product in a process of its own; prints the bars of issue 6.
The second training is as of eleven days later: clicks are known after 72 hours and purchases after
7 days more, and until then a mail teaches nothing. Nothing else happens in these days.
bench_learning shows the same without servers, with and without what the mails taught.
"""

import argparse
import json
import os
import re
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402
import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
import yaml  # noqa: E402

from reco.campaigns.ledger import Ledger  # noqa: E402
from reco.embedded import Services, open_services  # noqa: E402
from reco.processes import free_port  # noqa: E402
from reco.settings import Settings  # noqa: E402
from render.links import LinkSigner  # noqa: E402
from tests.bench.loop_world import Loop, follow, live, post, write_shop  # noqa: E402
from tests.taste_world import ITEMS, Deed, Habits, Mail, Shoppers, ask  # noqa: E402
from train.cluster import connect  # noqa: E402

CAMPAIGN: Final = "loop"
PICKS: Final = 3
CLOSED: Final = timedelta(days=11)  # after a mail its windows are over


def spec(campaign_id: str) -> dict[str, Any]:
    return {
        "id": campaign_id, "template": "digest", "from_name": "Shop", "picks": PICKS,
        "from_email": "news@shop.example", "postal_address": "Shop, 1 Example Street, Berlin",
        "arms": [{"name": "control", "weight": 0.3, "slate": "editorial"},
                 {"name": "personal", "weight": 0.7, "slate": "model"}],
    }  # fmt: skip


def states(html: str) -> dict[str, int]:
    found = re.findall(r'data-state="(\w+)">([\d,]+)<', html)
    return {state: int(n.replace(",", "")) for state, n in found}


def watch(loop: Loop, services: Services, client: httpx.Client) -> dict[str, int]:
    """Run the campaign and look at its page in the console until it has finished."""
    browser = httpx.Client(base_url=loop.url, timeout=60)
    browser.post("/console/login", data={"key": services.api_key})
    assert client.post("/v1/campaigns", json=spec(CAMPAIGN)).status_code == 202
    began, seen = time.perf_counter(), [0]
    while True:
        page = browser.get(f"/console/campaigns/{CAMPAIGN}").text
        shown = states(page)
        if shown.get("accepted", 0) != seen[-1]:
            seen.append(shown["accepted"])
        if 'role="status">finished' in page:
            break
        assert 'role="status">paused' not in page, page
        time.sleep(1)
    took = time.perf_counter() - began
    assert seen == sorted(seen)
    print(f"  watched {len(seen)} counts rise to {seen[-1]:,} in {took:.0f} s", flush=True)
    return shown


def counted(ray_folder: Path) -> dict[str, int]:
    """Deliveries by state, as the Prometheus endpoints of the application's cluster have them."""
    counts: Counter[str] = Counter()
    discovery = ray_folder.glob("ray/session_2*/prom_metrics_service_discovery.json")
    groups = [group for file in discovery for group in json.loads(file.read_text())]
    for target in {target for group in groups for target in group["targets"]}:
        try:
            with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:  # the cluster of a command that has ended
            continue
        for line in lines:
            state = re.search(r'[{,]state="(\w+)"', line)
            if line.startswith("ray_reco_mails_settled_total{") and state:
                counts[state[1]] += round(float(line.rpartition(" ")[2]))
    return dict(counts)


def slates(client: httpx.Client, shoppers: Shoppers) -> list[list[str]]:
    """What the policy that serves now would show to each shopper."""
    out = []
    for start in range(0, shoppers.n, 512):
        users = shoppers.ids[start : start + 512]
        answer = client.post("/v1/recommend", json={"users": users, "k": PICKS}).json()
        out += [[pick["item_id"] for pick in one["picks"]] for one in answer["users"]]
    return out


def value(name: str, client: httpx.Client, shoppers: Shoppers) -> np.ndarray[Any, Any]:
    found = shoppers.value(slates(client, shoppers))
    share = found.mean() / shoppers.best(PICKS).mean()
    print(f"  true value of {name}: {found.mean():.4f} clicks a mail, {share:.0%} of the best")
    return found


def pauses(loop: Loop, services: Services, client: httpx.Client) -> None:
    """A campaign of which one reader in twenty leaves: it must stop by itself."""
    assert services.outbox is not None
    outbox, name = services.outbox / "new", "harmful"
    old, signer = {path.name for path in outbox.iterdir()}, LinkSigner(services.link_key)
    started = client.post("/v1/campaigns", json=spec(name) | {"rate_per_s": 60})
    assert started.status_code == 202
    left = 0
    while (now := client.get(f"/v1/campaigns/{name}").json())["state"] == "running":
        new = [path for path in outbox.iterdir() if path.name not in old]
        old |= {path.name for path in new}
        for path in new[::20]:
            ask(Mail.of(path.read_bytes(), signer).leave, left, "Mozilla/5.0 Chrome/130", "POST")
            left += 1
        time.sleep(1)
    sent = now["deliveries"]["accepted"]
    print(f"  {now['state']} by itself after {sent:,} of {loop.shoppers.n:,} mails, of which "
          f"{left} left: {now['note']}")  # fmt: skip
    assert now["state"] == "paused"


def same_numbers(loop: Loop, services: Services, console: dict[str, int]) -> None:
    """Console, ledger, report and Prometheus side by side."""
    with Ledger(services.database_url) as ledger:
        counts = {state: n for state, n in ledger.counts(CAMPAIGN).items() if n}
    found = loop.reco("report", CAMPAIGN)["delivery"]["ledger"]
    until = time.monotonic() + 60
    while (metrics := counted(loop.home.parent / "r")) != counts and time.monotonic() < until:
        time.sleep(2)
    report = {state: n for state, n in found["states"].items() if n}
    console = {state: n for state, n in console.items() if n}
    print(f"  console {console}\n  ledger {counts}\n  report {report}\n  Prometheus {metrics}")
    assert console == counts == report == metrics
    assert found["audience"] == loop.shoppers.n


def shown_of(services: Services) -> tuple[dict[str, Sequence[str]], dict[str, str]]:
    with Ledger(services.database_url) as ledger:
        rows = ledger.rows(CAMPAIGN).filter(pl.col("state") == "accepted")
    items = rows["items"].to_list()
    return dict(zip(rows["user_id"], items, strict=True)), dict(
        rows.select("user_id", "arm").rows()
    )


def judge_report(
    loop: Loop, shown: dict[str, Sequence[str]], arms: dict[str, str], followed: set[str],
    done: list[Deed],
) -> None:  # fmt: skip
    """The report's differences beside the true ones."""
    report = loop.reco("report", CAMPAIGN)
    place = {item: i for i, item in enumerate(loop.shoppers.items)}
    row = {user: i for i, user in enumerate(loop.shoppers.ids)}
    chance = {
        user: loop.shoppers.chance[row[user], [place[i] for i in items]]
        for user, items in shown.items()
    }
    truth = {
        "clicked": {u: 1 - float(np.prod(1 - c)) for u, c in chance.items() if u in followed},
        "any_bought": {u: 1 - float(np.prod(1 - c / 2)) for u, c in chance.items()},
    }
    found = {one["metric"]["column"]: one for one in report["analysis"]["results"]}
    for name, rates in truth.items():
        mean = {
            a: np.mean([p for u, p in rates.items() if arms[u] == a]) for a in set(arms.values())
        }
        true = float(mean["personal"] - mean["control"])
        gap = found[name]["comparisons"][0]["comparison"]["difference"]
        where = "inside" if gap["low"] <= true <= gap["high"] else "OUTSIDE"
        limits = f"({gap['low']:.4f} to {gap['high']:.4f})"
        print(
            f"  {name}: true difference {true:.4f}, reported {gap['value']:.4f} {limits}: {where}"
        )
    raw = {one["arm"]: one["clicked_raw"] for one in report["delivery"]["responses"]}
    people = {one["arm"]: one["clicked"] for one in report["delivery"]["responses"]}
    print(f"  clicked, with programs {raw}, without {people}")
    scanned = sum(deed.bot for deed in done)
    left = sum(deed.leaves for deed in done)
    harm = {(g["name"], g["arm"]): g["rate"] for g in report["delivery"]["guardrails"]}
    rate = harm["unsubscribe", "all arms"]
    print(f"  {left} left by POST, {scanned} unsubscribe links fetched by GET; unsubscribed in the "
          f"report: {round(rate * len(shown))}")  # fmt: skip
    print(f"  {sum(d.bounced for d in done)} bounced; in the report: "
          f"{round(harm['bounce', 'all arms'] * len(shown))}", flush=True)  # fmt: skip


def learn(loop: Loop, as_of: datetime | None = None) -> None:
    loop.reco("features")
    # A shop this small seldom convinces the gate's intervals; here the truth judges instead.
    config = loop.home.parent / "train.yaml"
    config.write_text("promote: always\n")
    when = ["--as-of", as_of.isoformat(timespec="seconds")] if as_of else []
    said = loop.reco("train", str(config), *when)
    print(f"  trained {said['version']}: promoted {said['promoted']}, {said['why']}", flush=True)


def settled(client: httpx.Client, loop: Loop, version: str) -> str:
    """The model that serves, once it is another than `version`."""
    question = {"users": loop.shoppers.ids[:1], "k": PICKS}
    until = time.monotonic() + 300
    while (now := client.post("/v1/recommend", json=question).json()["model"]) == version:
        assert time.monotonic() < until, now
        time.sleep(1)
    return str(now)


def run(loop: Loop, services: Services, habits: Habits, only_watch: bool) -> None:
    shop = loop.shoppers
    folder = loop.home.parent
    write_shop(loop, folder)
    for table in ("items", "subscribers", "events"):
        loop.reco("import", table, str(folder / f"{table}.csv"))
    followed = follow(services, shop)
    if not only_watch:
        learn(loop)
    config = yaml.safe_load((ROOT / "configs" / "serve.yaml").read_text())
    config["http_options"]["port"] = loop.port
    (folder / "serve.yaml").write_text(yaml.safe_dump(config))
    headers = {"Authorization": f"Bearer {services.api_key}"}
    client = httpx.Client(base_url=loop.url, headers=headers, timeout=120)
    with serving(loop, services, folder / "serve.yaml"):
        wait_for(client)
        if not only_watch:
            first = settled(client, loop, "")
            value("the first model", client, shop)
        console = watch(loop, services, client)
        same_numbers(loop, services, console)
        if only_watch:
            with loop.running("stream"):
                pauses(loop, services, client)
            return
        shown, arms = shown_of(services)
        time.sleep(12)  # a click within 10 s is suspicious
        done = live(loop, services, client, shown, followed, habits)
        now = datetime.now(UTC)
        post(client, shop.purchases(2, now - timedelta(days=7), now, ITEMS, 2))
        loop.reco("stream", "--drain")
        judge_report(loop, shown, arms, followed, done)
        before = value("the first model, with this week's events", client, shop)
        learn(loop, datetime.now(UTC) + CLOSED)
        settled(client, loop, first)
        after = value("the next model", client, shop)
    gain = after - before
    half = 1.96 * float(gain.std()) / np.sqrt(len(gain))
    print(f"  gain by training: {gain.mean():.4f} ± {half:.4f} clicks a mail")
    assert gain.mean() - half > 0


@contextmanager
def serving(loop: Loop, services: Services, config: Path) -> Iterator[None]:
    """The application: `reco serve`, or in this process's cluster where there is one."""
    if not loop.inside:
        with loop.running("serve", str(config)):
            yield
        return
    from ray import serve

    from serve.app import build
    from serve.app_args import AppArgs
    from serve.graph import APP

    serve.start(http_options={"host": "127.0.0.1", "port": loop.port})
    serve.run(build(AppArgs(home=services.home)), name=APP, route_prefix="/")
    try:
        yield
    finally:
        serve.shutdown()


def wait_for(client: httpx.Client) -> None:
    until = time.monotonic() + 600
    while True:
        try:
            if client.get("/docs").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < until
        time.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipients", nargs="?", type=int, default=1_500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--watch", action="store_true")
    parser.add_argument("--inside", action="store_true", help="one Ray cluster for all commands")
    asked = parser.parse_args()
    habits = Habits(bots=min(0.15, 300 / asked.recipients), apple=0.05, bounce=0.005, leave=0.001)
    with TemporaryDirectory(prefix="loop", dir="/tmp") as folder:
        loop = Loop(Path(folder) / "home", free_port(), Shoppers(asked.recipients, asked.seed))
        (loop.home.parent / "r").mkdir()
        settings = Settings(home=loop.home, public_url=loop.url)
        loop.inside = asked.inside
        os.environ["RAY_TMPDIR"] = str(loop.home.parent / "r")
        with ExitStack() as stack:
            services = stack.enter_context(open_services(settings))
            if asked.inside:
                stack.enter_context(connect(services))
            run(loop, services, habits, asked.watch)


if __name__ == "__main__":
    main()
