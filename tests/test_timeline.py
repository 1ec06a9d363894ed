import numpy as np
import pytest

from reco.features.history import RECORD, Histories
from reco.tables import type_code
from tests.model_world import DAY, catalogue_of, histories_of
from train.timeline import FOLDS, Timeline, folds

CATALOGUE = catalogue_of(200)
HISTORY = histories_of(CATALOGUE, [50] * 40)
PURCHASE = type_code("purchase")


def timeless() -> Histories:
    records = HISTORY.records.copy()
    records["day"] = 0
    return Histories.of(HISTORY.owner, records, len(HISTORY))


def labels(timeline: Timeline, histories: Histories, day: int) -> set[tuple[int, int]]:
    found = timeline.labels(histories, day, PURCHASE, CATALOGUE.index, len(CATALOGUE)).tocoo()
    return set(zip(found.row.tolist(), found.col.tolist(), strict=True))


def cells(histories: Histories) -> set[tuple[int, int]]:
    row = CATALOGUE.index.rows(histories.records["item"])
    return set(zip(histories.owner.tolist(), row.tolist(), strict=True))


def test_the_past_ends_where_the_labels_begin() -> None:
    timeline = Timeline(DAY, 28, False)
    day = DAY - 28

    past = timeline.past(HISTORY, day)

    assert past.records["day"].max() < day
    when = HISTORY.records["day"]
    inside = (when >= day) & (when < day + 28)
    row = CATALOGUE.index.rows(HISTORY.records["item"])
    expected = set(zip(HISTORY.owner[inside].tolist(), row[inside].tolist(), strict=True))
    assert labels(timeline, HISTORY, day) == expected


def test_dates_have_known_labels_and_a_past_of_their_own() -> None:
    timeline = Timeline(DAY, 28, False)

    assert timeline.dates(3, 21, DAY - 300) == [DAY - 70, DAY - 49, DAY - 28]
    assert timeline.dates(9, 21, DAY - 80) == [DAY - 49, DAY - 28]
    assert timeline.dates(2, 21, DAY - 5) == [DAY - 28]  # at least one, however short the history


@pytest.mark.parametrize("fold", [1, 4])
def test_without_times_the_hidden_pairs_are_apart_from_the_past(fold: int) -> None:
    timeline, history = Timeline(-1, 28, True), timeless()

    past, future = cells(timeline.past(history, fold)), labels(timeline, history, fold)

    assert past | future == cells(history)
    assert not past & future
    assert 0.05 < len(future) / len(cells(history)) < 0.15


def test_without_times_validation_hides_one_fold_from_every_date() -> None:
    timeline, history = Timeline(0, 28, True), timeless()
    hidden = labels(timeline, history, 0)

    assert hidden
    assert not hidden & cells(timeline.everything(history))
    for fold in timeline.dates(4, 21, 0):
        assert not hidden & (cells(timeline.past(history, fold)) | labels(timeline, history, fold))


def test_folds_do_not_depend_on_the_number_of_events() -> None:
    once = np.zeros(2, RECORD)
    once["item"], once["type"], once["count"] = 77, PURCHASE, 1
    once["day"] = [3, 9]
    history = Histories.of(np.zeros(2, np.int64), once, 1)

    assert len(set(folds(history).tolist())) == 1
    assert set(folds(HISTORY).tolist()) == set(range(FOLDS))
