"""Assignment: stable, uniform, independent, and blind to changes of traffic."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reco.errors import ConfigError
from reco.experiments.assignment import (
    HOLDOUT,
    OUTSIDE,
    Experiment,
    Holdout,
    arms,
    assign,
    positions,
)

ROOT = Path(__file__).parents[1]
IDS = [str(i) for i in range(1, 200_001)]
USER_IDS = st.lists(st.text(max_size=20), max_size=30)


def test_golden_positions_never_change():
    """These numbers are promised: a finished experiment must stay readable by later versions."""
    golden = {
        "1": 0.016113356573671633,
        "2": 0.2832601979296945,
        "household-7": 0.727792187374,
        "münchen": 0.8300034938740687,
        "": 0.9935055833752223,
    }

    assert list(golden.values()) == positions("spring-2026", list(golden)).tolist()


def test_golden_arms_never_change():
    users = [str(i) for i in range(1, 13)]

    assert ["control", *["personal"] * 10, "control"] == arms(
        "spring-2026", users, {"control": 0.2, "personal": 0.8}
    )


def test_golden_assignment_with_share_and_holdout_never_changes():
    users = [str(i) for i in range(1, 9)]
    experiment = Experiment("spring-2026", {"control": 0.2, "personal": 0.8}, share=0.5)

    assert assign(experiment, users, holdout=Holdout("2026Q1", 0.25)) == [
        HOLDOUT, OUTSIDE, "personal", "personal", HOLDOUT, "personal", OUTSIDE, HOLDOUT,
    ]  # fmt: skip


def test_another_process_draws_the_same_arms():
    """Python's own hash is salted per process; ours must not be."""
    code = (
        "from reco.experiments.assignment import arms;"
        "print(arms('s', [str(i) for i in range(500)], {'a': 1, 'b': 2, 'c': 3}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert str(arms("s", [str(i) for i in range(500)], {"a": 1, "b": 2, "c": 3})) == (
        run.stdout.strip()
    )


@pytest.mark.parametrize("salt", [f"salt-{i}" for i in range(5)])
def test_three_arms_get_their_weights(salt):
    weights = {"control": 0.1, "a": 0.3, "b": 0.6}
    counts = Counter(arms(salt, IDS, weights))
    observed = [counts[arm] for arm in weights]

    assert stats.chisquare(observed, [w * len(IDS) for w in weights.values()]).pvalue > 0.001


def test_positions_are_uniform():
    counts, _ = np.histogram(positions("uniform", IDS), bins=100, range=(0, 1))

    assert stats.chisquare(counts).pvalue > 0.001


def test_two_experiments_are_independent():
    halves = {"control": 1, "treated": 1}
    pairs = Counter(zip(arms("first", IDS, halves), arms("second", IDS, halves), strict=True))
    table = [[pairs[a, b] for b in halves] for a in halves]

    assert stats.chi2_contingency(table).pvalue > 0.001


def test_inclusion_and_variant_are_independent():
    experiment = Experiment("one", {"a": 1, "b": 1}, share=0.3)
    inside = [arm for arm in assign(experiment, IDS) if arm != OUTSIDE]

    assert stats.binomtest(inside.count("a"), len(inside)).pvalue > 0.001
    assert stats.binomtest(len(inside), len(IDS), 0.3).pvalue > 0.001


@given(USER_IDS, st.floats(0, 1), st.floats(0, 1))
def test_more_traffic_moves_nobody_who_was_assigned(user_ids, one, other):
    small, large = sorted((one, other))
    before = assign(Experiment("e", {"a": 1, "b": 2}, small), user_ids)
    after = assign(Experiment("e", {"a": 1, "b": 2}, large), user_ids)

    assert all(b in (OUTSIDE, a) for b, a in zip(before, after, strict=True))


@given(USER_IDS, st.floats(0, 1))
def test_a_holdout_only_takes_subscribers_out(user_ids, share):
    experiment = Experiment("e", {"a": 1, "b": 2}, 0.5)
    without = assign(experiment, user_ids)
    with_holdout = assign(experiment, user_ids, holdout=Holdout("h", share))

    assert all(w in (HOLDOUT, o) for w, o in zip(with_holdout, without, strict=True))


@given(USER_IDS)
def test_the_full_share_is_plain_arms(user_ids):
    weights = {"a": 0.5, "b": 0.5}

    assert arms("e", user_ids, weights) == assign(Experiment("e", weights), user_ids)


@given(
    USER_IDS,
    st.dictionaries(st.text(max_size=5), st.floats(0, 1e6), min_size=1, max_size=6).filter(
        lambda weights: sum(weights.values()) > 0
    ),
)
def test_an_arm_without_weight_gets_nobody(user_ids, weights):
    assert all(weights[arm] > 0 for arm in arms("e", user_ids, weights))


@given(USER_IDS, st.integers(1, 1000))
def test_only_the_proportion_of_weights_counts(user_ids, factor):
    assert arms("e", user_ids, {"a": 1, "b": 3}) == arms(
        "e", user_ids, {"a": factor, "b": 3 * factor}
    )


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({}, "above 0"),
        ({"a": 0.0}, "above 0"),
        ({"a": 1.0, "b": -0.5}, "'b': -0.5"),
        ({"a": float("nan")}, "nan"),
    ],
)
def test_weights_that_cannot_be_drawn_are_refused(weights, said):
    with pytest.raises(ConfigError, match=said):
        arms("e", ["1"], weights)


def test_a_share_outside_its_range_is_refused():
    with pytest.raises(ConfigError, match=r"share of 1\.5"):
        Experiment("e", {"a": 1}, share=1.5)
    with pytest.raises(ConfigError, match=r"share of -0\.1"):
        Holdout("h", -0.1)


def test_reserved_arm_names_and_empty_salts_are_refused():
    with pytest.raises(ConfigError, match="'holdout'"):
        Experiment("e", {HOLDOUT: 1})
    with pytest.raises(ConfigError, match="salt"):
        arms("", ["1"], {"a": 1})
