"""Stage 1 in training: which ways to retrieve compete, and what is sampled."""

import pytest
import torch
from structlog.testing import capture_logs

from tests.model_world import DAY
from tests.test_touches import CATALOGUE, PURCHASE, lookers
from train.config import TowerConfig, TrainConfig
from train.problem import Problem
from train.timeline import Timeline
from train.tower_stage import GRAPH, LEARNED, START, TowerStage
from train.workers import Workers

SMALL = {"dim": 8, "dates": 1}


def stage(tower: dict[str, object], way: str = "", repeats: bool = True) -> TowerStage:
    config = TrainConfig(tower=TowerConfig.model_validate(SMALL | tower))
    timeline, histories = Timeline(DAY, 28, False), lookers(buy_what_they_saw=True)
    problem = Problem(histories, CATALOGUE, timeline, config, PURCHASE, Workers(), repeats)
    return TowerStage(problem, torch.device("cpu"), way)


def run(tested: TowerStage) -> int:
    """Steps that it takes."""
    return sum(1 for epoch in range(tested.epochs) for _ in tested.losses(epoch))


def test_in_batch_negatives_alone_are_refused_with_a_warning() -> None:
    with capture_logs() as logs:
        tested = stage({"loss": "sampled", "negatives": "in_batch"})

    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [
        "in-batch negatives alone punish popular items: mixed ones are used"
    ]
    assert run(tested) > 0


@pytest.mark.parametrize("loss", [{"loss": "full"}, {"loss": "sampled", "negatives": "uniform"}])
def test_start_and_learned_towers_compete_where_things_repeat(loss: dict[str, object]) -> None:
    tested = stage(loss)

    assert run(tested) == tested.steps()  # one date is learned from
    assert {way for way, rows in tested.rows.items() if rows} == {START, LEARNED}


@pytest.mark.parametrize("way", [START, GRAPH])
def test_a_way_that_was_found_before_is_the_only_one(way: str) -> None:
    every, alone = stage({}, repeats=way == START), stage({}, way, repeats=way == START)
    run(every)

    assert run(alone) == 0
    assert {name for name, rows in alone.rows.items() if rows} == {way}
    assert alone.best() == way
    for (x, y), (u, v) in zip(every.rows[way], alone.rows[way], strict=False):
        assert x.tobytes() == u.tobytes()
        assert y.tobytes() == v.tobytes()
