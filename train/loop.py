"""The training loop that every Ray Train worker runs: read my shards, train stage by stage, save.

Takes a LoopJob (plain data), gives an artifact in a directory. After each epoch it reports to Ray
Train with a checkpoint, from which a replaced worker goes on.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import ray.train.torch
import torch

from reco.catalogue import Catalogue
from reco.events.lake import Lake
from reco.models.artifact import TOUCHED, WAY, Artifact, ModelConfig
from reco.models.calibration import Calibration
from reco.models.item_graph import ItemGraph
from reco.models.ranker import Head
from reco.models.repeat import debiased
from reco.models.retrieval import Retrieval
from reco.models.taste import USER_COLUMNS
from reco.models.towers import Towers
from reco.tables import type_code
from train.checkpoints import Course, Reporter
from train.config import TrainConfig
from train.examples import join, read_shard
from train.impressions import rows_of
from train.problem import Problem
from train.response_stage import ResponseStage, learned, response
from train.stages import Stage, explore_stage, repeat_stage
from train.timeline import Timeline
from train.tower_stage import TowerStage
from train.workers import Workers

USERS = slice(-len(USER_COLUMNS), None)  # where both heads' features hold the subscriber's
Calibrations = tuple[Calibration, Calibration]  # of what they had, of what is new


@dataclass(frozen=True, slots=True)
class LoopJob:
    """What the loop is told.

    directory     of the artifact
    end_day       first day that it may not learn from
    calibrations  None: fit them on the labels after `end_day`
    way           to retrieve, as an earlier fit found it; "" lets all compete
    impressions   table of the lake with what mails showed before the end, "" without
    mlflow        address and run id
    """

    lake: Lake
    shards: tuple[str, ...]
    directory: str
    checkpoints: str
    config: TrainConfig
    target: str
    as_of: str
    end_day: int
    timeless: bool
    repeats: bool
    touches: bool = False
    way: str = ""
    calibrations: Calibrations | None = None
    mlflow: tuple[str, str] | None = None
    first_step: int = 0
    impressions: str = ""


@dataclass(frozen=True, slots=True)
class Trained:
    """The parts of a model; `way` is how it retrieves."""

    way: str
    towers: Towers
    graph: ItemGraph | None
    explore: Head
    repeat: Head


def train_loop_per_worker(settings: dict[str, Any]) -> None:
    """One worker; `settings["job"]` is a LoopJob."""
    job: LoopJob = settings["job"]
    torch.set_num_threads(1)  # under contention two threads are slower than one
    torch.manual_seed(job.config.seed)
    device = ray.train.torch.get_device()
    workers = Workers(device)
    problem = load_problem(job, workers)
    report = Reporter(workers, job.mlflow, job.first_step)
    trained = train(problem, device, report, job.way)
    calibrations = job.calibrations or calibrate(problem, trained)
    artifact = build(problem, job, trained, calibrations)
    if job.impressions:
        artifact = taught_by_mails(problem, job, artifact, report)
    if workers.rank == 0:
        artifact.save(job.directory)
    workers.gather(None)  # nobody leaves before the artifact is there


def load_problem(job: LoopJob, workers: Workers) -> Problem:
    """The shards of this worker: every `workers.count`-th."""
    lake = job.lake
    histories = join([read_shard(lake, path) for path in job.shards[workers.rank :: workers.count]])
    timeline = Timeline(job.end_day, job.config.horizon_days, job.timeless)
    catalogue = Catalogue.of(lake.items(before=datetime.fromisoformat(job.as_of)))
    code = type_code(job.target)
    return Problem(
        histories, catalogue, timeline, job.config, code, workers, job.repeats, job.touches
    )


def train(problem: Problem, device: torch.device, report: Reporter, way: str = "") -> Trained:
    """Towers, explore head and repeat head; each goes on where a checkpoint stands."""
    towers = TowerStage(problem, device, way)
    run_stage(towers, problem.workers, report)
    folded, graph, rows = towers.finish()
    explore = explore_stage(problem, rows, device)
    run_stage(explore, problem.workers, report)
    repeat = repeat_stage(problem, device)
    run_stage(repeat, problem.workers, report)
    return Trained(
        towers.best(), folded, graph, explore.head.cpu().eval(), repeat.head.cpu().eval()
    )


def run_stage(stage: Stage, workers: Workers, report: Reporter) -> None:
    """Train one stage; epochs that a checkpoint holds are skipped."""
    weights = [p for p in stage.module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, stage.rate, weight_decay=stage.weight_decay, fused=True)
    steps = max(stage.passes * stage.steps(), 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, stage.rate, total_steps=steps)
    course = Course(optimiser, schedule)
    for epoch in range(report.begin(stage, course), stage.epochs):
        torch.manual_seed(epoch)  # the same dropout after a resumption
        total, examples = 0.0, 0
        for loss, count in stage.losses(epoch):
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            workers.average_gradients(stage.module)
            optimiser.step()
            schedule.step()
            total, examples = total + loss.item() * count, examples + count
        report.epoch(stage, epoch, course, total / max(examples, 1), examples)


def taught_by_mails(
    problem: Problem, job: LoopJob, artifact: Artifact, report: Reporter
) -> Artifact:
    """The artifact with the heads of responses, as it is where mails teach nothing."""
    workers, settings = problem.workers, job.config.response
    shards = job.shards[workers.rank :: workers.count]
    parts = learned(rows_of(problem, artifact, job.lake, job.impressions, shards), settings)
    if parts is None:
        return artifact
    early, late = parts
    stage = ResponseStage(early, settings.prior)
    run_stage(stage, workers, report)
    return replace(artifact, response=response(stage.heads, early, late, artifact, settings))


def calibrate(problem: Problem, trained: Trained) -> Calibrations:
    """Calibrations of both heads on the labels after the end, which no part has seen."""
    end = problem.end
    x, y = end.repeat_rows()
    row = np.concatenate([c.known.row for c in end.sample()])
    penalty = problem.config.ranker.popularity_penalty
    logits = debiased(trained.repeat.logits(x), row, end.statistics, penalty)
    had = fit_calibration(problem.workers, logits, x[:, USERS], y)
    x, y = end.explore_rows(Retrieval.of(trained.towers, trained.graph))
    x, y = x.reshape(-1, x.shape[2]), y.ravel()
    return had, fit_calibration(problem.workers, trained.explore.logits(x), x[:, USERS], y)


def fit_calibration(workers: Workers, *rows: npt.NDArray[np.float32]) -> Calibration:
    """Fit logits, user columns and labels of all workers; the identity where nothing happened."""
    parts = workers.gather(rows)
    logits, users, happened = (np.concatenate([part[i] for part in parts]) for i in range(3))
    if not happened.any():
        return Calibration(user=(0.0,) * len(USER_COLUMNS))
    return Calibration.fit(logits, users, happened)


def build(problem: Problem, job: LoopJob, trained: Trained, calibrations: Calibrations) -> Artifact:
    """The artifact, with what is known of the items at the end. All workers take part."""
    end = problem.end
    heads = {"explore": trained.explore, "repeat": trained.repeat}
    weights = {
        f"{name}.{key}": value.numpy()
        for name, head in heads.items()
        for key, value in head.state_dict().items()
    }
    config = ModelConfig(
        target=job.target,
        as_of=job.as_of,
        as_of_day=job.end_day,
        horizon_days=job.config.horizon_days,
        repeats=job.repeats,
        candidates=job.config.ranker.candidates,
        popularity_penalty=job.config.ranker.popularity_penalty,
        seed=job.config.seed,
        repeat_calibration=calibrations[0],
        explore_calibration=calibrations[1],
        settings=job.config.model_dump(mode="json") | {TOUCHED: job.touches, WAY: trained.way},
    )
    ids = problem.catalogue.item_ids[problem.rows].tolist()
    towers, graph = trained.towers, trained.graph
    return Artifact(config, ids, weights, towers, end.statistics, end.lookalike(), graph)
