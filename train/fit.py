"""The train stage.

Data report, examples, a fit that stops before the last horizon, the gate, the final fit.

The gate judges a model that was fitted before the validation cut (one horizon before `as_of`); if
it wins, the same settings are fitted again on everything up to `as_of`, with the calibration of
the first.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import ray
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from reco.embedded import Services, connect_redis
from reco.errors import ModelMismatch, NotFound
from reco.events.lake import Lake
from reco.features.history import cutoff_day
from reco.models.artifact import WAY, Artifact
from reco.models.registry import Champion, champion, promote
from reco.models.scorer import Scorer
from reco.terminal import Report
from train.choice import MODEL, NOBODY, Choice, choose, judged_slice, serve_instead, serves_model
from train.config import TrainConfig
from train.evaluate import Verdict, judge
from train.loop import LoopJob, train_loop_per_worker
from train.plan import DataReport, Plan, prepare
from train.policy_gate import logged_verdict
from train.tracking import Tracking

DAY_S: Final = 86_400
LATER_STEPS: Final = 1000  # the final fit's metrics stand behind those of the validation fit


@dataclass(frozen=True, slots=True)
class FitSummary:
    """What a run made."""

    version: str
    directory: str
    promoted: bool
    serves: str  # the model, or the simple recommender that the gate chose
    why: str
    table: dict[str, dict[str, float]]
    differences: dict[str, tuple[float, float, float]]
    validation: str
    data: DataReport
    seconds: float


def run(
    config: TrainConfig, services: Services, lake: Lake, as_of: datetime | None, progress: Report
) -> FitSummary:
    """Train, judge, register and, if it wins, promote. Runs inside `train.cluster.connect`.

    Raises InputError when there is too little to learn from, NotFound when the lake is empty.
    """
    began = time.perf_counter()
    plan = prepare(config, services, lake, as_of, progress)
    tracking = Tracking.start(services, plan.version, plan.job.config, asdict(plan.report))
    job = replace(plan.job, mlflow=(services.mlflow_uri, tracking.run_id))
    fit(job, "validation fit", progress)
    redis = connect_redis(services.redis_url)
    judged = gate(plan, services, lake, champion(redis), progress)
    wins = config.promote == "always" or (config.promote == "gate" and judged.passed)
    serves = MODEL if config.promote == "always" else judged.serves
    if wins:
        validation, job = job.directory, final_job(job, plan, lake)
        fit(job, "final fit", progress)
        if serves != MODEL:
            serve_instead(plan, validation, job.directory, Choice(serves, judged.why))
    number = tracking.register(job.directory, judged.table, judged.why)
    if wins:
        promote(redis, services.mlflow_uri, number, Champion(plan.version, job.directory))
    return FitSummary(
        version=plan.version,
        directory=job.directory,
        promoted=wins,
        serves=serves,
        why=judged.why,
        table=judged.table,
        differences=judged.differences,
        validation=describe(plan, wins),
        data=plan.report,
        seconds=round(time.perf_counter() - began, 1),
    )


def fit(
    job: LoopJob,
    stage: str,
    progress: Report,
    loop: Callable[[dict[str, Any]], None] = train_loop_per_worker,
) -> None:
    """One Ray Train run; a worker that dies is replaced and goes on from the last checkpoint."""
    progress(stage, 0, 1)
    config = job.config
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpu = resources.get("GPU", 0) >= config.workers
    trainer = TorchTrainer(
        loop,
        train_loop_config={"job": job},
        # One CPU a worker leaves one for Ray itself on a small machine.
        scaling_config=ScalingConfig(
            num_workers=config.workers,
            use_gpu=gpu,
            resources_per_worker={"CPU": 1} | ({"GPU": 1} if gpu else {}),
        ),
        run_config=RunConfig(
            name=Path(job.directory).name,
            storage_path=job.checkpoints,
            failure_config=FailureConfig(max_failures=config.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    try:
        trainer.fit()
    finally:
        shutil.rmtree(Path(job.checkpoints) / Path(job.directory).name, ignore_errors=True)
    progress(stage, 1, 1)


def gate(
    plan: Plan, services: Services, lake: Lake, old: Champion | None, progress: Report
) -> Verdict:
    """Judge the fit before the validation cut against rivals and the champion.

    First on what was taken after the cut, then on the mails of arms that explored after it.
    """
    scorers = {MODEL: Scorer.load(plan.job.directory, plan.catalogue)}
    judged = judged_slice(plan, scorers[MODEL].artifact)
    if old is not None:
        scorers |= _old(old, plan)
    verdict = judge(scorers, judged, plan.job.config.k, progress)
    records = plan.histories.records
    events = records["count"][records["type"] == judged.event_type].sum()
    model_serves = old is not None and serves_model(old.directory)
    choice = choose(verdict, plan.job.config, plan.report.users, int(events), model_serves)
    passed = choice.name != NOBODY
    verdict = replace(verdict, passed=passed, why=choice.why, serves=choice.name)
    if plan.timeline.timeless or choice.name != MODEL:
        return verdict
    since = datetime.fromtimestamp(plan.timeline.end_day * DAY_S, UTC)
    said = logged_verdict(
        services, lake, (since, plan.as_of), scorers[MODEL], scorers.get("champion")
    )
    passed = verdict.passed and said.passed
    return replace(verdict, passed=passed, why=f"{verdict.why}; {said.why}")


def evaluate(
    config: TrainConfig, services: Services, lake: Lake, as_of: datetime | None, progress: Report
) -> Verdict:
    """The settings, fitted before the last horizon of `as_of`, and their rivals on that horizon.

    A champion that learned from the horizon cannot be judged on it: it is left out. Nothing is
    promoted.
    """
    plan = prepare(config, services, lake, as_of, progress)
    fit(plan.job, "validation fit", progress)
    return gate(plan, services, lake, champion(connect_redis(services.redis_url)), progress)


def _old(old: Champion, plan: Plan) -> dict[str, Scorer]:
    """The champion, unless it has seen the validation slice or predicts something else.

    Where events have no time, every champion has seen some of what is hidden now.
    """
    try:
        scorer = Scorer.load(old.directory, plan.catalogue)
    except (NotFound, ModelMismatch):
        return {}
    fair = scorer.config.target == plan.job.target and (
        not plan.timeline.timeless and scorer.config.as_of_day <= plan.timeline.end_day
    )
    return {"champion": scorer} if fair else {}


def final_job(job: LoopJob, plan: Plan, lake: Lake) -> LoopJob:
    """The same settings on everything.

    With the calibration that was fitted on the validation slice, and the way to retrieve that led.
    """
    first = Artifact.load(job.directory).config
    return replace(
        job,
        directory=lake.path("models", plan.version),
        end_day=-1 if job.timeless else cutoff_day(plan.as_of),
        calibrations=(first.repeat_calibration, first.explore_calibration),
        way=first.settings[WAY],
        first_step=LATER_STEPS,
        impressions=plan.impressions,
    )


def describe(plan: Plan, wins: bool) -> str:
    """Where the figures come from."""
    where = (
        "one tenth of all pairs"
        if plan.timeline.timeless
        else f"the {plan.timeline.horizon_days} days before {plan.as_of:%Y-%m-%d}"
    )
    fitted = "then fitted again on everything" if wins else "not fitted on"
    return f"figures are of a fit that never saw {where}; {fitted}"
