"""Whole campaigns into postfix's smtp-sink, beside what a user would write instead.

    python tests/bench/bench_campaign.py [--recipients 20000] [--peer-mails 5000]

Five picks of 10,000 items, caps checked, every delivery durable in the ledger before its DATA:
once from fresh precomputed slates, once scored live. The rate of sending is over the time between
the first and the last accepted mail; `run` counts the start of the senders too.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}

import ray

from reco.campaigns.campaign import Campaign
from reco.campaigns.ledger import Ledger
from reco.embedded import Services, open_services
from reco.events.lake import Lake
from reco.models.slates import Rung
from reco.settings import Settings
from serve.app import AppArgs
from serve.campaign import run
from serve.running import application
from tests.bench.campaign_world import ITEMS, RECORDS, campaign, shop, smtp_sink
from tests.bench.cpu_use import watched
from tests.bench.peers_campaign import plain_script, prebuilt
from train import precompute

ROOT = Path(__file__).resolve().parents[2]
HTML_BYTES = 25_000  # of the plain script's mails


def measured(spec: Campaign, services: Services, senders: int) -> dict[str, object]:
    """One campaign, told on the terminal stage by stage."""
    with watched(services.home) as use:
        summary = run(spec, services, senders=senders)
    with Ledger(services.database_url) as ledger:
        rows = ledger.rows(spec.id)
    accepted = rows["accepted_at"].drop_nulls().sort()
    assert len(accepted) == summary.accepted > 1
    sending_s = (accepted[-1] - accepted[0]).total_seconds()
    sent_per_s = summary.accepted / max(sending_s, 1e-9)
    size = float(rows["size_bytes"].mean() or 0)  # type: ignore[arg-type]
    fresh = float((rows["rung"] == int(Rung.FRESH)).mean() or 0)  # else the label would mislead
    print(
        f"{spec.id:12} {fresh:.0%} precomputed; {summary.accepted} mails of "
        f"{size / 1024:.0f} KB, sending {sent_per_s:.0f}/s; run {summary.took_s} s, "
        f"{summary.mails_per_s:.0f}/s",
        flush=True,
    )
    for stage in summary.latency:
        print(
            f"  {stage.stage:10} p50 {stage.p50_ms:7.1f} ms  p95 {stage.p95_ms:7.1f} ms a chunk "
            f"{stage.mean_recipient_ms * 1e3:7.1f} us a recipient"
        )
    spent = {kind: us / summary.accepted for kind, us in use.cpu_us().items()}
    told = ", ".join(f"{kind} {us:.0f}" for kind, us in spent.items() if us >= 1)
    print(f"  CPU {sum(spent.values()):.0f} us a mail: {told}", flush=True)
    return {
        "mails": summary.accepted,
        "cpu_us": spent,
        "fresh_share": fresh,
        "per_s": sent_per_s,
        "run_per_s": summary.mails_per_s,
    }


def ours(services: Services, senders: int) -> dict[str, object]:
    """Precomputed, then live."""
    found: dict[str, object] = {}
    env = services.environment() | {"PYTHONPATH": str(ROOT)}
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=500_000_000,
        log_to_driver=False,
        runtime_env={"env_vars": env},
    )
    made = precompute.run(services, Lake(services.lake), lambda *_: None)
    print(f"precompute   {made.subscribers} subscribers in {made.seconds} s", flush=True)
    with application(AppArgs(home=services.home)):
        warm = campaign(services, "warm", audience={"users": [f"u{i:06d}" for i in range(600)]})
        run(warm, services, senders=1)
        found["precomputed"] = measured(campaign(services, "precomputed"), services, senders)
        found["live"] = measured(campaign(services, "live", live=True), services, senders)
    ray.shutdown()
    return found


def main() -> None:
    """Print everything; `--json` keeps the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipients", type=int, default=20_000)
    parser.add_argument("--peer-mails", type=int, default=5_000)
    parser.add_argument("--senders", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print(f"{args.recipients} recipients, {ITEMS} items, {RECORDS} purchases each", flush=True)
    home = Path(tempfile.mkdtemp(prefix="reco-bench-"))
    with open_services(Settings(home=home)) as services, smtp_sink() as port:
        shop(services, args.recipients)
        found: dict[str, object] = {}
        plain = plain_script(port, services.redis_url, args.peer_mails, ITEMS, HTML_BYTES)
        print(f"plain script {plain.per_s:.0f}/s, {plain.cpu_us:.0f} us CPU a mail", flush=True)
        stock = prebuilt(port, args.peer_mails, plain.mails)
        print(f"aiosmtplib   {stock.per_s:.0f}/s of prebuilt mails, {stock.cpu_us:.0f} us CPU")
        found |= {"plain": plain.per_s, "stock": stock.per_s}
        with_sink = replace(services, smtp_url=f"smtp://127.0.0.1:{port}")
        found |= ours(with_sink, args.senders)
        if args.json:
            args.json.write_text(json.dumps(found, indent=1))
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"took {time.perf_counter() - started:.0f} s")
