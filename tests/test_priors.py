"""Somebody new: an answer, a source or nothing at all make three different, full slates."""

from dataclasses import replace

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from reco.features.profile import token, tokens_of, words_of
from reco.models.lookalike import Lookalike
from reco.models.priors import category_priors
from reco.models.scorer import Scorer
from reco.models.slates import Rung
from tests.model_world import artifact_of, catalogue_of, histories_of
from tests.test_scorer import NOW

CATALOGUE = catalogue_of(1_000)
NAMES = ["cheese", "fresh bread", *(f"aisle {i}" for i in range(58))]


def scorer() -> Scorer:
    """A model whose sixty categories have names; every sixtieth item is a cheese."""
    artifact = artifact_of(CATALOGUE)
    category = (np.arange(1_000) % 60).astype(np.int32)
    share = artifact.statistics.share
    priors = category_priors(NAMES, category, share)
    return Scorer(
        replace(artifact, lookalike=artifact.lookalike.with_priors(priors, share)), CATALOGUE, "v1"
    )


def slates_of(*profiles: dict[str, object]) -> np.ndarray:
    """Rows [n, 20] for subscribers without any history."""
    nobody = histories_of(CATALOGUE, [0] * len(profiles))
    found = scorer().score(replace(nobody, tokens=tokens_of(profiles)), NOW, 20)
    assert (found.rungs == Rung.LOOKALIKE).all()
    return CATALOGUE.index.rows(found.items)


def test_an_answer_a_source_and_nothing_make_three_full_slates() -> None:
    answer, source, nothing = slates_of(
        {"attributes": {"interests": ["cheese"]}},
        {"signup_source": "https://shop.example/landing/bread?utm_source=post"},
        {},
    ).tolist()

    for slate in (answer, source, nothing):
        assert min(slate) >= 0
        assert len(set(slate)) == 20
    assert nothing == list(range(20))  # the popular ones
    assert answer[0] % 60 == 0
    assert sum(row % 60 == 0 for row in answer) > sum(row % 60 == 0 for row in nothing)
    assert sum(row % 60 == 1 for row in source) > sum(row % 60 == 1 for row in nothing)
    assert answer != source


def test_an_answer_says_more_than_a_source() -> None:
    answer, source = slates_of(
        {"attributes": {"interests": ["cheese"]}}, {"signup_source": "cheese"}
    )

    assert (answer % 60 == 0).sum() >= (source % 60 == 0).sum()


def test_several_answers_are_all_heard() -> None:
    (slate,) = slates_of({"attributes": {"interests": ["cheese", "fresh bread"]}})

    assert {0, 1} <= set((slate[:6] % 60).tolist())


def test_a_word_of_many_categories_says_nothing() -> None:
    slate, nothing = slates_of({"signup_source": "aisle"}, {})

    assert slate.tolist() == nothing.tolist()


def test_a_category_named_by_the_word_alone_is_meant_by_it() -> None:
    names = ["comedy", "comedy drama", "comedy crime", "comedy war", "comedy romance"]
    share = np.linspace(0.2, 0.1, 50).astype(np.float32)
    priors = category_priors(names, (np.arange(50) % 5).astype(np.int32), share)

    _, raised = priors[token("source_word", "comedy")]

    assert set(raised.tolist()) == set(range(0, 50, 5))


@given(st.text(max_size=60))
@example("AA\u00b2\u00b2")
def test_words_are_lower_case_letters_and_stand_once(text: str) -> None:
    words = words_of(text)

    assert len(words) == len(set(words))
    assert all(len(w) >= 4 and not any(c.isdigit() or c == "_" for c in w) for w in words)


def test_priors_change_no_segment() -> None:
    artifact = artifact_of(CATALOGUE)
    before, share = artifact.lookalike, artifact.statistics.share

    after = before.with_priors({7: (1.0, np.array([3, 900], np.int32))}, share)

    profiles = np.array([[11], [22], [0]], np.uint32)
    old, new = before.probabilities(profiles), after.probabilities(profiles)
    assert (after.rows[:50] == before.rows).all()
    assert after.rows[50:].tolist() == [900]
    assert np.allclose(old, new[:, :50])
    assert isinstance(after, Lookalike)
