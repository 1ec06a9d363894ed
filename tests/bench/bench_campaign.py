"""Whole campaigns into postfix's smtp-sink, beside what a user would write instead.

    python tests/bench/bench_campaign.py [--recipients 20000] [--grown 200000] [--peer-mails 5000]

Five picks of 10,000 items, caps checked, every delivery durable in the ledger before its DATA, sent
by `reco campaign send`: once scored live, once from fresh precomputed slates, and with --grown once
more to as many subscribers, beside the time and the memory that fewer took. `sending` is from the
first claim to the last accepted mail, `command` from start to end with all its imports.
CPU by process holds on a busy machine too.
"""

import argparse
import asyncio
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}

import psycopg
import ray

from reco.campaigns.campaign import Campaign
from reco.campaigns.ledger import Ledger
from reco.embedded import Services, open_services
from reco.events.lake import Lake
from reco.models.slates import Rung
from reco.settings import Settings
from serve.app_args import AppArgs
from serve.chunks import Choice, Mode, Request
from serve.graph import Graph
from serve.latency import table_name
from serve.running import application
from tests.bench.campaign_world import ITEMS, RECORDS, campaign, more_people, shop, smtp_sink
from tests.bench.cpu_use import watched
from tests.bench.peers_campaign import Rate, plain_script, prebuilt
from train import precompute

ROOT = Path(__file__).resolve().parents[2]
HTML_BYTES = 25_000  # of the plain script's mails


@dataclass(frozen=True, slots=True)
class Sent:
    """What one campaign took."""

    mails: int
    sending_s: float
    command_s: float
    fresh_share: float
    cpu_us: dict[str, float]  # a mail, by process
    memory_mb: dict[str, float]  # of the largest process of each kind

    @property
    def per_s(self) -> float:
        """Mails a second while sending."""
        return self.mails / self.sending_s

    def figures(self) -> dict[str, object]:
        """All of it, for a file."""
        return asdict(self) | {"per_s": self.per_s}


