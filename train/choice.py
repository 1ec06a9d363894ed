"""Which recommender may serve: the model where it is surely better, else the simple one that led.

Takes the gate's verdict, gives a name and the reason for people. Small shops get a real recommender
even where nobody can be sure of a model yet.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from reco.errors import ModelMismatch, NotFound
from reco.features.history import cutoff_day
from reco.models.artifact import Artifact
from reco.models.calibration import Calibration
from reco.models.plain import NAMES, Chosen, logits
from reco.models.rivals import Rival, rival
from reco.tables import item_keys, type_code
from train.config import TrainConfig
from train.evaluate import CHUNK, FREQUENCY, Slice, Verdict, fitted, judge_slice
from train.plan import Plan

MODEL: Final = "model"
NOBODY: Final = ""
ROWS: Final = {"popular": "popular-28d", "frequency": FREQUENCY}  # their names in the gate's table
DEPTH: Final = (
    100  # items of a subscriber that the calibration of a simple recommender is fitted on
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What may serve: MODEL, one of plain.NAMES, or NOBODY; `why` is a sentence."""

    name: str
    why: str


def choose(
    verdict: Verdict, config: TrainConfig, subscribers: int, events: int, model_serves: bool
) -> Choice:
    """The model if it passed the gate on enough data; else a simple recommender, or nobody new.

    subscribers   of the shop; events of the target that there are to learn from
    model_serves  a model is the champion now, and a simple one does not take its place unjudged
    """
    scarce = events < config.data_floor
    if verdict.passed and not scarce:
        return Choice(MODEL, verdict.why)
    why = f"only {events:,} events of the target" if scarce else verdict.why
    if not scarce and subscribers >= config.simple_below:
        return Choice(NOBODY, why)
    best = led(verdict)
    if not best or (model_serves and not surely_better(verdict, best)):
        return Choice(NOBODY, f"{why}; the champion stays" if model_serves else why)
    size = f"data floor {config.data_floor:,}" if scarce else f"{subscribers:,} subscribers"
    return Choice(best, f"{why}; {best} serves, since it led the simple ones ({size})")


def led(verdict: Verdict) -> str:
    """The simple recommender with the best NDCG; of equal ones the simplest."""
    table = verdict.table
    found = {name: table[ROWS.get(name, name)] for name in NAMES if ROWS.get(name, name) in table}
    return max(found, key=lambda name: found[name]["ndcg"], default=NOBODY) if verdict.users else ""


def surely_better(verdict: Verdict, name: str) -> bool:
    """Whether a simple one surely beats a champion that could be judged, by their leads."""
    champion = verdict.differences.get("champion")
    mine = verdict.differences[ROWS.get(name, name)]
    return champion is not None and mine[2] < champion[1]


def calibrated(simple: Rival, judged: Slice, why: str) -> Chosen:
    """A simple recommender with the probabilities of its scores, by what was taken in the slice."""
    scores, happened = [], []
    for start in range(0, len(judged.past), CHUNK):
        stop = min(start + CHUNK, len(judged.past))
        found = simple.plain.scores(simple.bags(judged.past.take(start, stop), judged.as_of_day))
        best = np.argpartition(-found, min(DEPTH, found.shape[1] - 1), axis=1)[:, :DEPTH]
        taken = judged.answers[start:stop][:, simple.rows].tocsr()
        owner = np.arange(stop - start)[:, None]
        scores.append(np.take_along_axis(found, best, axis=1).ravel())
        happened.append(np.asarray(taken[owner, best].todense()).ravel())
    x, y = logits(np.concatenate(scores)), np.concatenate(happened)
    return Chosen(simple.plain, Calibration.fit(x, np.zeros((len(x), 0), np.float32), y), why)


def judged_slice(plan: Plan, model: Artifact) -> Slice:
    """The slice after the validation cut, over the items that a model knows."""
    known = _rows_of(plan, model)
    code, report = type_code(plan.job.target), plan.report
    return judge_slice(plan.histories, plan.catalogue, plan.timeline, code, known, report.repeats)


def serve_instead(plan: Plan, validation: str, directory: str, choice: Choice) -> None:
    """Let a simple recommender serve from the final artifact in a directory.

    It is fitted on everything, with the probabilities of one fitted before the validation cut.
    """
    judged, final = judged_slice(plan, Artifact.load(validation)), Artifact.load(directory)
    before = calibrated(fitted(choice.name, judged), judged, choice.why)
    day = 1 if plan.timeline.timeless else cutoff_day(plan.as_of)
    after = rival(
        choice.name, plan.histories, plan.catalogue, _rows_of(plan, final), day,
        judged.event_type, plan.report.repeats,
    )  # fmt: skip
    # What shown items earn was learned over the model's chances, not over these.
    replace(final, chosen=replace(before, plain=after.plain), response=None).save(directory)


def serves_model(directory: str) -> bool:
    """Whether a model, not a simple recommender, serves from a directory."""
    try:
        return Artifact.load(directory).chosen is None
    except (NotFound, ModelMismatch):
        return False


def _rows_of(plan: Plan, model: Artifact) -> npt.NDArray[np.bool_]:
    known = np.zeros(len(plan.catalogue), bool)
    known[plan.catalogue.index.rows(item_keys(model.item_ids))] = True
    return known
