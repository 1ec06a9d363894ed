"""Stages of the graph, and a whole campaign into postfix's smtp-sink, on this machine.

    .venv/bin/python tests/bench/bench_graph.py [recipients]

Prints milliseconds a chunk of 256 and microseconds a recipient by stage, then mails/s of a
campaign. No model is loaded, the ladder fills the slates: the price of everything but the scores.
"""

import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}

import ray

from reco.embedded import open_services
from reco.settings import Settings
from serve.app_args import AppArgs
from serve.campaign import run
from serve.chunks import Choice, Mode, Request
from serve.running import application
from tests.serving import free_port
from tests.small_world import World, campaign, small_world
from tests.stages import Stages

CHUNK = 256
ROUNDS = 12
SINK = shutil.which("smtp-sink") or "/usr/sbin/smtp-sink"
RULES = {"frequency_cap": {"times": 5, "days": 7}, "max_per_category": 3}


def stages(world: World) -> None:
    """Each plain stage, warm, without Ray."""
    spec = campaign(picks=3, rules=RULES)
    graph = Stages(world)
    users = [f"x{i:04d}" for i in range(CHUNK)]
    request = Request(
        Choice.of(spec), users, ["personal"] * CHUNK, Mode.SEND, spec.model_dump_json().encode()
    )
    took: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for stage, ms in graph.assemble(request).took_ms.items():
            took.setdefault(stage, []).append(ms)
    for stage, times in took.items():
        median = statistics.median(times[2:])
        print(f"{stage:10} {median:8.2f} ms a chunk {median / CHUNK * 1e3:8.1f} us a recipient")


def whole(world: World) -> None:
    """A campaign through Ray Serve, ledger and SMTP."""
    port = free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [SINK, *user, "-c", f"127.0.0.1:{port}", "100"]
    sink = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        services = replace(world.services, smtp_url=f"smtp://127.0.0.1:{port}")
        with application(AppArgs(home=services.home)):
            run(campaign("warm", audience={"users": ["u05"]}), services, senders=1)
            summary = run(campaign("bench", picks=3, rules=RULES), services)
    finally:
        sink.terminate()
        sink.wait()
    print(
        f"campaign   {summary.accepted} mails in {summary.took_s} s: {summary.mails_per_s} a second"
    )
    for stage in summary.latency:
        print(
            f"{stage.stage:10} p50 {stage.p50_ms:8.1f} ms  p95 {stage.p95_ms:8.1f} ms  "
            f"{stage.mean_recipient_ms * 1e3:8.1f} us a recipient"
        )


def main() -> None:
    """Run both."""
    recipients = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    home = Path(tempfile.mkdtemp(prefix="reco-bench-"))
    with open_services(Settings(home=home)) as services, small_world(services, recipients) as world:
        stages(world)
        if not Path(SINK).exists():
            print("campaign   skipped: smtp-sink (package postfix) is not installed")
            return
        env = services.environment() | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        ray.init(
            address="local",
            object_store_memory=500_000_000,
            log_to_driver=False,
            runtime_env={"env_vars": env},
        )
        whole(world)
        ray.shutdown()
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"took {time.perf_counter() - started:.0f} s")
