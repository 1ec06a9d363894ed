"""Where the microseconds of a mail go, stage by stage, by py-spy.

    python tests/bench/bench_profile.py [--chunks 40] [--json F]

One process takes chunks of 256 through every stage of a campaign (features, live scores against
10,000 items, rules and caps, render, MIME, ledger, SMTP into smtp-sink) without Ray. py-spy samples
it; a sample belongs to the innermost stage on its stack, and CPU time is shared out by samples.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import uvloop

from reco.campaigns.campaign import Campaign
from reco.campaigns.delivery import Settled, State
from reco.campaigns.ledger import Ledger
from reco.campaigns.smtp import SmtpPool
from reco.database import open_database
from reco.embedded import Services, connect_redis, open_services
from reco.features.online import OnlineStore
from reco.models.scorer import Scorer
from reco.settings import Settings
from serve.chunks import Assembled, Choice, Request
from serve.driving import hand_offs
from tests.bench.campaign_world import ITEMS, campaign, shop, smtp_sink
from tests.model_world import catalogue_of
from tests.small_world import World
from tests.stages import Stages

CHUNK: Final = 256
WARM: Final = 4  # chunks
CONNECTIONS: Final = 8
# In the order of a mail: budget in microseconds, and what is the stage's own on a stack.
STAGES: Final = {
    "features": ("2", ("serve/reading.py", "serve/segments.py")),
    "score": ("15-60", ("serve/scoring.py",)),
    "rules": ("20", ("serve/picking.py",)),
    "render": ("40-60", ("serve/assembling.py",)),
    "MIME": ("60-120", ("render/message.py", "render/headers.py", "render/dkim.py")),
    "ledger": ("30", ("reco/campaigns/ledger.py", "hand_offs (", "_durable (")),
    "SMTP": ("150-330", ("_sent (", "reco/campaigns/smtp")),
}
COUNTED: Final = "_counted ("


@dataclass(frozen=True, slots=True)
class Line:
    """A warm campaign."""

    stages: Stages
    spec: Campaign
    ledger: Ledger
    port: int


def _counted(line: Line, numbers: range) -> None:
    """The chunks that count: this function is on their stacks."""
    _chunks(line, numbers)


def _chunks(line: Line, numbers: range) -> None:
    spec, ledger = line.spec, line.ledger
    body, choice = spec.model_dump_json().encode(), Choice.of(spec)
    for number in numbers:
        users = [f"u{i:06d}" for i in range(number * CHUNK, (number + 1) * CHUNK)]
        request = Request(choice, users, ["personal"] * CHUNK, campaign=body)
        assembled = line.stages.assemble(request)
        fence = _durable(ledger, spec.id, users, assembled)
        outcomes = uvloop.run(_sent(assembled, line.port))
        ledger.settle(spec.id, fence, outcomes)


def _durable(ledger: Ledger, campaign_id: str, users: list[str], assembled: Assembled) -> int:
    ledger.enqueue(campaign_id, [(user, "personal") for user in users])
    fence = ledger.claim(campaign_id, CHUNK).fence
    ledger.hand_off(campaign_id, fence, hand_offs(assembled, range(len(assembled))))
    return fence


async def _sent(assembled: Assembled, port: int) -> list[Settled]:
    async with SmtpPool(f"smtp://127.0.0.1:{port}", CONNECTIONS, CHUNK) as pool:
        mails = zip(assembled.addresses, assembled.messages, strict=True)
        sends = [pool.send("news@shop.example", to, message) for to, message in mails]
        replies = await asyncio.gather(*sends)
    settled = zip(assembled.deliveries, replies, strict=True)
    return [Settled(delivery, State.ACCEPTED, reply) for delivery, reply in settled]


def work(chunks: int, told: Path) -> None:
    """What py-spy watches: everything is warm when it begins to count."""
    torch.set_num_threads(1)  # as in a replica
    home = Path(tempfile.mkdtemp(prefix="reco-bench-"))
    with open_services(Settings(home=home)) as services, smtp_sink() as port:
        shop(services, (chunks + WARM) * CHUNK)
        with closing(connect_redis(services.redis_url)) as client:
            stages = _stages(services, OnlineStore(client))
            with Ledger(services.database_url) as ledger:
                line = Line(stages, campaign(services, "profile", live=True), ledger, port)
                _chunks(line, range(WARM))
                began = process_time()
                _counted(line, range(WARM, WARM + chunks))
                told.write_text(json.dumps(process_time() - began))


def _stages(services: Services, online: OnlineStore) -> Stages:
    catalogue = catalogue_of(ITEMS)
    stages = Stages(World(services, open_database(services.database_url), catalogue, online))
    stages.scoring.swap(Scorer.load(str(services.home / "bench"), catalogue))
    return stages


def shares(stacks: str) -> dict[str, float]:
    """Share of the counted samples by stage; "other" for what is no stage's."""
    found: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, samples = line.rpartition(" ")
        if COUNTED in frames:
            found[_stage(frames.split(";"))] += int(samples)
    return {name: found[name] / found.total() for name in [*STAGES, "other"]}


def _stage(frames: list[str]) -> str:
    """The innermost stage on a stack, the outermost frame first."""
    for frame in reversed(frames):
        for name, (_, marks) in STAGES.items():
            if any(mark in frame for mark in marks):
                return name
    return "other"


def main() -> None:
    """Print microseconds of CPU a mail by stage; `--json` keeps them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=40)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--inner", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inner:
        work(args.chunks, args.inner)
        return
    sampler = Path(sys.executable).with_name("py-spy")
    if not sampler.exists():
        sys.exit("py-spy is missing: pip install py-spy.")
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        stacks, told = Path(folder) / "stacks", Path(folder) / "cpu_s"
        command = [sampler, "record", "--format", "raw", "--rate", "400", "--output", stacks, "--"]
        inner = [sys.executable, __file__, "--inner", told, "--chunks", str(args.chunks)]
        subprocess.run([*command, *inner], check=True, stdout=subprocess.DEVNULL)
        cpu_us = json.loads(told.read_text()) * 1e6 / (args.chunks * CHUNK)
        found = {name: share * cpu_us for name, share in shares(stacks.read_text()).items()}
    budgets = {name: budget for name, (budget, _) in STAGES.items()} | {"other": "-"}
    for name, us in found.items():
        print(f"{name:9} {us:6.1f} us a mail, budget {budgets[name]}")
    print(f"all       {cpu_us:6.1f} us CPU a mail")
    if args.json:
        kept = {name: {"us": us, "budget": budgets[name]} for name, us in found.items()}
        args.json.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
