"""Each simple recommender does what its name says, behind the signature of the Scorer."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from reco.features.pairs import pairs
from reco.models import collaborative
from reco.models.because import because
from reco.models.collaborative import Collaborative
from reco.models.content import Content
from reco.models.rivals import NAMES, rival
from reco.models.slates import Reason, Slates
from tests.model_world import DAY, catalogue_of, histories_of
from tests.test_scorer import NOW, had

CATALOGUE = catalogue_of(300)
HISTORIES = histories_of(CATALOGUE, [0, 3, 20, 60])
ALL = np.ones(len(CATALOGUE), bool)


@pytest.mark.parametrize("name", NAMES)
def test_slates_are_full_allowed_and_new_where_asked(name: str) -> None:
    allowed = np.arange(len(CATALOGUE)) % 2 == 0
    one = rival(name, HISTORIES, CATALOGUE, ALL, DAY, 1, True)

    novel = one.score(HISTORIES, NOW, 5, allowed=allowed, novel_only=True)
    both = one.score(HISTORIES, NOW, 5)

    assert (both.items != 0).all()
    for user in range(len(HISTORIES)):
        rows = CATALOGUE.index.rows(novel.items[user][novel.items[user] != 0])
        assert allowed[rows].all()
        assert not had(HISTORIES, user) & set(novel.items[user].tolist())
        seen = [item in had(HISTORIES, user) for item in both.items[user].tolist()]
        assert seen == (both.reasons[user] == Reason.REPEAT).tolist()


def test_frequency_leads_with_what_was_taken_most() -> None:
    slates = rival("frequency", HISTORIES, CATALOGUE, ALL, DAY, 1, True).score(HISTORIES, NOW, 5)
    found = pairs(HISTORIES, DAY, 1)
    mine = slice(*found.offsets[3:5])
    most = found.item[mine][np.argsort(-found.decayed[mine, 1], kind="stable")][:5]

    assert set(slates.items[3].tolist()) == set(most.tolist())


@pytest.mark.parametrize("most", [0, 4_000])
def test_both_ways_to_collaborate_find_what_goes_together(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two circles of subscribers; one has not yet taken an item of its circle."""
    monkeypatch.setattr(collaborative, "EASE_ITEMS", most)
    taken = np.zeros((40, 20), np.float32)
    taken[:20, :10] = taken[20:, 10:] = 1
    taken[0, 3] = 0
    bags = sp.csr_matrix(taken)

    scores = Collaborative.fit(bags).scores(bags[:1])[0]

    assert scores[3] > scores[10:].max()


def test_content_finds_the_like_and_says_because_of_what() -> None:
    rows = np.arange(len(CATALOGUE), dtype=np.int32)
    content = Content.of(CATALOGUE, rows, np.full(len(rows), 5.0))
    bags = sp.csr_matrix((np.ones(1, np.float32), ([0], [7])), (1, len(rows)))

    scores = content.scores(bags)[0]
    like = np.flatnonzero(CATALOGUE.category == CATALOGUE.category[7])

    assert scores[like].mean() > 3 * scores.mean()
    picks = np.array([[like[-1], 7, -1]], np.int32)
    slates = replace(Slates.empty(1, 3), reasons=np.full((1, 3), Reason.BOUGHT_TOGETHER, np.uint8))
    assert because(slates, picks, bags, content.likeness)[0].tolist() == [7, -1, -1]
