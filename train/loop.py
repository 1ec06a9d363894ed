"""The training loop that every Ray Train worker runs: read my shards, train stage by stage, save.

Takes a Job (plain data), gives an artifact in a directory. After each epoch it reports to Ray Train with
a checkpoint, from which a replaced worker goes on.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray.train
import ray.train.torch
import torch

from reco.catalogue import Catalogue
from reco.events.lake import Lake
from reco.models.artifact import Artifact, ModelConfig
from reco.models.ranker import Calibration, Head
from reco.models.taste import USER_COLUMNS
from reco.models.towers import Towers
from reco.tables import type_code
from train.config import TrainConfig
from train.examples import join, read_shard
from train.problem import Problem
from train.stages import ExploreStage, RepeatStage, Stage, TowerStage
from train.timeline import Timeline
from train.workers import Workers

FIRST_LAST: Final = ("towers", "explore", "repeat")


@dataclass(frozen=True, slots=True)
class LoopJob:
    """What the loop is told. `end_day` is the first day it may not learn from."""

    lake: str
    shards: tuple[str, ...]
    directory: str  # of the artifact
    checkpoints: str
    config: TrainConfig
    target: str
    as_of: str
    end_day: int
    timeless: bool
    repeats: bool
    calibrations: tuple[Calibration, Calibration] | None = (
        None  # repeat, explore; None: fit on the labels after
    )
    mlflow_uri: str | None = None
    mlflow_run: str | None = None
    step_offset: int = 0
    die_at: str | None = (
        None  # test only: path of a marker; the first attempt dies after its first epoch
    )


def train_loop_per_worker(settings: dict[str, Any]) -> None:
    """One worker; `settings["job"]` is a LoopJob."""
    job: LoopJob = settings["job"]
    torch.set_num_threads(1)  # two threads under contention are slower than one
    torch.manual_seed(job.config.seed)
    device = ray.train.torch.get_device()
    workers = Workers(device)
    problem = load_problem(job, workers)
    towers, explore, repeat = train_stages(problem, device, Reporter(job, workers))
    calibrations = calibrate(problem, job, towers, explore, repeat)
    end = problem.end
    statistics, lookalike = end.statistics, end.lookalike()
    if workers.rank == 0:
        heads = {f"{name}.{key}": value.cpu().numpy() for name, head in (("explore", explore), ("repeat", repeat))
                 for key, value in head.state_dict().items()}  # fmt: skip
        ids = problem.catalogue.item_ids[problem.rows].tolist()
        Artifact(model_config(job, calibrations), ids, heads, towers, statistics, lookalike).save(
            job.directory
        )
    workers.gather(None)  # nobody leaves before the artifact is there


def load_problem(job: LoopJob, workers: Workers) -> Problem:
    """The shards of this worker: every `workers.count`-th."""
    lake = Lake(job.lake)
    mine = job.shards[workers.rank :: workers.count]
    timeline = Timeline(job.end_day, job.config.horizon_days, job.timeless)
    histories = join([read_shard(lake, path) for path in mine])
    return Problem(
        histories, Catalogue.of(lake.items()), timeline, job.config, type_code(job.target), workers
    )


def train_stages(
    problem: Problem, device: torch.device, report: "Reporter"
) -> tuple[Towers, Head, Head]:
    """Towers, explore head and repeat head, resumed where a checkpoint stands."""
    towers = TowerStage(problem, device)
    report.restore(towers)
    run_stage(towers, problem.workers, report)
    explore = ExploreStage(problem, towers.rows, device)
    run_stage(explore, problem.workers, report)
    repeat = RepeatStage(problem, device)
    run_stage(repeat, problem.workers, report)
    return towers.finish(), explore.module.cpu().eval(), repeat.module.cpu().eval()


def run_stage(stage: Stage, workers: Workers, report: "Reporter") -> None:
    """Train one stage; epochs that a checkpoint holds are skipped."""
    first = report.begin(stage)
    weights = [p for p in stage.module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, stage.rate, weight_decay=stage.weight_decay, fused=True)
    steps = max(stage.epochs * stage.steps(), 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, stage.rate, total_steps=steps)
    report.load(stage, optimiser, schedule)
    for epoch in range(first, stage.epochs):
        began, total, examples = time.perf_counter(), 0.0, 0
        for loss, count in stage.losses(epoch):
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            workers.average_gradients(stage.module)
            optimiser.step()
            schedule.step()
            total, examples = total + loss.item() * count, examples + count
        report.epoch(stage, epoch, optimiser, schedule, total / max(examples, 1), examples, began)


def calibrate(
    problem: Problem, job: LoopJob, towers: Towers, explore: Head, repeat: Head
) -> tuple[Calibration, Calibration]:
    """Both heads' calibrations on the labels after the end, or those that the job brings."""
    if job.calibrations:
        return job.calibrations
    end = problem.end
    x, y = end.repeat_rows()
    owner = np.concatenate([c.known.owner + c.start for c in end.chunks()])
    repeats = _fit(problem.workers, repeat.logits(x), end.users[owner], y)
    x, y = end.explore_rows(towers)
    users = np.repeat(end.users, y.shape[1], axis=0)
    fresh = _fit(problem.workers, explore.logits(x.reshape(-1, x.shape[2])), users, y.ravel())
    return repeats, fresh


