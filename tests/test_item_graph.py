from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from reco.features.pairs import pairs
from reco.models.artifact import Artifact
from reco.models.item_graph import SMOOTH_WEIGHT, ItemGraph
from reco.models.retrieval import Retrieval
from reco.models.scorer import Scorer
from reco.models.taste import Known, Taste
from reco.models.towers import bag_matrix
from tests.model_world import DAY, START, artifact_of, catalogue_of, histories_of

NOW = START + timedelta(days=DAY)


def took(seed: int, users: int = 40, items: int = 25) -> sp.csr_matrix:
    draw = np.random.default_rng(seed)
    return sp.csr_matrix((draw.random((users, items)) < 0.15).astype(np.float32))


def known_of(bags: sp.csr_matrix) -> Known:
    owner = np.repeat(np.arange(bags.shape[0]), np.diff(bags.indptr)).astype(np.int64)
    age = np.zeros(len(owner), np.float32)
    return Known(owner, bags.indices.astype(np.int32), age, age, np.arange(len(owner)))


def by_the_book(x: sp.csr_matrix) -> npt.NDArray[np.float64]:
    """GF-CF as published: R (P + alpha D^-1/2 U U' D^1/2), here with all singular vectors."""
    r = x.toarray().astype(np.float64)
    users, items = np.maximum(r.sum(axis=1), 1), np.maximum(r.sum(axis=0), 1)
    scaled = r / np.sqrt(users)[:, None] / np.sqrt(items)
    _, s, vt = np.linalg.svd(scaled, full_matrices=False)
    v = vt[s > 1e-6].T
    smooth = (v / np.sqrt(items)[:, None]) @ (v * np.sqrt(r.sum(axis=0))[:, None]).T
    return np.asarray(r @ (scaled.T @ scaled + SMOOTH_WEIGHT * smooth))


@given(seed=st.integers(0, 10_000))
def test_it_scores_as_published(seed: int) -> None:
    x = took(seed)

    found = ItemGraph.of(x, dim=25).scores(known_of(x), 40)

    assert np.allclose(found, by_the_book(x), atol=1e-3)


def test_few_neighbours_are_the_strongest() -> None:
    x = took(1)
    whole, some = ItemGraph.of(x, 8), ItemGraph.of(x, 8, neighbours=3)

    for item in range(25):
        first, last = whole.offsets[item : item + 2]
        strongest = np.sort(whole.weight[first:last])[::-1][:3]
        first, last = some.offsets[item : item + 2]
        assert np.allclose(np.sort(some.weight[first:last])[::-1], strongest)


def test_an_item_that_nobody_took_leads_nowhere() -> None:
    x = sp.hstack([took(2), sp.csr_matrix((40, 1), dtype=np.float32)], format="csr")

    graph = ItemGraph.of(x, 8)

    assert graph.offsets[25] == graph.offsets[26]
    assert not graph.taken[25].any()
    assert np.isfinite(graph.scores(known_of(x), 40)).all()


def test_it_retrieves_the_best_of_what_is_new_and_may_be_shown(tmp_path: Path) -> None:
    """Through a saved artifact, by the candidates that the explore head is given."""
    catalogue = catalogue_of(300)
    graph = ItemGraph.of(took(3, items=300), 16)
    replace(artifact_of(catalogue, repeats=False), graph=graph).save(str(tmp_path / "v1"))
    artifact = Artifact.load(str(tmp_path / "v1"))
    chunk = histories_of(catalogue, [5, 30, 80])
    p = pairs(chunk, DAY)
    known = Known.of(p, catalogue.index.rows(p.item), DAY)
    taste = Taste.of(p, known, 3, artifact.statistics)
    usable = np.arange(300) % 2 == 0

    retrieval = Retrieval.of(artifact.towers, artifact.graph)
    bags = bag_matrix(p, known, 3, 300)
    found = retrieval.find(bags, known, taste, np.zeros((3, 1), np.uint32), 8, usable)

    scores = graph.scores(known, 3)
    scores[known.owner, known.row] = -1
    scores[:, ~usable] = -1
    assert (found.row == np.argsort(-scores, axis=1)[:, :8]).all()
    assert np.allclose(np.exp(found.retrieval), np.take_along_axis(scores, found.row, axis=1))


def test_an_artifact_with_a_graph_gives_full_slates() -> None:
    catalogue = catalogue_of(300)
    graph = ItemGraph.of(took(3, items=300), 16)
    scorer = Scorer(replace(artifact_of(catalogue, repeats=False), graph=graph), catalogue, "v1")

    slates = scorer.score(histories_of(catalogue, [0, 3, 80]), NOW, 20)

    assert (slates.items != 0).all()
