import numpy as np
import pytest

from reco.features.history import Histories
from reco.tables import type_code
from tests.model_world import DAY, catalogue_of, histories_of
from train.timeline import FOLDS, Timeline, hidden

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
def test_without_times_hidden_events_are_apart_from_the_past(fold: int) -> None:
    timeline, history = Timeline(-1, 28, True), timeless()

    past, future = timeline.past(history, fold), labels(timeline, history, fold)

    assert cells(past) | future == cells(history)
    events = int(history.records["count"].sum())
    gone = int(hidden(history, fold).sum())
    assert int(past.records["count"].sum()) == events - gone
    assert 0.05 < gone / events < 0.15
    once = history.records["count"] == 1
    alone = cells(Histories.of(history.owner[once], history.records[once], len(history)))
    assert not cells(past) & future & alone
    assert cells(past) & future  # taken again


def test_without_times_validation_hides_one_fold_from_every_date() -> None:
    timeline, history = Timeline(0, 28, True), timeless()
    events = history.records["count"].astype(int)

    known = int(timeline.everything(history).records["count"].sum())

    assert known == (events - hidden(history, 0)).sum()
    for fold in timeline.dates(4, 21, 0):
        past = int(timeline.past(history, fold).records["count"].sum())
        assert past == (events - hidden(history, 0) - hidden(history, fold)).sum()


def test_every_event_lies_in_one_fold() -> None:
    history = timeless()

    each = np.sum([hidden(history, fold) for fold in range(FOLDS)], axis=0)

    assert (each == history.records["count"]).all()