def _fit(workers: Workers, *rows: Any) -> Calibration:
    """Fit on the rows of all workers."""
    parts = workers.gather(rows)
    logits, users, happened = (np.concatenate([part[i] for part in parts]) for i in range(3))
    if not happened.any():
        return Calibration(user=(0.0,) * len(USER_COLUMNS))
    return Calibration.fit(logits, users, happened)


def model_config(job: LoopJob, calibrations: tuple[Calibration, Calibration]) -> ModelConfig:
    """What the artifact says about itself."""
    return ModelConfig(
        target=job.target,
        as_of=job.as_of,
        as_of_day=job.end_day,
        horizon_days=job.config.horizon_days,
        repeats=job.repeats,
        candidates=job.config.ranker.candidates,
        seed=job.config.seed,
        repeat_calibration=calibrations[0],
        explore_calibration=calibrations[1],
        settings=job.config.model_dump(mode="json"),
    )


class Reporter:
    """Checkpoints and metrics of one worker, through Ray Train and MLflow."""

    def __init__(self, job: LoopJob, workers: Workers) -> None:
        self.job, self.workers = job, workers
        self.done: dict[str, dict[str, Any]] = {}
        self.step = job.step_offset
        checkpoint = ray.train.get_checkpoint()
        if checkpoint:
            with checkpoint.as_directory() as directory:
                self.done = torch.load(
                    Path(directory) / f"rank{workers.rank}.pt", weights_only=True
                )
            self.step = self.done["step"]["value"]

    def restore(self, towers: TowerStage) -> None:
        """Rows for the explore head that the towers collected before."""
        rows = self.done.get(towers.name, {}).get("rows", [])
        towers.rows = [(x.numpy(), y.numpy()) for x, y in rows]

    def begin(self, stage: Stage) -> int:
        """First epoch that is still to do; the weights of the last one are put in place."""
        saved = self.done.get(stage.name)
        if not saved:
            return 0
        stage.module.load_state_dict(saved["module"])
        return int(saved["epochs"])

    def load(
        self,
        stage: Stage,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> None:
        """Put the state of optimiser and schedule in place."""
        saved = self.done.get(stage.name)
        if saved:
            optimiser.load_state_dict(saved["optimiser"])
            schedule.load_state_dict(saved["schedule"])

    def epoch(
        self,
        stage: Stage,
        epoch: int,
        optimiser: Any,
        schedule: Any,
        loss: float,
        examples: int,
        began: float,
    ) -> None:
        """Report an epoch with a checkpoint of everything so far."""
        seconds = time.perf_counter() - began
        metrics = {
            f"{stage.name}_loss": loss,
            f"{stage.name}_examples_per_s": examples / max(seconds, 1e-9),
        }
        self.step += 1
        state = {"module": stage.module.state_dict(), "optimiser": optimiser.state_dict(),
                 "schedule": schedule.state_dict(), "epochs": epoch + 1}  # fmt: skip
        if isinstance(stage, TowerStage):
            state["rows"] = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in stage.rows]
        self.done = {**self.done, stage.name: state, "step": {"value": self.step}}
        with tempfile.TemporaryDirectory() as directory:
            torch.save(self.done, Path(directory) / f"rank{self.workers.rank}.pt")
            checkpoint = ray.train.Checkpoint.from_directory(directory)
            ray.train.report(
                {"stage": stage.name, "epoch": epoch, **metrics}, checkpoint=checkpoint
            )
        if self.workers.rank == 0 and self.job.mlflow_run:
            _log(self.job, metrics, self.step)


def _log(job: LoopJob, metrics: dict[str, float], step: int) -> None:
    from mlflow.tracking import MlflowClient  # 3 s to import, so only where there is a run

    client = MlflowClient(tracking_uri=job.mlflow_uri)
    for name, value in metrics.items():
        client.log_metric(job.mlflow_run, name, value, step=step)