def measured(spec: Campaign, services: Services, address: str) -> Sent:
    """One campaign, told on the terminal stage by stage."""
    file = services.home / f"{spec.id}.yaml"
    file.write_text(spec.model_dump_json())
    env = os.environ | services.environment() | {"RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "reco", "campaign", "send", str(file)]
    begun = time.perf_counter()
    with watched(services.home) as use, first_claim(services.database_url) as claimed_at:
        subprocess.run(command, env=env, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    command_s = time.perf_counter() - begun
    with Ledger(services.database_url) as ledger:
        rows = ledger.rows(spec.id)
    accepted = rows["accepted_at"].drop_nulls()
    assert len(accepted) == len(rows) > 1, rows["state"].value_counts()
    sending_s = (accepted.max() - claimed_at[0]).total_seconds()  # type: ignore[operator, union-attr]
    spent = {kind: us / len(rows) for kind, us in use.cpu_us().items()}
    fresh = float((rows["rung"] == int(Rung.FRESH)).sum()) / len(rows)
    sent = Sent(len(rows), sending_s, command_s, fresh, spent, use.memory_mb())
    size = float(rows["size_bytes"].mean() or 0)  # type: ignore[arg-type]
    told = ", ".join(f"{kind} {us:.0f}" for kind, us in spent.items() if us >= 1)
    print(
        f"{spec.id:12} {fresh:.0%} precomputed; {len(rows)} mails of {size / 1024:.0f} KB; sending "
        f"{sending_s:.1f} s, {sent.per_s:.0f}/s; command {command_s:.1f} s, "
        f"{len(rows) / command_s:.0f}/s\n  CPU {sum(spent.values()):.0f} us a mail: {told}",
        flush=True,
    )
    for stage in Lake(services.lake).read_table(table_name(spec.id)).iter_rows(named=True):
        print(
            f"  {stage['stage']:10} p50 {stage['p50_ms']:7.1f} ms  p95 {stage['p95_ms']:7.1f} ms a "
            f"chunk {stage['mean_recipient_ms'] * 1e3:7.1f} us a recipient"
        )
    return sent


@contextmanager
def first_claim(url: str) -> Iterator[list[datetime]]:
    """Empty, until somebody claims something; then the time of it."""
    found: list[datetime] = []
    ended = threading.Event()

    def look() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            query = "select case when is_called then last_value else 0 end from delivery_fences"
            before = connection.execute(query).fetchone()
            while not found and not ended.wait(0.01):
                if connection.execute(query).fetchone() != before:
                    found.append(datetime.now(UTC))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def some_mails(spec: Campaign, number: int = 64) -> list[bytes]:
    """Whole messages as the campaign sends them; nothing is sent or counted."""
    users = [f"u{i:06d}" for i in range(number)]
    arms = [spec.arms[0].name] * number
    choice, written = Choice.of(spec), spec.model_dump_json().encode()
    request = Request(choice, users, arms, Mode.CHECK, written)
    return asyncio.run(Graph.of_app(15.0).assemble(request)).messages


def ours(services: Services, few: int, many: int) -> tuple[dict[str, object], list[bytes]]:
    """Live, then precomputed; then precomputed for many. Gives some of the mails, too."""
    env = services.environment() | {"PYTHONPATH": str(ROOT)}
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=500_000_000,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": env},
    )
    address = ray.get_runtime_context().gcs_address
    found: dict[str, object] = {}
    precomputed(services)
    with application(AppArgs(home=services.home)):
        warm = {"users": [f"u{i:06d}" for i in range(600)]}
        measured(campaign(services, "warm", audience=warm), services, address)
        # Live first: what its scores take of memory is no growth of the campaigns after it.
        live = measured(campaign(services, "live", live=True), services, address)
        small = measured(campaign(services, "precomputed"), services, address)
        found |= {"precomputed": small.figures(), "live": live.figures()}
        mails = some_mails(campaign(services, "precomputed"))
        if many:
            more_people(services, few, many)
            precomputed(services)
            large = measured(campaign(services, "grown"), services, address)
            found |= {"grown": large.figures(), "growth": growth(small, large)}
    ray.shutdown()
    return found, mails


def precomputed(services: Services) -> None:
    """Everybody's slates, anew."""
    made = precompute.run(services, Lake(services.lake), lambda *_: None)
    print(f"precompute   {made.subscribers} subscribers in {made.seconds} s", flush=True)


def growth(small: Sent, large: Sent) -> dict[str, object]:
    """How much more time and memory the larger one took."""
    times = large.sending_s / small.sending_s
    print(
        f"growth       {large.mails / small.mails:.1f} times the mails took {times:.1f} times as "
        f"long (the command {large.command_s / small.command_s:.1f} times)"
    )
    grown = {}
    for kind in sorted(small.memory_mb.keys() & large.memory_mb.keys()):
        before, after = small.memory_mb[kind], large.memory_mb[kind]
        grown[kind] = after / before - 1 if before else 0.0
        print(f"  {kind:12} {before:7.0f} MB -> {after:7.0f} MB  {grown[kind]:+.1%}")
    return {"times": times, "memory": grown}


def told_stock(whose: str, rate: Rate, mails: Sequence[bytes]) -> None:
    """Print what one stock aiosmtplib process did with mails that were built before."""
    size = sum(map(len, mails)) / len(mails) / 1024
    print(
        f"aiosmtplib   {rate.per_s:.0f}/s of {whose} mails, prebuilt, {size:.0f} KB; "
        f"{rate.cpu_us:.0f} us CPU a mail",
        flush=True,
    )


def main() -> None:
    """Print everything; `--json` keeps the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipients", type=int, default=20_000)
    parser.add_argument("--peer-mails", type=int, default=5_000)
    parser.add_argument(
        "--grown", type=int, default=200_000, help="subscribers of one more campaign"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print(f"{args.recipients} recipients, {ITEMS} items, {RECORDS} purchases each", flush=True)
    home = Path(tempfile.mkdtemp(prefix="reco-bench-"))
    with open_services(Settings(home=home)) as services, smtp_sink() as port:
        shop(services, args.recipients)
        found: dict[str, object] = {}
        if args.peer_mails:
            plain = plain_script(port, services.redis_url, args.peer_mails, ITEMS, HTML_BYTES)
            print(f"plain script {plain.per_s:.0f}/s, {plain.cpu_us:.0f} us CPU a mail", flush=True)
            stock = prebuilt(port, args.peer_mails, plain.mails)
            told_stock("the script's", stock, plain.mails)
            found |= {"plain": plain.per_s, "stock": stock.per_s}
        with_sink = replace(services, smtp_url=f"smtp://127.0.0.1:{port}", outbox=None)
        measured_ours, mails = ours(with_sink, args.recipients, args.grown)
        found |= measured_ours
        if args.peer_mails:  # once more with the bytes that were sent above, when Ray has stopped
            stock_ours = prebuilt(port, args.peer_mails, mails)
            told_stock("reco's own", stock_ours, mails)
            found |= {"stock_ours": stock_ours.per_s}
        if args.json:
            args.json.write_text(json.dumps(found, indent=1))
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"took {time.perf_counter() - started:.0f} s")
