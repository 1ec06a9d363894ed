from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from reco.features.history import NO_PROFILING, Histories
from reco.features.pairs import pairs
from reco.models.artifact import TOUCHED
from reco.models.because import MOST
from reco.models.scorer import Scorer
from reco.models.slates import Reason, Rung, Slates
from reco.models.spectral import bag_weights
from reco.tables import type_code
from tests.model_world import DAY, artifact_of, catalogue_of, histories_of

CATALOGUE = catalogue_of(1_500)
NOW = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=DAY)
SIZES = [0, 1, 3, 8, 60, 400, 900]


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(artifact_of(CATALOGUE), CATALOGUE, "v1")


@pytest.fixture(scope="module")
def histories() -> Histories:
    return histories_of(CATALOGUE, SIZES, tokens=[11, 11, 0, 0, 22, 0, 0])


def had(histories: Histories, user: int) -> set[int]:
    return set(histories.take(user, user + 1).records["item"].tolist())


def test_every_place_is_filled_with_distinct_items_in_order(
    scorer: Scorer, histories: Histories
) -> None:
    slates = scorer.score(histories, NOW, 20)

    assert (slates.items != 0).all()
    assert all(len(set(row)) == 20 for row in slates.items.tolist())
    assert (np.diff(slates.scores, axis=1) <= 0).all()
    assert ((slates.scores >= 0) & (slates.scores <= 1)).all()
    assert (slates.reasons != Reason.NONE).all()


def test_repeats_say_so_and_novel_only_has_none(scorer: Scorer, histories: Histories) -> None:
    both, novel = (
        scorer.score(histories, NOW, 20),
        scorer.score(histories, NOW, 20, novel_only=True),
    )

    for user in range(len(histories)):
        seen = had(histories, user)
        repeated = [item in seen for item in both.items[user].tolist()]
        assert (both.reasons[user] == Reason.REPEAT).tolist() == repeated
        assert not seen & set(novel.items[user].tolist())
    assert (both.reasons == Reason.REPEAT).any()


def test_a_pick_that_goes_with_the_history_names_what_they_took(histories: Histories) -> None:
    """The item whose vector, by its weight in the history, speaks most for the pick."""
    model = artifact_of(CATALOGUE)
    few = np.arange(128) < 6  # directions, so that some vectors are near each other
    towers = replace(model.towers, taken=model.towers.taken * few, item=model.towers.item * few)
    model = replace(model, towers=towers)
    slates = Scorer(model, CATALOGUE, "v1").score(histories, NOW, 200, novel_only=True)
    assert slates.because is not None
    together = slates.reasons == Reason.BOUGHT_TOGETHER

    assert together.any()
    assert not slates.because[~together].any()
    for user, place in np.argwhere(together & (slates.because != 0)).tolist():
        assert int(slates.because[user, place]) in had(histories, user)
    user, place = np.argwhere(together)[0].tolist()
    seen = np.unique(histories.take(user, user + 1).records["item"])
    assert len(seen) <= MOST
    p = pairs(histories.take(user, user + 1), DAY)
    weight = bag_weights(p.decayed[:, 1])
    pick = CATALOGUE.index.rows(slates.items[user, place : place + 1])
    row = CATALOGUE.index.rows(p.item)
    speaks = weight * (model.towers.taken[row] @ model.towers.item[pick[0]])
    assert slates.because[user, place] == p.item[speaks.argmax()]


def test_what_they_looked_at_is_shown_where_that_is_evidence(histories: Histories) -> None:
    """Half of the history is views; who leaves out what was bought still shows what was not."""
    records = histories.records.copy()
    half = records["item"] % 2 == 0
    records["type"][half] = type_code("view")
    mixed = Histories.of(histories.owner, records, len(histories), histories.tokens)
    model = artifact_of(CATALOGUE)
    counting = replace(model, config=replace(model.config, settings={TOUCHED: True}))

    blind = Scorer(model, CATALOGUE, "v1").score(mixed, NOW, 20)
    both = Scorer(counting, CATALOGUE, "v1").score(mixed, NOW, 20)
    novel = Scorer(counting, CATALOGUE, "v1").score(mixed, NOW, 20, novel_only=True)

    assert not (blind.reasons == Reason.LOOKED_AT).any()
    for slates in (both, novel):
        looked = slates.reasons == Reason.LOOKED_AT
        assert looked.any()
        assert (slates.items[looked] % 2 == 0).all()
    assert (both.items[both.reasons == Reason.REPEAT] % 2 == 1).all()
    for user in range(len(histories)):
        bought = {item for item in had(histories, user) if item % 2}
        assert not bought & set(novel.items[user].tolist())


