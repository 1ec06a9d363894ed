"""Examples a second of the training loop beside the same head in a bare torch loop, in one run.

    python tests/bench/bench_train.py        one thread each; the goal is to lose at most 15 %

600,000 rows of the repeat head's width, batches of 4,096, one epoch a turn; the two take turns.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from reco.models.ranker import Head
from reco.models.repeat import REPEAT_FEATURES
from train.config import TrainConfig
from train.loop import run_stage
from train.stages import HeadStage, taken_again
from train.workers import Workers

ROWS, TURNS = 600_000, 5
CONFIG = TrainConfig.model_validate({"ranker": {"epochs": 1}})


class Silent:
    """Takes the place of the reports to Ray Train, which come once an epoch."""

    def begin(self, *_: object) -> int:
        return 0

    def epoch(self, *_: object) -> None:
        return None


def ours(x: torch.Tensor, y: torch.Tensor) -> None:
    problem = SimpleNamespace(config=CONFIG, workers=Workers())
    head = Head(len(REPEAT_FEATURES))
    batch, cpu = CONFIG.ranker.batch, torch.device("cpu")
    stage = HeadStage("repeat", head, (x, y), batch, taken_again, problem, cpu)  # type: ignore[arg-type]
    run_stage(stage, Workers(), Silent())  # type: ignore[arg-type]


def bare(x: torch.Tensor, y: torch.Tensor) -> None:
    head, size = Head(len(REPEAT_FEATURES)), CONFIG.ranker.batch
    optimiser = torch.optim.AdamW(head.parameters(), CONFIG.ranker.learning_rate, fused=True)
    for at in torch.randperm(len(x)).split(size):
        optimiser.zero_grad(set_to_none=True)
        F.binary_cross_entropy_with_logits(head(x[at]), y[at]).backward()
        optimiser.step()


def main() -> None:
    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    x = torch.from_numpy(draw.standard_normal((ROWS, len(REPEAT_FEATURES))).astype(np.float32))
    y = torch.from_numpy((draw.random(ROWS) < 0.07).astype(np.float32))
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(TURNS):
        for name, run in (("ours", ours), ("bare", bare)):
            began = time.process_time()
            run(x, y)
            seconds[name].append(time.process_time() - began)
    speed = {name: ROWS / float(np.median(times)) for name, times in seconds.items()}
    print(f"torch {torch.__version__}, 1 thread, CPU time, median of {TURNS}")
    print(f"bare loop {speed['bare']:,.0f} examples/s, ours {speed['ours']:,.0f}")
    print(f"ours / bare = {speed['ours'] / speed['bare']:.2f} (goal: at least 0.85)")


if __name__ == "__main__":
    main()
