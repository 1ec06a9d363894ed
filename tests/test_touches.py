"""Views and carts as evidence of what is taken next: counted where the data show it."""

import numpy as np
import pytest

from reco.features.history import RECORD, Histories
from reco.features.touches import touched
from reco.tables import type_code
from tests.model_world import DAY, catalogue_of
from train.config import TrainConfig
from train.plan import look_at
from train.problem import Problem
from train.timeline import Timeline
from train.workers import Workers

PURCHASE, VIEW, CLICK = (type_code(name) for name in ("purchase", "view", "click"))
CATALOGUE = catalogue_of(200)
USERS = 120


def lookers(*, buy_what_they_saw: bool) -> Histories:
    """Each of them looks at 30 items of a year, and buys 10 a few days later: those, or others."""
    draw = np.random.default_rng(0)
    owner = np.repeat(np.arange(USERS), 40)
    records = np.zeros(len(owner), RECORD)
    seen = draw.integers(0, 200, (USERS, 30))
    bought = seen[:, :10] if buy_what_they_saw else draw.integers(0, 200, (USERS, 10))
    when = DAY - draw.integers(10, 330, (USERS, 30))
    later = when[:, :10] + draw.integers(1, 10, (USERS, 10))
    records["item"] = CATALOGUE.keys[np.concatenate([seen, bought], axis=1).ravel()]
    records["day"] = np.concatenate([when, later], axis=1).ravel()
    records["type"] = np.tile(np.repeat([VIEW, PURCHASE], [30, 10]), USERS)
    records["count"] = 1
    return Histories.of(owner, records, USERS)


def test_touches_count_as_the_target_and_their_days_add_up() -> None:
    records = np.zeros(3, RECORD)
    records["item"], records["day"], records["count"] = 7, [3, 3, 9], 1
    records["type"] = [PURCHASE, VIEW, CLICK]

    found = touched(Histories.of(np.zeros(3, np.int64), records, 1), PURCHASE).records

    facts = found[["day", "count", "type"]].tolist()
    assert facts == [(3, 2, PURCHASE), (9, 1, CLICK)]


@pytest.mark.parametrize("related", [True, False])
def test_auto_asks_the_data(related: bool) -> None:
    histories = lookers(buy_what_they_saw=related)

    timeline, report = look_at(histories, CATALOGUE, [], "purchase", TrainConfig(), DAY)

    assert report.touches == (report.touch_share >= 0.05)
    assert report.touch_share > 0.3 if related else report.touch_share < 0.25
    assert not timeline.timeless
    never = TrainConfig(touches="ignore")
    assert not look_at(histories, CATALOGUE, [], "purchase", never, DAY)[1].touches


def test_what_they_looked_at_becomes_a_row_and_only_purchases_are_labels() -> None:
    histories, timeline = lookers(buy_what_they_saw=True), Timeline(DAY, 28, False)
    problem = Problem(
        histories, CATALOGUE, timeline, TrainConfig(), PURCHASE, Workers(), False, True
    )
    blind = Problem(histories, CATALOGUE, timeline, TrainConfig(), PURCHASE, Workers(), False)
    (date,), (other,) = problem.references(1, 21), blind.references(1, 21)

    x, y = date.repeat_rows()

    assert len(x) > 2 * len(other.repeat_rows()[0])
    assert y.sum() > 2 * other.repeat_rows()[1].sum()
    records = histories.records
    bought = (records["type"] == PURCHASE) & (records["day"] >= date.day)
    assert y.sum() <= date.labels.sum() <= bought.sum()
