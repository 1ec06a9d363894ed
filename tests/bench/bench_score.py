"""Microseconds a subscriber to score a chunk of 256 against 10,000 items, ranker included.

    python tests/bench/bench_score.py        one thread; a budget of 300 us on one core

Histories are as long as those of Complete Journey: 550 purchases a subscriber in a year.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import platform
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from reco.models.scorer import Scorer
from tests.model_world import DAY, artifact_of, catalogue_of, histories_of

ITEMS, CHUNK, RECORDS, ROUNDS = 10_000, 256, 550, 20


def main() -> None:
    torch.set_num_threads(1)
    catalogue = catalogue_of(ITEMS)
    scorer = Scorer(artifact_of(catalogue), catalogue, "bench")
    histories = histories_of(catalogue, [RECORDS] * CHUNK)
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=DAY)
    scorer.score(histories, when, 20)
    seconds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        scorer.score(histories, when, 20)
        seconds.append(time.process_time() - began)
    best, middle = np.min(seconds) / CHUNK * 1e6, np.median(seconds) / CHUNK * 1e6
    print(f"{platform.machine()}, {platform.python_version()}, torch {torch.__version__}, 1 thread")
    print(f"{ITEMS} items, chunk of {CHUNK}, {len(histories.records) / CHUNK:.0f} records each")
    print(f"CPU time a subscriber: median {middle:.0f} us, best {best:.0f} us (budget 300 us)")


if __name__ == "__main__":
    main()
