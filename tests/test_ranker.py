import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reco.models.calibration import Calibration
from reco.models.metrics import calibration_error
from reco.models.ranker import Head


def test_a_head_starts_as_the_feature_it_is_told() -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(3, 2, (500, 4)).astype(np.float32))
    head = Head(4)
    head.standardise(x.mean(dim=0), x.std(dim=0))

    head.start_from(2, offset=-1.0)

    assert np.allclose(head.logits(x.numpy()), x[:, 2].numpy() - 1, atol=1e-4)


def test_blocks_of_rows_change_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(5_000, 6)).astype(np.float32)
    head = Head(6).eval()

    whole = head(torch.from_numpy(x)).detach().numpy()

    assert np.allclose(head.logits(x), whole, atol=1e-5)
    assert head.logits(x[:0]).shape == (0,)


def test_a_constant_feature_does_no_harm() -> None:
    x = np.ones((10, 3), np.float32)
    head = Head(3)
    head.standardise(torch.ones(3), torch.zeros(3))

    assert np.isfinite(head.logits(x)).all()


def test_calibration_finds_the_probabilities_behind_the_logits() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 2, 60_000).astype(np.float32)
    user = draw.normal(size=(60_000, 2)).astype(np.float32)
    truth = 1 / (1 + np.exp(-(0.5 * logits - 1.5 + 0.7 * user[:, 0])))
    happened = draw.random(60_000) < truth

    found = Calibration.fit(logits, user, happened)

    probability = found.probability(logits, user).astype(np.float64)
    assert calibration_error(probability, happened.astype(float)) < 0.01
    assert np.isclose(found.slope, 0.5, atol=0.05)
    assert np.isclose(found.user[0], 0.7, atol=0.05)


@pytest.mark.parametrize("offset", [-9, 25])
def test_calibration_of_rare_hits_finds_their_rate_from_far_away(offset: int) -> None:
    draw = np.random.default_rng(0)
    logits = (draw.normal(0, 3, 100_000) + offset).astype(np.float32)
    truth = 1 / (1 + np.exp(-(0.5 * (logits - offset) - 6)))
    happened = draw.random(100_000) < truth
    nobody = np.zeros((100_000, 0), np.float32)

    probability = Calibration.fit(logits, nobody, happened).probability(logits, nobody)

    assert np.isclose(probability.mean(), happened.mean(), rtol=0.1)
    assert len(np.unique(probability)) > 1_000


def test_few_rows_leave_the_identity_nearly_alone() -> None:
    found = Calibration.fit(np.zeros(1, np.float32), np.zeros((1, 0), np.float32), np.ones(1, bool))

    assert np.isclose(found.slope, 1)
    assert abs(found.intercept) < 0.6


@given(st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=50))
def test_probabilities_keep_the_order_and_stay_between_zero_and_one(logits: list[float]) -> None:
    x = np.sort(np.array(logits, np.float32))
    user = np.zeros((len(x), 1), np.float32)

    p = Calibration(0.8, -2.0, (1.0,)).probability(x, user)

    assert (np.diff(p) >= 0).all()
    assert ((p >= 0) & (p <= 1)).all()
