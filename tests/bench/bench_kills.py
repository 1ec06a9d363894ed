"""A campaign while everything around it is killed, again and again, with SIGKILL.

    python tests/bench/bench_kills.py [--recipients 20000] [--kills 50] [--seed 1]

Real processes: a cluster of two nodes, `reco serve` in it, `reco campaign send` as its driver, a
recording SMTP server, PostgreSQL, and a Valkey. As the campaign goes on, senders, replicas, drivers
and the Valkey die at random; once each a raylet with all on its node, and the HTTP proxy. A driver
that ended is started again (`reco campaign resume`), as a supervisor would; so is the Valkey.
Afterwards nobody may have two mails, everybody is in a final state, and no more are uncertain than
the killed senders can have had in their hands.
"""

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
os.environ |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}

import httpx
import yaml
from pydantic import SecretStr

from reco.campaigns.delivery import FINAL
from reco.campaigns.ledger import Ledger
from reco.embedded import Services, open_services
from reco.processes import Running, free_port, stop
from reco.servers import Valkey, await_ready, valkey_binary
from reco.settings import Settings
from serve.outgoing import GROUP
from serve.sender import IN_FLIGHT
from tests.bench.cluster import running_cluster
from tests.bench.cpu_use import family
from tests.small_world import MAILED, USERS, campaign, small_world
from tests.smtpd import SmtpSink, running_sink

ROOT: Final = Path(__file__).resolve().parents[2]
NAME: Final = "kills"
SENDERS: Final = 2
WINDOW: Final = IN_FLIGHT * GROUP  # mails that one sender has handed off and not settled
LIMIT_S: Final = 1_800.0
# What is killed, by its command line, and how often compared with the others.
TARGETS: Final = {
    "sender": (r"ray::SenderActor", 6),
    "replica": (r"ray::ServeReplica:\w+:(Features|Scorer|Rules|Renderer)", 6),
    "driver": (r"reco campaign", 2),
    "valkey": (r"valkey", 2),
    "proxy": (r"ray::ProxyActor|haproxy", 0),
    "raylet": (r"raylet/raylet ", 0),
}
ONCE: Final = ("proxy", "raylet")