def test_a_shop_without_repeats_never_shows_what_they_had(histories: Histories) -> None:
    films = Scorer(artifact_of(CATALOGUE, repeats=False), CATALOGUE, "v1")

    slates = films.score(histories, NOW, 20)

    for user in range(len(histories)):
        assert not had(histories, user) & set(slates.items[user].tolist())


def test_only_allowed_items_are_shown_and_the_rest_stays_empty(
    scorer: Scorer, histories: Histories
) -> None:
    allowed = np.zeros(len(CATALOGUE), bool)
    allowed[100:110] = True

    slates = scorer.score(histories, NOW, 20, allowed=allowed)

    rows = CATALOGUE.index.rows(slates.items)
    assert set(rows[rows >= 0].tolist()) <= set(range(100, 110))
    assert ((slates.items != 0).sum(axis=1) <= 10).all()
    assert (slates.scores[slates.items == 0] == 0).all()
    warm = np.array(SIZES) >= 5
    assert ((slates.items[warm] != 0).sum(axis=1) == 10).all()


def test_without_history_the_profile_decides(scorer: Scorer) -> None:
    cold = histories_of(CATALOGUE, [0, 0, 0], tokens=[11, 22, 0])

    slates = scorer.score(cold, NOW, 20)

    assert (slates.rungs == Rung.LOOKALIKE).all()
    assert (slates.reasons == Reason.SIMILAR_PEOPLE).all()
    rows = CATALOGUE.index.rows(slates.items)
    assert rows[2].tolist() == list(range(20))  # nothing known: by popularity
    theirs = set(range(30, 50))  # what token 22 takes, and token 11 does not
    assert len(theirs & set(rows[1].tolist())) > len(theirs & set(rows[2].tolist()))
    assert not theirs & set(rows[0].tolist())


def test_a_refused_profile_is_not_read(scorer: Scorer) -> None:
    known = histories_of(CATALOGUE, [0, 0], tokens=[22, 0])
    refused = Histories(
        known.records, known.offsets, known.tokens, np.array([NO_PROFILING, 0], np.uint16)
    )

    slates = scorer.score(refused, NOW, 10)

    assert (slates.items[0] == slates.items[1]).all()


def test_a_subscriber_does_not_depend_on_the_chunk(scorer: Scorer, histories: Histories) -> None:
    whole = scorer.score(histories, NOW, 20)

    parts = [scorer.score(histories.take(i, i + 1), NOW, 20) for i in range(len(histories))]

    for i, part in enumerate(parts):
        assert (part.items[0] == whole.items[i]).all()
        assert np.allclose(part.scores[0], whole.scores[i], atol=1e-5)


def test_what_comes_later_changes_nothing(scorer: Scorer, histories: Histories) -> None:
    later = histories.records.copy()
    later["day"] = DAY + np.arange(len(later)) % 40
    future = Histories.of(histories.owner, later, len(histories), histories.tokens)

    before, after = (scorer.score(h, NOW, 20) for h in (histories, histories.merge(future)))

    assert (before.items == after.items).all()
    assert before.scores.tobytes() == after.scores.tobytes()


def test_an_empty_chunk_gives_empty_slates(scorer: Scorer) -> None:
    nobody = histories_of(CATALOGUE, [])

    assert len(scorer.score(nobody, NOW, 5)) == 0


def test_a_catalogue_without_some_items_hides_them(histories: Histories) -> None:
    smaller = type(CATALOGUE)(CATALOGUE.frame[:700])

    slates: Slates = Scorer(artifact_of(CATALOGUE), smaller, "v1").score(histories, NOW, 20)

    assert (smaller.index.rows(slates.items)[slates.items != 0] >= 0).all()
