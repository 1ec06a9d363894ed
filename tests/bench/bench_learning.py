"""Does the next training improve the policy? The closed loop without servers, on several seeds.

    python tests/bench/bench_learning.py                1,500 SIMULATED shoppers, seeds 0, 1, 2
    python tests/bench/bench_learning.py 1500 3 4 5     other seeds

Prints the true value of the first model, of the next one without the labels of the mails, and of
the next one with them; intervals are over the shoppers.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from reco.models.artifact import Artifact  # noqa: E402
from tests.offline_loop import (  # noqa: E402
    CLOSED,
    EVENING,
    NOW,
    PICKS,
    Offline,
    Week,
    a_week,
    shown_before,
)
from tests.taste_world import Habits, Shoppers  # noqa: E402
from train.config import TrainConfig  # noqa: E402

HABITS: Final = Habits(bots=0.15, apple=0.05, bounce=0.005, leave=0.001)


def say(name: str, loop: Offline, week: Week, model: Artifact) -> float:
    """The lower end of the gain over the first model."""
    value = loop.shop.value(loop.policy(model, week.past, EVENING))
    share, gain = value.mean() / loop.shop.best(PICKS).mean(), value - week.value
    half = 1.96 * float(gain.std()) / np.sqrt(len(gain))
    print(f"  {name}: {value.mean():.4f} clicks a mail, {share:.0%} of the best, "
          f"gain {gain.mean():.4f} ± {half:.4f}", flush=True)  # fmt: skip
    return float(gain.mean()) - half


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("shoppers", nargs="?", type=int, default=1_500)
    parser.add_argument("seeds", nargs="*", type=int, default=[0, 1, 2])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for seed in asked.seeds:
        print(f"seed {seed}")
        with TemporaryDirectory(prefix="learning") as folder:
            loop = Offline(Path(folder), Shoppers(asked.shoppers, seed), TrainConfig())
            week = a_week(loop, HABITS)
            say("the first model", loop, week, week.first)
            say("the next, without labels of mails", loop, week, loop.fit(NOW + CLOSED))
            shown = shown_before(loop, week.mails, NOW + CLOSED)
            low = say("the next model", loop, week, loop.fit(NOW + CLOSED, shown))
            assert low > 0


if __name__ == "__main__":
    main()
