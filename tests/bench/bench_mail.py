"""What readers and list owners wait for: pictures and address checks over HTTP, a whole list.

    python tests/bench/bench_mail.py [--requests 400] [--addresses 100000] [--domains 5000]

The application runs in Ray Serve, one request at a time; a name server on loopback answers.
"""

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}

import httpx
import numpy as np
import polars as pl
import ray

from reco.campaigns.store import CampaignStore
from reco.embedded import Services, open_services
from reco.settings import Settings
from reco.subscribers.bulk import validate
from reco.subscribers.mail_domains import MailDomains
from reco.subscribers.store import SubscriberStore
from reco.subscribers.suppression import SuppressionList
from reco.subscribers.validation import Validator
from reco.tables import SUBSCRIBERS
from render.links import Link, LinkKind, LinkSigner
from render.live_images import COUNTDOWN
from tests.name_server import running_name_server
from tests.serving import running_app
from tests.small_world import ITEM_COUNT, World, campaign, small_world
from tests.smtpd import running_sink
from tests.test_sender import Post

ROOT = Path(__file__).resolve().parents[2]


def spread(what: str, took_ms: Sequence[float]) -> None:
    """One row of the table."""
    p50, p95, top = np.percentile(took_ms, (50, 95, 100))
    print(f"{what:<44} {len(took_ms):>6} {p50:>8.1f} {p95:>8.1f} {top:>8.1f}", flush=True)


def timed(calls: Sequence[Callable[[], httpx.Response]]) -> list[float]:
    """Milliseconds of each call; all must be answered."""
    took = []
    for call in calls:
        begun = time.perf_counter()
        answer = call()
        took.append((time.perf_counter() - begun) * 1e3)
        assert answer.status_code == 200, answer.text
    return took


