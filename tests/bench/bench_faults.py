"""Single sends while the Scorer or Redis is dead, or hangs: every mail goes out, in time.

    python tests/bench/bench_faults.py [--seconds 6] [--json F]

The processes are really stopped (SIGSTOP) and killed (SIGKILL) under load from 8 connections. A
time is allowed: the budgets of the stages that ask what is broken, plus 100 ms. No mail may be
missing, and none may have an empty place; the ledger says from which rung the items came.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
os.environ |= {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0"}
os.environ |= {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}  # a busy machine starts slowly
os.environ |= {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"}

import polars as pl
import psutil
import ray
from ray import serve

from reco.campaigns.ledger import Ledger
from reco.embedded import Services, connect_redis, open_services
from reco.models.slates import Rung
from reco.settings import Settings
from serve.app_args import AppArgs
from tests.bench.campaign_world import campaign, shop, smtp_sink
from tests.bench.http_world import ask, served, stored
from tests.bench.load import Answered, Plan, load
from tests.serving import free_port

SCORER_MS = 1e3 * AppArgs().door_budget_s
REDIS_MS = 1e3 * 2 * Settings().redis_timeout_s  # Features asks it, and Rules
PICKS = 5


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to which process before the load, and after it."""

    name: str
    budget_ms: float
    of: Callable[[Services], int] | None = None
    before: signal.Signals = signal.SIGSTOP
    after: signal.Signals | None = signal.SIGCONT


def scorer(_: Services) -> int:
    """Process of the Scorer's replica."""
    family = psutil.Process().children(recursive=True)
    return next(p.pid for p in family if "ServeReplica:default:Scorer" in " ".join(p.cmdline()))


def store(services: Services) -> int:
    """Process of the embedded Valkey."""
    return int(connect_redis(services.redis_url).info("server")["process_id"])


FAULTS = (
    Fault("none", 0.0),
    Fault("scorer hangs", SCORER_MS, scorer),
    Fault("scorer killed", SCORER_MS, scorer, signal.SIGKILL, None),
    Fault("Redis hangs", REDIS_MS, store),
    Fault("Redis killed", REDIS_MS, store, signal.SIGKILL, None),
)


def whole(services: Services, plan: Plan) -> None:
    """Wait until nothing is broken any more. Ends the program when that takes too long."""
    for _ in range(120):
        if not preview(services, plan.port, fault_id(FAULTS[0]))["fallback"]:
            return
        time.sleep(0.5)
    sys.exit("The graph does not recover.")


def preview(services: Services, port: int, campaign_id: str) -> dict[str, str]:
    """A mail and the reasons for its picks."""
    body: dict[str, object] = {"campaign_id": campaign_id, "user_id": "u000001"}
    found: dict[str, str] = ask(services, port, "/v1/preview", body).json()
    return found


def measured(fault: Fault, services: Services, plan: Plan) -> tuple[Answered, str]:
    """The load under a fault, and the reason that a preview gives for its picks."""
    whole(services, plan)
    pid = fault.of(services) if fault.of else 0
    if pid:
        os.kill(pid, fault.before)
    try:
        found = load(plan)
        reason = preview(services, plan.port, fault_id(fault))["fallback"]
    finally:
        if pid and fault.after is not None:
            os.kill(pid, fault.after)
    return found, reason


def fault_id(fault: Fault) -> str:
    """Id of the campaign that is sent meanwhile."""
    return fault.name.lower().replace(" ", "-")


def told(fault: Fault, found: Answered, reason: str, rows: pl.DataFrame) -> dict[str, object]:
    """Print a line; ends the program when a mail is missing or has an empty place."""
    allowed = fault.budget_ms + 100
    rungs = {Rung(r).name.lower(): n for r, n in rows.group_by("rung").len().sort("rung").rows()}
    print(
        f"{fault.name:14} {found.per_s:6.1f} mails/s, p50 {found.p50_ms:6.1f} ms, p95 "
        f"{found.p95_ms:6.1f} ms (allowed {allowed:.0f}); {found.answers} answers, "
        f"{found.refused} refused, {found.lost} lost, lowest rungs {rungs}, why: {reason or '-'}",
        flush=True,
    )
    complete = (rows["state"] == "accepted").all() and (rows["items"].list.len() == PICKS).all()
    if found.refused or found.lost or not complete:
        sys.exit(f"A mail is missing or has an empty place: {rows['state'].value_counts()}")
    return {"p95_ms": found.p95_ms, "allowed_ms": allowed, "mails": found.answers, "why": reason}


def main() -> None:
    """Print a line a fault; `--json` keeps the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--subscribers", type=int, default=5_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(
        f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"ray {ray.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    home, port, kept = Path(tempfile.mkdtemp(prefix="reco-bench-")), free_port(), {}
    with open_services(Settings(home=home)) as plain, smtp_sink() as sink:
        shop(plain, args.subscribers)
        services = replace(plain, smtp_url=f"smtp://127.0.0.1:{sink}")
        served(services, port)
        for fault in FAULTS:
            stored(services, port, campaign(services, fault_id(fault), picks=PICKS))
        for fault in FAULTS:
            body = json.dumps({"campaign_id": fault_id(fault), "user_id": "{user}", "key": "n{i}"})
            plan = Plan(port, "/v1/send", plain.api_key, body, args.subscribers, args.connections)
            found, reason = measured(fault, plain, replace(plan, seconds=args.seconds, warm_s=1))
            with Ledger(plain.database_url) as ledger:
                kept[fault.name] = told(fault, found, reason, ledger.rows(fault_id(fault)))
        serve.shutdown()
        ray.shutdown()
    if args.json:
        args.json.write_text(json.dumps(kept, indent=1))
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
