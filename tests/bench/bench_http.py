"""Single sends and recommendations over HTTP: 64 connections that ask as soon as they are answered.

    python tests/bench/bench_http.py [--connections 64] [--seconds 15] [--stock] [--json F]

Each send is one mail of its own through graph and ledger into postfix's smtp-sink, from a shop of
10,000 items; the load generator is a process on the same cores. First everybody is scored live,
then slates are precomputed, as they are in production. HAProxy and Ray Serve's throughput flags are
on unless --stock. The bar is 500 sends/s with p95 under 100 ms; each line of sends says whether it
holds.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
os.environ |= {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0"}
os.environ |= {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}  # a busy machine starts slowly
# Read when ray.serve is imported, here and in every process of it.
os.environ |= {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "0" if "--stock" in sys.argv else "1"}
os.environ |= {"RAY_SERVE_ENABLE_HA_PROXY": "0" if "--stock" in sys.argv else "1"}
os.environ |= {} if "--stock" in sys.argv else {"RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "1"}

import ray
from ray import serve

from reco.campaigns.ledger import Ledger
from reco.embedded import open_services
from reco.events.lake import Lake
from reco.settings import Settings
from tests.bench.campaign_world import ITEMS, campaign, shop, smtp_sink
from tests.bench.cpu_use import watched
from tests.bench.http_world import served, stored
from tests.bench.load import Plan, load
from tests.serving import free_port
from train import precompute

BAR_PER_S, BAR_P95_MS = 500, 100
SEND = '{"campaign_id": "CAMPAIGN", "user_id": "{user}", "key": "n{i}"}'
RECOMMEND = '{"users": ["{user}"], "k": 5}'


def measured(kind: str, plan: Plan, home: Path) -> dict[str, object]:
    """A load and the CPU time of all processes for one of its requests, printed."""
    with watched(home) as use:
        found = load(plan)
    cpu_us = {kind: us / found.all_answers for kind, us in use.cpu_us().items()}
    name = f"{plan.path} {kind}"
    print(
        f"{name:25} {found.per_s:7.1f} requests/s, p50 {found.p50_ms} ms, p95 {found.p95_ms} ms, "
        f"p99 {found.p99_ms} ms; {found.answers} answers, {found.refused} refused, "
        f"{found.lost} lost",
        flush=True,
    )
    parts = ", ".join(f"{kind} {us:.0f}" for kind, us in cpu_us.items() if us >= 5)
    print(f"  {sum(cpu_us.values()):.0f} us CPU a request: {parts}", flush=True)
    if plan.path == "/v1/send":
        holds = found.per_s >= BAR_PER_S and found.p95_ms < BAR_P95_MS
        bar = f"{BAR_PER_S}/s with p95 under {BAR_P95_MS} ms"
        print(f"  {bar}: {'holds' if holds else 'does not hold'}", flush=True)
    return asdict(found) | {"cpu_us": cpu_us}


def main() -> None:
    """Print all loads; `--json` keeps the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--subscribers", type=int, default=20_000)
    parser.add_argument("--stock", action="store_true", help="Ray Serve as it comes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(
        f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"ray {ray.__version__}, fastapi {version('fastapi')}, load {os.getloadavg()[0]:.1f}"
    )
    kind = "stock Ray Serve" if args.stock else "HAProxy, throughput flags"
    print(f"{kind}; {args.connections} connections, {ITEMS} items", flush=True)
    home, port = Path(tempfile.mkdtemp(prefix="reco-bench-")), free_port()
    with open_services(Settings(home=home)) as plain, smtp_sink() as sink:
        shop(plain, args.subscribers)
        services = replace(plain, smtp_url=f"smtp://127.0.0.1:{sink}")
        served(services, port)
        for kind in ("live", "precomputed"):
            stored(services, port, campaign(services, kind))
        asks = Plan(port, "", plain.api_key, "", args.subscribers, args.connections, args.seconds)
        found: dict[str, object] = {}
        for kind, behind in (("live", ""), ("precomputed", "_precomputed")):
            if kind == "precomputed":
                precompute.run(services, Lake(services.lake), lambda *_: None)
            recommend = replace(asks, path="/v1/recommend", body=RECOMMEND)
            found[f"recommend{behind}"] = measured(kind, recommend, home)
            send = replace(asks, path="/v1/send", body=SEND.replace("CAMPAIGN", kind))
            found[f"send{behind}"] = measured(kind, send, home)
        with Ledger(plain.database_url) as ledger:
            for kind in ("live", "precomputed"):
                states = {state: n for state, n in ledger.counts(kind).items() if n}
                print(f"ledger        {kind}: {states}")
        serve.shutdown()
        ray.shutdown()
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"took {time.perf_counter() - started:.0f} s")
