from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from reco.models.item_tokens import content_tokens
from reco.models.losses import Answers, draw_negatives, full_softmax, sampled_loss, sampled_softmax
from reco.models.retrieval import retrieve
from reco.models.spectral import Spectrum
from reco.models.taste import USER_COLUMNS, Known
from reco.models.two_tower import Bags, TwoTower
from tests.model_world import catalogue_of

USERS, ITEMS, DIM = 200, 120, 16


def bags_of_two_tastes(seed: int = 0) -> sp.csr_matrix:
    """Even users take mostly even items, odd users odd ones."""
    draw = np.random.default_rng(seed)
    like = (np.arange(USERS)[:, None] + np.arange(ITEMS)) % 2 == 0
    return sp.csr_matrix(
        (draw.random((USERS, ITEMS)) < np.where(like, 0.15, 0.01)).astype(np.float32)
    )


BAGS = bags_of_two_tastes()
SPECTRUM = Spectrum.of(BAGS, BAGS, DIM)


def towers() -> TwoTower:
    prior = np.full(ITEMS, -3, np.float32)
    return TwoTower(SPECTRUM, prior, content_tokens(catalogue_of(ITEMS), np.arange(ITEMS)))


def batch(matrix: sp.csr_matrix) -> Bags:
    users = matrix.shape[0]
    return Bags(
        torch.from_numpy(matrix.indices.astype(np.int64)),
        torch.from_numpy(matrix.data),
        torch.from_numpy(matrix.indptr[:-1].astype(np.int64)),
        torch.zeros((users, 2), dtype=torch.long),
        torch.zeros((users, len(USER_COLUMNS))),
    )


def test_the_spectrum_separates_two_tastes_without_training() -> None:
    logits = towers().eval()
    with torch.no_grad():
        scores = logits.logits(logits.users(batch(BAGS)), logits.items()).numpy()

    like = (np.arange(USERS)[:, None] + np.arange(ITEMS)) % 2 == 0
    assert scores[like].mean() > scores[~like].mean() + 2


def test_two_workers_with_half_of_the_users_each_find_the_same_vectors() -> None:
    barrier, sent = Barrier(2), {}

    def worker(mine: int) -> Spectrum:
        def add_up(x: np.ndarray) -> np.ndarray:
            sent[mine] = x
            barrier.wait()
            total = sent[0] + sent[1]
            barrier.wait()
            return total

        half = BAGS[:90] if mine == 0 else BAGS[90:]
        return Spectrum.of(half, half, DIM, reduce=add_up)

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(worker, [0, 1])

    assert np.allclose(one.taken, two.taken)
    assert np.allclose(one.taken @ one.item.T, SPECTRUM.taken @ SPECTRUM.item.T, atol=1e-3)


def test_an_aligned_spectrum_lies_in_the_frame_of_the_other() -> None:
    later = Spectrum.of(bags_of_two_tastes(1), BAGS, DIM, seed=5)

    aligned = later.aligned_to(SPECTRUM)

    def apart(x: Spectrum) -> float:
        return float(np.linalg.norm(x.taken - SPECTRUM.taken))

    assert apart(aligned) < apart(later)
    assert np.allclose(aligned.taken @ aligned.item.T, later.taken @ later.item.T, atol=1e-4)


def test_vectors_have_length_one_and_the_scale_is_learned() -> None:
    model = towers()

    assert torch.allclose(model.users(batch(BAGS)).norm(dim=1), torch.ones(USERS), atol=1e-5)
    assert torch.allclose(model.items().norm(dim=1), torch.ones(ITEMS), atol=1e-5)
    assert model.log_scale.requires_grad
    assert torch.isclose(model.scale, torch.tensor(7.0))


@pytest.mark.parametrize("kind", ["full", "sampled"])
def test_ten_steps_lower_the_loss(kind: str) -> None:
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    model, answers = towers(), Answers(bags_of_two_tastes(2), sp.csr_matrix(BAGS.shape))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(10):
        if kind == "full":
            loss = full_softmax(model, batch(BAGS), answers, 0.0)
        else:
            negatives = draw_negatives(np.full(ITEMS, 1 / ITEMS), 64, True, draw)
            loss = sampled_softmax(model, batch(BAGS), answers, negatives, "corrected", 0.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(full_softmax(model, batch(BAGS), answers, 0.0).item())

    assert losses[-1] < losses[0] - 0.1


def test_under_uniform_sampling_the_classic_correction_changes_nothing() -> None:
    torch.manual_seed(0)
    positive, negatives = torch.randn(5), torch.randn(5, 40)
    level = torch.full((40,), -2.3)

    classic = sampled_loss(positive, negatives, level, level[:5], "classic")

    assert torch.allclose(classic, sampled_loss(positive, negatives, level, level[:5], "none"))


def test_the_corrected_gradient_is_that_of_the_full_softmax() -> None:
    """Sampling every other item once, in expectation and in fact, must give the exact gradient."""
    torch.manual_seed(0)
    logits = torch.randn(1, 30, requires_grad=True)
    exact = torch.autograd.grad(-torch.log_softmax(logits, dim=1)[0, 3], logits)[0]
    others = [i for i in range(30) if i != 3]
    nothing = torch.zeros(29)

    loss = sampled_loss(logits[:, 3], logits[:, others], nothing, nothing[:1], "corrected")

    assert torch.allclose(torch.autograd.grad(loss.sum(), logits)[0], exact, atol=1e-6)


def test_mixed_negatives_are_expected_as_often_as_they_are_drawn() -> None:
    draw = np.random.default_rng(0)
    frequency = 1 / np.arange(1, 21)
    frequency /= frequency.sum()

    sample = draw_negatives(frequency, 200_000, True, draw)

    seen = np.bincount(sample.items, minlength=20)
    assert np.allclose(seen, sample.expected_of(np.arange(20, dtype=np.int32)), rtol=0.05)


def test_folded_towers_are_the_module() -> None:
    model = towers().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
        expected = model.logits(model.users(batch(BAGS)), model.items()).numpy()
    folded = model.fold()
    users = BAGS @ folded.taken
    users /= np.linalg.norm(users, axis=1, keepdims=True)
    profile = folded.profile[[0, 0]].sum(axis=0)
    users = users + profile
    users /= np.linalg.norm(users, axis=1, keepdims=True)

    assert np.allclose(users @ folded.item.T + folded.bias, expected, atol=1e-3)


def test_what_is_known_is_not_a_candidate() -> None:
    users = np.ones((1, 4), np.float32)
    known = Known(
        np.zeros(2, np.int64), np.array([1, 3], np.int32), *(np.zeros(2, np.float32),) * 2,
        np.arange(2),
    )  # fmt: skip

    found = retrieve(users, torch.eye(5, 4), np.arange(5, dtype=np.float32), known, 5)

    assert found.row[0, :3].tolist() == [4, 2, 0]
    assert found.valid[0].tolist() == [True, True, True, False, False]


def test_content_tokens_tell_items_apart_by_what_they_are() -> None:
    tokens = content_tokens(catalogue_of(200), np.arange(200))

    assert tokens.shape[0] == 200
    assert tokens[0, 0] == tokens[60, 0] != tokens[1, 0]  # category c0, c0, c1
    assert (tokens[:, :3] > 0).all()