def over_http(client: httpx.Client, world: World, requests: int) -> None:
    """Latencies of the endpoints, each after one call that warms it up."""
    signer = LinkSigner(world.services.link_key)

    def check(number: int) -> httpx.Response:
        body = {"addresses": [f"ana{number}@gmial.com"], "dns": False}
        return client.post("/v1/subscribers/validate", json=body)

    def picture(item: str, number: int = 0) -> httpx.Response:
        token = signer.sign(Link(LinkKind.IMAGE, "spring", item, number))
        answer = client.get(f"/i/{token}")
        assert answer.content.startswith(b"\x89PNG")
        return answer

    check(0), picture("", COUNTDOWN)
    spread("POST /v1/subscribers/validate, no DNS", timed([lambda: check(1)] * requests))
    items = [f"item-{n:02d}" for n in range(ITEM_COUNT)]
    draw = [lambda item=item: picture(item) for item in items]
    spread("GET /i/{token}, price drawn live", timed(draw))
    spread("GET /i/{token}, price cached", timed(draw * (requests // len(draw))))
    clock = [lambda: picture("", COUNTDOWN)]
    spread("GET /i/{token}, countdown", timed(clock * requests))


def whole_list(services: Services, world: World, addresses: int, domains: int) -> None:
    """`reco subscribers validate` over a list, DNS cached by domain."""
    schema = pl.from_arrow(SUBSCRIBERS.empty_table()).schema
    rows = {
        "user_id": [f"u{n:07d}" for n in range(addresses)],
        "email": [f"ana{n}@d{n % domains}.example" for n in range(addresses)],
    }
    store = SubscriberStore(world.engine)
    store.upsert(pl.DataFrame(rows, schema={name: schema[name] for name in rows}))
    with running_name_server() as dns:
        listed = [f"d{n}.example" for n in range(domains)]
        for domain in [*listed, "mail.example", "gmail.com", "yahoo.com"]:  # the world's own too
            dns.zones[domain] = {"MX": ["10 mx.example."]}
        known = MailDomains(dns.address)
        begun = time.perf_counter()
        suppressions = SuppressionList(world.engine, services.link_key)
        summary = validate(store, suppressions, Validator(known))
        took_s = time.perf_counter() - begun
    print(
        f"{summary.addresses:,} addresses in {took_s:.1f} s, {summary.addresses / took_s:,.0f}/s, "
        f"{known.questions:,} questions for {domains:,} domains"
    )


async def one_by_one(number: int) -> None:
    """What a check costs without the way there."""
    begun = time.perf_counter()
    await Validator().check_many([f"ana{n}@mail.example" for n in range(number)])
    print(f"by syntax and words: {(time.perf_counter() - begun) / number * 1e6:.0f} us an address")


async def receivers(world: World, rate_per_s: float, mails: int) -> None:
    """One receiver says 421, one has a pace of its own, one has none: what each gets in a second.

    The sink is looked at every few milliseconds.
    """
    with world.engine.begin() as connection:
        connection.exec_driver_sql(
            "update subscribers set email = user_id || case (right(user_id, 1)::int %% 3) "
            "when 0 then '@gmail.com' when 1 then '@yahoo.com' else '@mail.example' end "
            "where user_id like 'x%%'"
        )
    with running_sink() as sink:
        for n in range(3 * mails):
            if n % 10 % 3 == 0:
                sink.fault("too_fast", recipient=f"x{n:04d}@gmail.com")
        post = Post(world, sink.url, operator_rates={"yahoo": rate_per_s})
        users = [f"x{n:04d}" for n in range(3 * mails)]
        with post.ledger:
            post.ledger.enqueue(post.campaign.id, [(user, "personal") for user in users])
            seen: list[tuple[float, int, int]] = []
            async with post.sender() as sender:
                claim = post.ledger.claim_these(post.campaign.id, users)
                work = asyncio.create_task(sender.send_chunk(claim))
                while not work.done():
                    to = [message.rcpt_to.partition("@")[2] for message in sink.messages]
                    seen.append((time.monotonic(), to.count("yahoo.com"), to.count("mail.example")))
                    await asyncio.sleep(0.005)
                await work
            states = post.ledger.rows(post.campaign.id).filter(pl.col("user_id").is_in(users))
    paced = [at for at, yahoo, _ in seen if yahoo]
    most = seen[-1][1]
    ends = next(at for at, yahoo, _ in seen if yahoo == most)
    observed = (most - next(yahoo for _, yahoo, _ in seen if yahoo)) / (ends - paced[0])
    free = next(at for at, _, other in seen if other == seen[-1][2]) - seen[0][0]
    deferred = states.filter(pl.col("state") == "deferred")
    print(
        f"receivers: {len(deferred)} mails to the one that says 421 are deferred; {most} to the "
        f"paced one at {observed:.2f}/s of {rate_per_s:g}/s ({observed / rate_per_s - 1:+.1%}); "
        f"{seen[-1][2]} to the free one within {free:.1f} s"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--addresses", type=int, default=100_000)
    parser.add_argument("--domains", type=int, default=5_000)
    given = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs")
    print(f"{'milliseconds':<44} {'n':>6} {'p50':>8} {'p95':>8} {'max':>8}")
    with (
        tempfile.TemporaryDirectory(prefix="bench-mail-") as folder,
        open_services(Settings(home=Path(folder) / "home")) as services,
        small_world(services, 600) as world,
    ):
        ends_at = datetime.now(UTC) + timedelta(days=2, minutes=30)
        CampaignStore(world.engine).create(campaign(offer_ends_at=ends_at))
        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=500_000_000,
            log_to_driver=False,
            runtime_env={"env_vars": services.environment() | {"PYTHONPATH": str(ROOT)}},
        )
        with running_app(services) as client:
            over_http(client, world, given.requests)
        ray.shutdown()
        asyncio.run(receivers(world, 20.0, 200))
        asyncio.run(one_by_one(10_000))
        whole_list(services, world, given.addresses, given.domains)


if __name__ == "__main__":
    main()
