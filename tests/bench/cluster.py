"""A Ray cluster of several nodes on this machine, in a process of its own until that is ended.

    python -m tests.bench.cluster [--nodes 2]

Says its address in the first line; the environment of this process is that of its nodes.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ray.cluster_utils import Cluster

ROOT: Final = Path(__file__).resolve().parents[2]
NODE: Final = {"num_cpus": 2, "object_store_memory": 300_000_000, "include_dashboard": False}
STOP_S: Final = 60.0


@contextmanager
def running_cluster(nodes: int, environment: Mapping[str, str]) -> Iterator[str]:
    """Address of a cluster, until the block ends."""
    command = [sys.executable, "-m", "tests.bench.cluster", "--nodes", str(nodes)]
    with subprocess.Popen(
        command, env={**environment}, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            address = process.stdout.readline().strip()
            if not address:
                raise SystemExit("The cluster does not come up: is the machine too busy?")
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def main() -> None:
    """Start the nodes, and wait for the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=2)
    args = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    said = os.dup(1)
    os.dup2(2, 1)  # Ray talks on stdout too
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    for _ in range(args.nodes - 1):
        cluster.add_node(num_cpus=2, object_store_memory=300_000_000)
    os.write(said, f"{cluster.address}\n".encode())
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
