"""Off-policy evaluation against simulations with a known truth, and on a real log."""

import math
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reco.errors import InputError
from reco.experiments.off_policy import Policy, evaluate

OBD = Path(os.environ.get("TEST_DATA", "/nowhere")) / "obd"


def softmax(values):
    exp = np.exp(values - values.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


def simulate(seed, n=2_000, actions=6):
    """A log of contextual decisions with a known mean reward of the new policy."""
    rng = np.random.default_rng(seed)
    taste = np.random.default_rng(99).normal(size=(4, actions))
    context = rng.normal(size=(n, 4))
    rate = 0.05 + 0.4 / (1 + np.exp(-(context @ taste)))
    old, new = softmax(0.5 * context[:, :1] + 0.3 * (context @ taste)), softmax(context @ taste)
    action = (rng.random((n, 1)) > old.cumsum(axis=1)).sum(axis=1).clip(max=actions - 1)
    rows = np.arange(n)
    reward = (rng.random(n) < rate[rows, action]).astype(float)
    guess = rate * 0.8 + 0.05  # a reward model that is wrong, but not useless
    policy = Policy(new[rows, action], guess[rows, action], (new * guess).sum(axis=1))
    return reward, old[rows, action], policy


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(7)
    taste = np.random.default_rng(99).normal(size=(4, 6))
    context = rng.normal(size=(400_000, 4))
    rate = 0.05 + 0.4 / (1 + np.exp(-(context @ taste)))
    return float((softmax(context @ taste) * rate).sum(axis=1).mean())


@pytest.mark.slow
def test_the_truth_is_within_two_standard_errors_in_most_of_200_runs(truth):
    hits = dict.fromkeys(("ips", "snips", "dr"), 0)
    errors = dict.fromkeys(hits, 0.0)
    for seed in range(200):
        for e in evaluate(*simulate(seed), seed=seed).estimates:
            hits[e.method] += abs(e.value.value - truth) < 2 * e.standard_error
            errors[e.method] += (e.value.value - truth) ** 2

    assert min(hits.values()) >= 0.93 * 200, hits
    assert errors["dr"] < errors["ips"], errors


def test_the_old_policy_itself_is_worth_what_it_earned():
    reward, logged, _ = simulate(3)

    found = evaluate(reward, logged, Policy(logged))

    assert [e.value.value for e in found.estimates] == pytest.approx([reward.mean()] * 2)
    assert [e.gain.value for e in found.estimates] == pytest.approx([0, 0])
    assert found.overlap.effective == len(reward)
    assert found.passes()


def test_a_better_policy_passes_the_gate_and_a_worse_one_does_not():
    reward, logged, policy = simulate(1, n=20_000)

    assert evaluate(reward, logged, policy).passes()
    worse = np.where(reward > 0, logged * 0.5, np.minimum(logged * 1.2, 1.0))
    assert not evaluate(reward, logged, Policy(worse)).passes()


def test_a_log_without_overlap_is_refused():
    reward, logged, _ = simulate(1)

    found = evaluate(reward, logged, Policy(np.zeros_like(logged)))

    assert () == found.estimates
    assert "Only 0 of 2000 units" in found.overlap.warning
    assert not found.passes()


def test_few_heavy_decisions_are_refused():
    reward, logged, _ = simulate(1)
    few = np.where(np.arange(len(logged)) < 20, 1.0, 0.0)

    assert "units speak of the new policy" in evaluate(reward, logged, Policy(few)).overlap.warning


def test_decisions_that_were_never_possible_are_noticed():
    reward, logged, policy = simulate(1)

    found = evaluate(reward, logged, Policy(policy.propensity * 0.5))

    assert "average 0.5" in found.overlap.warning


def test_decisions_of_one_unit_are_drawn_together():
    reward, logged, policy = simulate(1)
    mails = np.arange(len(reward))
    twice = Policy(np.tile(policy.propensity, 2))
    apart = evaluate(np.tile(reward, 2), np.tile(logged, 2), twice)
    together = evaluate(np.tile(reward, 2), np.tile(logged, 2), twice, units=np.tile(mails, 2))

    once = evaluate(reward, logged, Policy(policy.propensity)).estimates[1].standard_error

    assert together.estimates[1].standard_error == pytest.approx(once, rel=0.15)
    assert apart.estimates[1].standard_error < 0.85 * once


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0.2, 1)), min_size=150, max_size=200))
@settings(max_examples=20, deadline=None)
def test_snips_stays_within_the_rewards(rows):
    reward, logged = np.array(rows, float).T

    for e in evaluate(reward, logged, Policy(np.full(len(rows), 0.5))).estimates:
        if e.method == "snips":
            assert reward.min() <= e.value.value <= reward.max()


@pytest.mark.parametrize("logged", [[0.0, 0.5], [1.5, 0.5], [0.5], [math.nan, 0.5]])
def test_impossible_propensities_are_refused(logged):
    with pytest.raises(InputError):
        evaluate(np.array([0.0, 1.0]), np.array(logged), Policy(np.array([0.5, 0.5])))


@pytest.mark.skipif(not OBD.exists(), reason="TEST_DATA has no Open Bandit Dataset")
def test_the_uniform_policy_is_found_in_the_log_of_a_learning_one():
    """Both policies ran at the same shop in the same week, so the truth was measured."""
    learned = pl.read_parquet(OBD / "bts_all.parquet")
    uniform = pl.read_parquet(OBD / "random_all.parquet")
    chance = float(uniform["propensity_score"][0])

    found = evaluate(
        learned["click"].to_numpy().astype(float),
        learned["propensity_score"].to_numpy(),
        Policy(np.full(len(learned), chance)),
    )

    measured = float(uniform["click"].mean())
    for e in found.estimates:
        assert e.value.low <= measured <= e.value.high
    assert found.estimates or found.overlap.warning
