"""`reco stream` as a Ray job, with more consumers while they lag: what it printed and exported.

The bus is filled first, so that one consumer lags; the job ends when nothing waits any more.
"""

import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import ray

from reco.embedded import open_services
from reco.events.bus import open_bus
from reco.events.lake import Lake
from reco.settings import Settings
from tests.bench.stream_world import ROOT

METRIC: Final = re.compile(r"^ray_(reco_(?:stream|feature)\w+)\{([^}]*)\} (\S+)", re.M)
LOOK_S: Final = 3.0
SAID: Final = ("consumers by lag", '"messages"', "succeeded", "failed")  # lines of the job to show


def job(sent: list[tuple[int, bytes]]) -> None:
    """Submit the job as README says, and wait for it."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with (
        TemporaryDirectory(prefix="reco-bench-") as folder,
        open_services(Settings(home=Path(folder, "home"))) as services,
    ):
        os.environ |= services.environment()  # as `ray start --head` on this machine would have it
        context = ray.init(
            address="local", num_cpus=2, object_store_memory=500_000_000, log_to_driver=False
        )
        try:
            bus = open_bus(services.bus_url, Lake(services.lake).buckets)
            for start in range(0, len(sent), 1_000):
                bus.append(sent[start : start + 1_000])
            command = [
                str(Path(sys.executable).with_name("ray")), "job", "submit",
                "--address", f"http://{context.dashboard_url}", "--working-dir", str(ROOT),
                "--", sys.executable, "-m", "reco", "stream", "--drain", "--most", "2", "--json",
            ]  # fmt: skip
            with _metrics():
                done = subprocess.run(command, capture_output=True, text=True)
            for line in (done.stdout + done.stderr).splitlines():
                if any(words in line for words in SAID):
                    print(line)
            rows = Lake(services.lake).manifest().rows()
            print(f"`reco stream --drain` as a Ray job: {rows:,} of {len(sent):,} in the lake")
            assert rows == len(sent)
        finally:
            ray.shutdown()


@contextmanager
def _metrics() -> Iterator[None]:
    """Print what the job exports, whenever it changes."""
    (node, *_) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    over, began = threading.Event(), time.perf_counter()
    last: dict[Any, str] = {}

    def watch() -> None:
        while not over.wait(LOOK_S):
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    text = answer.read().decode()
            except OSError:
                continue
            for name, labels, value in METRIC.findall(text):
                given = dict(re.findall(r'(\w+)="([^"]*)"', labels))
                key = (name, given.get("WorkerId", "")[:6], given.get("result", ""))
                if last.get(key) != value:
                    last[key] = value
                    print(f"{time.perf_counter() - began:5.0f} s", *key, value, flush=True)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
