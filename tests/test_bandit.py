"""The bandit: learns, keeps its floor, waits for windows to close, and reports fairly."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reco.errors import ConfigError
from reco.experiments.bandit import closed, draw, fair_rates, next_weights

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NAMES = ["a", "b", "c"]
NOTHING = pl.DataFrame(
    schema={"segment": pl.String, "arm": pl.String, "successes": pl.Int64, "trials": pl.Int64}
)


def evidence(*rows):
    return pl.DataFrame(rows, schema=NOTHING.schema, orient="row")


def outcomes(*rows):
    """(arm, days since it was sent, days after which it succeeded or None)."""
    return pl.DataFrame(
        [
            ("all", arm, NOW - age * DAY, None if wait is None else NOW - age * DAY + wait * DAY)
            for arm, age, wait in rows
        ],
        schema={"segment": pl.String, "arm": pl.String, "sent_at": pl.Datetime("us", "UTC"),
                "succeeded_at": pl.Datetime("us", "UTC")},
        orient="row",
    )  # fmt: skip


def test_the_first_batch_is_uniform():
    assert next_weights(NOTHING, NAMES, ["new", "loyal"]) == {
        "new": dict.fromkeys(NAMES, 1 / 3),
        "loyal": dict.fromkeys(NAMES, 1 / 3),
    }


def test_only_closed_windows_count():
    mails = outcomes(("a", 5, 1), ("a", 5, None), ("a", 1, 0.5), ("b", 4, 3.5), ("b", 3, 3))
    seen = closed(mails, NOW, 3 * DAY)

    assert seen.rows() == [("all", "a", 1, 2), ("all", "b", 1, 2)]


def test_the_better_arm_gets_more_and_the_worse_keeps_its_floor():
    weights = next_weights(
        evidence(("s", "a", 300, 1_000), ("s", "b", 100, 1_000), ("s", "c", 100, 1_000)),
        NAMES, ["s"], floor=0.05,
    )["s"]  # fmt: skip

    assert weights["a"] == pytest.approx(0.9, abs=0.001)
    assert weights["b"] == pytest.approx(0.05, abs=0.001)


def test_a_new_segment_starts_from_what_the_others_know_and_then_learns_its_own():
    seen = evidence(("old", "a", 300, 1_000), ("old", "b", 100, 1_000))
    against = evidence(("young", "a", 20, 400), ("young", "b", 120, 400))
    start = next_weights(seen, ["a", "b"], ["young"])["young"]
    later = next_weights(pl.concat([seen, against]), ["a", "b"], ["young"])["young"]

    assert start["a"] > 0.8
    assert later["b"] > 0.9


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 500)), min_size=2, max_size=5),
    st.floats(0, 0.19),
    st.integers(0, 99),
)
def test_weights_are_a_distribution_above_the_floor(counts, floor, seed):
    names = [f"arm{i}" for i in range(len(counts))]
    rows = [("s", n, s, s + f) for n, (s, f) in zip(names, counts, strict=True)]
    weights = next_weights(evidence(*rows), names, ["s"], floor=floor, seed=seed)["s"]

    assert list(weights) == names
    assert sum(weights.values()) == pytest.approx(1)
    assert min(weights.values()) >= floor - 1e-12


def test_the_same_seed_gives_the_same_weights():
    seen = evidence(("s", "a", 10, 100), ("s", "b", 12, 100))

    assert next_weights(seen, NAMES, ["s"], seed=3) == next_weights(seen, NAMES, ["s"], seed=3)


def test_floors_that_leave_no_choice_are_refused():
    with pytest.raises(ConfigError, match=r"floor of 0\.5"):
        next_weights(NOTHING, NAMES, ["s"], floor=0.5)


def test_a_draw_logs_the_weight_of_its_arm_as_propensity():
    weights = {"new": {"a": 0.9, "b": 0.1}, "loyal": {"a": 0.2, "b": 0.8}}
    users = [str(i) for i in range(4_000)]
    segments = ["new", "loyal"] * 2_000
    drawn = draw("copy", 3, users, segments, weights)

    assert all(p == weights[s][arm] for (arm, p), s in zip(drawn, segments, strict=True))
    assert np.mean([arm == "a" for arm, _ in drawn[::2]]) == pytest.approx(0.9, abs=0.03)
    assert drawn == draw("copy", 3, users, segments, weights)
    assert drawn != draw("copy", 4, users, segments, weights)


TRUTH = {"new": {"a": 0.05, "b": 0.09, "c": 0.04}, "loyal": {"a": 0.12, "b": 0.08, "c": 0.05}}


def campaign(seed, batches=20, size=500):
    """A bandit against a known truth: its log, its regret, and the regret of equal shares."""
    rng = np.random.default_rng(seed)
    seen, log, regret, uniform = NOTHING, [], 0.0, 0.0
    for batch in range(batches):
        weights = next_weights(seen, NAMES, list(TRUTH), seed=batch)
        segments = rng.choice(list(TRUTH), size).tolist()
        users = [f"{seed}-{batch}-{i}" for i in range(size)]
        for segment, (arm, propensity) in zip(
            segments, draw("sim", batch, users, segments, weights), strict=True
        ):
            best = max(TRUTH[segment].values())
            regret += best - TRUTH[segment][arm]
            uniform += best - np.mean(list(TRUTH[segment].values()))
            log.append((segment, arm, propensity, int(rng.random() < TRUTH[segment][arm])))
        frame = pl.DataFrame(log, schema=["segment", "arm", "propensity", "success"], orient="row")
        seen = frame.group_by("segment", "arm").agg(
            pl.col("success").sum().cast(pl.Int64).alias("successes"),
            pl.len().cast(pl.Int64).alias("trials"),
        )
    return frame, regret, uniform


def test_regret_is_under_half_of_equal_shares_after_twenty_batches():
    runs = [campaign(seed) for seed in range(5)]

    assert sum(regret for _, regret, _ in runs) < sum(uniform for *_, uniform in runs) / 2
    assert all(log["propensity"].min() >= 0.05 - 1e-12 for log, *_ in runs)


def test_rates_by_propensity_are_fair_where_plain_means_are_not():
    """Arm b was favoured in the segment that clicks less, so its plain mean is too low."""
    rng = np.random.default_rng(0)
    chance, rate = {"new": 0.9, "loyal": 0.1}, {"new": 0.05, "loyal": 0.25}
    segments = rng.choice(["new", "loyal"], 40_000)
    chosen = np.array([rng.random() < chance[s] for s in segments])
    favoured = np.array([chance[s] for s in segments])
    log = pl.DataFrame(
        {
            "arm": np.where(chosen, "b", "a"),
            "propensity": np.where(chosen, favoured, 1 - favoured),
            "success": [int(rng.random() < rate[s]) for s in segments],
        }
    )
    plain = log.filter(pl.col("arm") == "b")["success"].mean()
    fair = fair_rates(log)["b"]

    assert plain < 0.09
    assert fair.low < 0.15 < fair.high
