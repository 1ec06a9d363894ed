"""One campaign on a cluster of two nodes: mails leave from both.

    python tests/bench/bench_nodes.py [--recipients 4000] [--json F]

Two raylets on this machine, as ray.cluster_utils makes them, and `reco campaign send` as it is used
with any cluster (RAY_ADDRESS). The summary of the command says how many mails left from which node.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
os.environ |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}

from reco.embedded import open_services
from reco.settings import Settings
from tests.bench.campaign_world import smtp_sink
from tests.bench.cluster import running_cluster
from tests.small_world import MAILED, USERS, campaign, small_world

ROOT: Final = Path(__file__).resolve().parents[2]


def main() -> None:
    """Print the mails of each node; fails unless both sent some, and together all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipients", type=int, default=4_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reco-nodes-")))
        opened = stack.enter_context(open_services(Settings(home=home / "home")))
        port = stack.enter_context(smtp_sink())
        services = replace(opened, smtp_url=f"smtp://127.0.0.1:{port}", outbox=None)
        stack.enter_context(small_world(services, args.recipients - len(USERS)))
        environment = {**os.environ, **services.environment(), "PYTHONPATH": str(ROOT)}
        address = stack.enter_context(running_cluster(2, environment))
        file = services.home / "nodes.yaml"
        file.write_text(campaign("nodes").model_dump_json())
        told = subprocess.run(
            [sys.executable, "-m", "reco", "campaign", "send", str(file), "--json"],
            env=environment | {"RAY_ADDRESS": address},
            cwd=ROOT,
            check=True,
            stdout=subprocess.PIPE,
        )
    summary = json.loads(told.stdout.splitlines()[-1])
    print(f"{summary['accepted']} mails, {summary['mails_per_s']}/s; by node {summary['nodes']}")
    assert summary["accepted"] == len(MAILED) + args.recipients - len(USERS)
    assert len(summary["nodes"]) == 2, "one node had nothing to do"
    if args.json:
        args.json.write_text(json.dumps({"nodes": summary["nodes"]}))


if __name__ == "__main__":
    main()