@dataclass(slots=True)
class Field:
    """The processes of the run, and who was killed."""

    services: Services
    address: str
    sink: SmtpSink
    valkey: Valkey
    store: Running
    log: IO[bytes]
    driver: subprocess.Popen[bytes] | None = None
    killed: Counter[str] = field(default_factory=Counter)
    drivers: int = 0

    def environment(self) -> dict[str, str]:
        """Of every command."""
        return {**os.environ, **self.services.environment(), "RAY_ADDRESS": self.address}

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Run a command of reco."""
        return subprocess.Popen(
            [sys.executable, "-m", "reco", *words],
            env=self.environment(),
            cwd=ROOT,
            stdout=self.log,
            stderr=self.log,
        )

    def kill(self, kind: str) -> bool:
        """Kill one process of a kind, when there is one."""
        pids = family(str(self.services.home), TARGETS[kind][0])
        if kind == "valkey":
            pids = [self.store.pid]
        if kind == "raylet":
            pids = pids[1:]  # the head holds the cluster's memory; the nodes are what fails
        if not pids:
            return False
        pid = pids[-1] if kind == "raylet" else random.choice(pids)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.killed[kind] += 1
        if kind == "valkey":
            self._revive()
        return True

    def _revive(self) -> None:
        """The Valkey comes back on its port, as a supervisor would see to."""
        time.sleep(0.3)
        self.store = self.valkey.start(self.store.port)
        await_ready(self.valkey, self.store)

    def drive(self, file: Path) -> bool:
        """See that a driver is at work; whether the campaign is over."""
        if self.driver is None or self.driver.poll() is not None:
            if self.driver is not None and self.driver.returncode == 0 and self.is_over():
                return True
            words = ("resume", NAME) if self.drivers else ("send", str(file))
            self.driver = self.start("campaign", *words)
            self.drivers += 1
        return False

    def counts(self) -> dict[str, int]:
        """Deliveries by state."""
        with Ledger(self.services.database_url) as ledger:
            return ledger.counts(NAME)

    def ended(self) -> int:
        """Deliveries in a final state."""
        return sum(n for state, n in self.counts().items() if state in FINAL)

    def is_over(self) -> bool:
        """Whether everybody is in a final state."""
        return 0 < self.ended() == sum(self.counts().values())


@contextmanager
def prepared(recipients: int, folder: Path, log: IO[bytes]) -> Iterator[Field]:
    """Everything up, and the application ready."""
    valkey = Valkey(folder / "own-valkey", secrets.token_hex(8), valkey_binary())
    store = valkey.start(free_port())
    await_ready(valkey, store)
    settings = Settings(home=folder / "home", redis_url=SecretStr(valkey.url(store)))
    with open_services(settings) as opened, running_sink() as sink:
        services = replace(opened, smtp_url=sink.url, outbox=None)
        with small_world(services, recipients - len(USERS)):
            environment = {**os.environ, **services.environment(), "PYTHONPATH": str(ROOT)}
            with running_cluster(2, environment) as address:
                found = Field(services, address, sink, valkey, store, log)
                port = free_port()
                application = found.start("serve", str(_config(folder, port)))
                try:
                    _await_application(port)
                    yield found
                finally:
                    for process in (found.driver, application):
                        if process is not None:
                            process.kill()
                            process.wait()
                    stop(found.store, valkey.stop_signal)


def _config(folder: Path, port: int) -> Path:
    """The configuration of the repository, on this port and without gRPC."""
    config = yaml.safe_load((ROOT / "configs" / "serve.yaml").read_text())
    config["http_options"]["port"] = port
    config.pop("grpc_options", None)
    file = folder / "serve.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def _await_application(port: int) -> None:
    """A driver that came first would start Ray Serve without HTTP, and there were no proxy."""
    for _ in range(240):
        with suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/healthz").is_success:
                return
        time.sleep(0.5)
    raise SystemExit("The application does not come up: is the machine too busy?")


def run(found: Field, recipients: int, kills: int, draw: random.Random) -> None:
    """Kill as the campaign goes on, the same number in each stretch of it."""
    file = found.services.home / "kills.yaml"
    file.write_text(campaign(NAME).model_dump_json())
    kinds, weights = zip(*((kind, TARGETS[kind][1]) for kind in TARGETS), strict=True)
    plan = draw.choices(kinds, weights, k=kills - len(ONCE))
    for kind in ONCE:
        plan.insert(draw.randrange(len(plan) // 4, len(plan)), kind)
    begun = time.monotonic()
    while not found.drive(file):
        if time.monotonic() - begun > LIMIT_S:
            raise SystemExit(f"not over after {LIMIT_S:.0f} s: {found.counts()}")
        done = sum(found.killed.values())
        if done < kills and (ended := found.ended()) >= recipients * done / (kills + 1) + 1:
            kind = plan[done]
            if found.kill(kind):
                at = time.monotonic() - begun
                print(f"{at:6.1f} s  {ended:6d} deliveries ended  killed: {kind}", flush=True)
        time.sleep(0.05)


def judge(found: Field, recipients: int, kills: int) -> dict[str, object]:
    """What became of everybody. Raises AssertionError when a promise is broken."""
    with Ledger(found.services.database_url) as ledger:
        rows = ledger.rows(NAME)
    states = Counter(rows["state"].to_list())
    arrived = Counter(message.rcpt_to.partition("@")[0] for message in found.sink.messages)
    mailable = len(MAILED) + recipients - len(USERS)
    # A driver's senders die with it, and a node's with the node.
    dead = found.killed["sender"] + SENDERS * (found.killed["driver"] + found.killed["raylet"])
    told = {
        "audience": len(rows),
        "states": dict(states),
        "arrived": len(arrived),
        "twice": sum(n > 1 for n in arrived.values()),
        "uncertain_but_arrived": len(arrived) - states["accepted"],
        "killed": dict(found.killed),
        "drivers": found.drivers,
        "uncertain_at_most": dead * WINDOW,
    }
    print(json.dumps(told, indent=1))
    assert found.killed.total() == kills, "the campaign was over before the last kill"
    assert len(rows) == recipients
    assert all(state in FINAL for state in states), states
    assert told["twice"] == 0, "somebody has two mails"
    assert states["uncertain"] <= dead * WINDOW, states
    assert states["accepted"] <= len(arrived) <= states["accepted"] + states["uncertain"]
    assert states["accepted"] + states["uncertain"] == mailable, states
    return told


def main() -> None:
    """Print every kill and the end; `--json` keeps it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipients", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(f"{args.recipients} recipients, {args.kills} kills, --seed {args.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="reco-kills-"))
    random.seed(args.seed)
    began = time.perf_counter()
    with (folder / "commands.log").open("wb") as log, prepared(args.recipients, folder, log) as it:
        run(it, args.recipients, args.kills, random.Random(args.seed))
        told = judge(it, args.recipients, args.kills)
    took_s = round(time.perf_counter() - began)
    print(f"nobody twice, nobody lost, {took_s} s")
    if args.json:
        args.json.write_text(json.dumps(told | {"seed": args.seed, "took_s": took_s}, indent=1))
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
