"""Statistics: known answers, properties, and simulations with a known truth (fixed seeds)."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reco.errors import InputError
from reco.experiments.sequential import always_valid, harmful
from reco.experiments.statistics import (
    Sample,
    adjust,
    compare,
    false_discovery,
    linearise,
    sample_ratio,
    sample_size,
    winsorise,
)

VALUES = st.lists(st.floats(0, 1e4, width=32), min_size=2, max_size=40)
COUNTS = st.integers(2, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def share_of(events, n):
    return Sample.of(np.arange(n) < events, share=True)


# Known answers


def test_means_are_compared_as_by_welch():
    rng = np.random.default_rng(1)
    a, b = rng.gamma(2, 3, 80), rng.gamma(1, 4, 120)
    expected = stats.ttest_ind(a, b, equal_var=False)
    result = compare(Sample.of(a), Sample.of(b))

    assert result.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert (result.difference.low, result.difference.high) == pytest.approx(
        tuple(expected.confidence_interval()), rel=1e-9
    )


def test_shares_are_compared_as_in_newcombes_published_example():
    """Newcombe (1998), table II, method 10: 56/70 against 48/80 gives 0.0524 to 0.3339."""
    result = compare(share_of(56, 70), share_of(48, 80))

    assert (result.difference.low, result.difference.high) == pytest.approx(
        (0.0524, 0.3339), abs=5e-5
    )


def test_a_share_without_events_still_has_an_interval():
    none = share_of(0, 50).interval()

    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(0.0713, abs=1e-4)
    assert compare(share_of(0, 50), share_of(0, 50)).difference.high > 0.05


def test_a_ratio_has_the_delta_methods_variance():
    rng = np.random.default_rng(2)
    mails = rng.integers(1, 9, 500).astype(float)
    clicks = rng.binomial(mails.astype(int), 0.2).astype(float)
    values = linearise(clicks, mails)
    m, v = mails.mean(), np.cov(clicks, mails)
    ratio = clicks.sum() / mails.sum()
    delta = (v[0, 0] - 2 * ratio * v[0, 1] + ratio**2 * v[1, 1]) / m**2

    assert values.mean() == pytest.approx(ratio)
    assert values.var(ddof=1) == pytest.approx(delta)


def test_a_ratio_without_denominator_is_refused():
    with pytest.raises(InputError, match="denominator"):
        linearise(np.zeros(3), np.zeros(3))


def test_a_control_near_zero_has_a_difference_but_no_lift():
    assert compare(Sample.of([1.0, 2, 3]), Sample.of([-1.0, 1, 0])).lift is None


def test_one_unit_has_a_mean_and_nothing_else():
    result = compare(Sample.of([3.0]), Sample.of([1.0, 2.0]))

    assert result.difference.value == 1.5
    assert math.isnan(result.difference.low)
    assert math.isnan(result.p_value)
    assert math.isnan(Sample.of([]).interval().value)


def test_winsorising_uses_one_cap_for_all_arms():
    arms = {"a": np.array([0.0, 1, 2, 100]), "b": np.array([0.0, 3, 4, 5])}
    cut = winsorise(arms, 0.5)

    assert cut["a"].tolist() == [0, 1, 2, 3.5]
    assert cut["b"].tolist() == [0, 3, 3.5, 3.5]


def test_the_sample_ratio_check_follows_the_weights():
    assert not sample_ratio({"a": 1010, "b": 8990}, {"a": 1, "b": 9}).alarm
    assert sample_ratio({"a": 1200, "b": 8800}, {"a": 1, "b": 9}).alarm
    assert sample_ratio({"a": 1000}, {"a": 1, "b": 1}).alarm
    assert sample_ratio({}, {"a": 1, "b": 1}).p_value == 1


def test_two_percent_lost_in_one_arm_of_100_000_raises_the_alarm():
    assert sample_ratio({"a": 100_000, "b": 98_000}, {"a": 1, "b": 1}).alarm


def test_units_of_an_arm_without_weight_are_refused():
    with pytest.raises(InputError, match="ghost"):
        sample_ratio({"a": 5, "ghost": 5}, {"a": 1})


def test_false_discovery_is_benjamini_and_hochbergs():
    assert false_discovery([0.01, math.nan, 0.04, 0.03])[0] == pytest.approx(0.03)
    assert math.isnan(false_discovery([0.01, math.nan])[1])
    assert false_discovery([]) == []


def test_sample_size_is_the_textbook_one():
    """CTR 3 %, +10 %: about 16 p (1 - p) / d² = 51,733 an arm."""
    assert sample_size(0.03 * 0.97, 0.003) == pytest.approx(51_733, rel=0.02)


# Properties


@given(VALUES, VALUES)
def test_lift_and_difference_agree(treated, control):
    """Fieller's ratio excludes 0 exactly when Welch's difference does."""
    result = compare(Sample.of(treated), Sample.of(control))
    if (
        result.lift is None
        or abs(result.difference.low) < 1e-6
        or abs(result.difference.high) < 1e-6
    ):
        return
    assert (result.lift.low > 0) == (result.difference.low > 0)
    assert (result.lift.high < 0) == (result.difference.high < 0)


@given(COUNTS, COUNTS)
def test_lift_and_difference_of_shares_agree(treated, control):
    result = compare(share_of(*treated), share_of(*control))

    assert result.difference.low <= result.difference.value <= result.difference.high
    if result.lift is not None and abs(result.difference.low) > 1e-9:
        assert (result.lift.low > 0) == (result.difference.low > 0)
        assert result.lift.low <= result.lift.value <= result.lift.high


@given(COUNTS, COUNTS)
def test_swapping_the_arms_mirrors_the_difference(one, other):
    ahead, behind = (
        compare(share_of(*one), share_of(*other)).difference,
        compare(share_of(*other), share_of(*one)).difference,
    )

    assert (ahead.low, ahead.high) == pytest.approx((-behind.high, -behind.low))


@given(VALUES, VALUES, st.floats(0.1, 50))
def test_the_currency_does_not_matter(treated, control, rate):
    first = compare(Sample.of(treated), Sample.of(control))
    scaled = compare(Sample.of(np.multiply(treated, rate)), Sample.of(np.multiply(control, rate)))

    assert scaled.difference.low == pytest.approx(first.difference.low * rate, rel=1e-6, abs=1e-6)


@given(COUNTS)
def test_a_confidence_sequence_is_wider_than_a_fixed_interval(counts):
    events, n = counts
    if n < 3 or events in (0, n):
        return
    a, b = Sample.of(np.arange(n) < events), Sample.of(np.arange(n) < max(1, events // 2))
    fixed, anytime = compare(a, b).difference, always_valid(a, b, planned=2 * n)
    if n > 30:
        assert anytime.low < fixed.low
        assert anytime.high > fixed.high


# Simulations


def test_a_a_experiments_are_rarely_significant():
    """1,000 experiments without an effect: the type I error lies within 3.6-6.4 %."""
    rng = np.random.default_rng(3)
    money = rng.lognormal(1, 0.8, (1_000, 2, 400)) * (rng.random((1_000, 2, 400)) < 0.4)
    significant = sum(compare(Sample.of(a), Sample.of(b)).p_value < 0.05 for a, b in money)

    assert 36 <= significant <= 64


@pytest.mark.parametrize(("treated", "control", "n"), [(0.05, 0.03, 400), (0.5, 0.4, 100)])
def test_intervals_of_shares_cover_the_truth(treated, control, n):
    rng = np.random.default_rng(4)
    draws = rng.binomial(n, (treated, control), (800, 2))
    results = [compare(share_of(a, n), share_of(b, n)) for a, b in draws]
    hit = [r.difference.low <= treated - control <= r.difference.high for r in results]
    lift = [
        r.lift.low <= treated / control - 1 <= r.lift.high for r in results if r.lift is not None
    ]

    assert 0.93 <= np.mean(hit) <= 0.975
    assert 0.93 <= np.mean(lift) <= 0.98


def test_the_interval_of_a_ratio_covers_where_the_naive_one_does_not():
    """Clicks a mail: the mails of one reader are not independent of each other."""
    rng = np.random.default_rng(5)
    covered, naive = 0, 0
    for _ in range(2_000):
        taste = rng.beta(0.6, 2.4, 300)
        mails = rng.integers(1, 20, 300)
        clicks = rng.binomial(mails, taste).astype(float)
        interval = Sample.of(linearise(clicks, mails.astype(float))).interval()
        covered += interval.low <= 0.2 <= interval.high
        per_mail = share_of(int(clicks.sum()), int(mails.sum())).interval()
        naive += per_mail.low <= 0.2 <= per_mail.high

    assert 0.94 <= covered / 2_000 <= 0.96
    assert naive / 2_000 < 0.75


def test_cuped_cuts_the_error_by_the_theorys_amount_and_keeps_the_effect():
    rng = np.random.default_rng(6)
    before = {arm: rng.normal(10, 3, 20_000) for arm in "ab"}
    after = {arm: 0.8 * x + rng.normal(0, 2, 20_000) for arm, x in before.items()}
    after["b"] = after["b"] + 0.5
    correlation = 0.8 * 3 / math.hypot(0.8 * 3, 2)  # of the world, not of the sample
    adjusted = adjust(after, before)
    saved = adjusted["a"].std() / after["a"].std()
    effect = compare(Sample.of(adjusted["b"]), Sample.of(adjusted["a"])).difference

    assert saved == pytest.approx(math.sqrt(1 - correlation**2), rel=0.05)
    assert effect.low < 0.5 < effect.high


def looks_of(rng, rates, batch=200, looks=50):
    """Samples of both arms after every batch."""
    events = [np.cumsum(rng.binomial(batch, rate, looks)) for rate in rates]
    sizes = batch * np.arange(1, looks + 1)
    for i, n in enumerate(sizes):
        yield [
            Sample(int(n), e[i] / n, e[i] / n * (1 - e[i] / n) * n / (n - 1), True) for e in events
        ]


def test_looking_fifty_times_keeps_the_promise_of_a_confidence_sequence():
    rng = np.random.default_rng(7)
    crossed, naive = 0, 0
    for _ in range(1_000):
        looks = list(looks_of(rng, (0.05, 0.05)))
        intervals = [always_valid(a, b, planned=20_000) for a, b in looks]
        crossed += any(i.low > 0 or i.high < 0 for i in intervals)
        gaps = [abs(a.mean - b.mean) / math.sqrt(a.error + b.error + 1e-12) for a, b in looks]
        naive += max(gaps) > 1.96

    assert crossed / 1_000 <= 0.05
    assert naive / 1_000 > 0.2


def test_a_guardrail_stops_a_doubled_unsubscribe_rate_but_not_an_equal_one():
    rng = np.random.default_rng(8)
    harmed = [any(harmful(a, b, 20_000) for a, b in looks_of(rng, (0.04, 0.02))) for _ in range(60)]
    fair = [any(harmful(a, b, 20_000) for a, b in looks_of(rng, (0.02, 0.02))) for _ in range(300)]

    assert np.mean(harmed) > 0.95
    assert np.mean(fair) <= 0.05


def test_the_sample_ratio_check_is_quiet_on_fair_splits():
    rng = np.random.default_rng(9)
    alarms = sum(
        sample_ratio({"a": a, "b": 20_000 - a}, {"a": 1, "b": 1}).alarm
        for a in rng.binomial(20_000, 0.5, 1_000).tolist()
    )

    assert alarms <= 4
