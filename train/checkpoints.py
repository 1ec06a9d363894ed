"""Checkpoints and metrics of a training worker: through Ray Train, and from rank 0 to MLflow.

Every epoch reports all that is needed to go on: the modules so far, the optimiser and the rows that
the towers collected. Each worker writes its own file into the common checkpoint.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray.train
import torch

from train.stages import Stage
from train.tower_stage import TowerStage
from train.workers import Workers

Rows = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Course:
    """Optimiser and schedule of a stage."""

    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler


class Reporter:
    """What one worker tells of its run; `mlflow` is the address and the id of the run's record."""

    def __init__(
        self, workers: Workers, mlflow: tuple[str, str] | None, first_step: int = 0
    ) -> None:
        self._rank, self._mlflow = workers.rank, mlflow
        self._done: dict[str, Any] = {"step": first_step}
        self._began = time.perf_counter()
        checkpoint = ray.train.get_checkpoint()
        if checkpoint:
            with checkpoint.as_directory() as directory:
                self._done = torch.load(Path(directory) / f"rank{self._rank}.pt", weights_only=True)

    def begin(self, stage: Stage, course: Course) -> int:
        """Put the last state of a stage in place; the first epoch that is still to do."""
        saved = self._done.get(stage.name)
        self._began = time.perf_counter()
        if saved is None:
            return 0
        stage.module.load_state_dict(saved["module"])
        course.optimiser.load_state_dict(saved["optimiser"])
        course.schedule.load_state_dict(saved["schedule"])
        if isinstance(stage, TowerStage):
            stage.rows = {way: _arrays(rows) for way, rows in saved["rows"].items()}
        return int(saved["epochs"])

    def epoch(self, stage: Stage, epoch: int, course: Course, loss: float, examples: int) -> None:
        """Report an epoch with a checkpoint of everything so far.

        A barrier: all workers call it.
        """
        seconds = time.perf_counter() - self._began
        speed = examples / max(seconds, 1e-9)
        metrics = {f"{stage.name}_loss": loss, f"{stage.name}_examples_per_s": speed}
        state: dict[str, Any] = {
            "module": stage.module.state_dict(),
            "optimiser": course.optimiser.state_dict(),
            "schedule": course.schedule.state_dict(),
            "epochs": epoch + 1,
        }
        if isinstance(stage, TowerStage):
            state["rows"] = {way: _tensors(rows) for way, rows in stage.rows.items()}
        step = self._done["step"] + 1
        self._done = {**self._done, stage.name: state, "step": step}
        with tempfile.TemporaryDirectory() as directory:
            torch.save(self._done, Path(directory) / f"rank{self._rank}.pt")
            checkpoint = ray.train.Checkpoint.from_directory(directory)
            facts = {"stage": stage.name, "epoch": epoch, **metrics}
            ray.train.report(facts, checkpoint=checkpoint)
        if self._rank == 0 and self._mlflow:
            _log(*self._mlflow, metrics, step)
        self._began = time.perf_counter()


def _log(uri: str, run_id: str, metrics: dict[str, float], step: int) -> None:
    from mlflow.entities import Metric  # 3 s to import: only where there is a run
    from mlflow.tracking import MlflowClient

    now = int(time.time() * 1000)
    values = [Metric(name, value, now, step) for name, value in metrics.items()]
    MlflowClient(tracking_uri=uri).log_batch(run_id, metrics=values)


def _tensors(rows: Sequence[Rows]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in rows]


def _arrays(rows: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[Rows]:
    return [(x.numpy(), y.numpy()) for x, y in rows]
