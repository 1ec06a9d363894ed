import numpy as np
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from reco.models.metrics import calibration_error, gini, paired_bootstrap, rank_metrics


def sparse(rows: list[list[int]], items: int) -> sp.csr_matrix:
    dense = np.zeros((len(rows), items), np.float32)
    for user, row in enumerate(rows):
        dense[user, row] = 1
    return sp.csr_matrix(dense)


def test_a_perfect_list_scores_one() -> None:
    shown = np.array([[2, 0, 1]], np.int32)

    table = rank_metrics(shown, sparse([[0, 1, 2]], 5), sparse([[]], 5), 3).table()

    assert table["ndcg"] == table["recall"] == table["hit_rate"] == 1


def test_the_hand_made_case() -> None:
    """Two answers, the second place hits one of them."""
    shown = np.array([[3, 1, 4]], np.int32)
    ideal = 1 / np.log2(2) + 1 / np.log2(3)

    ranking = rank_metrics(shown, sparse([[0, 1]], 5), sparse([[1]], 5), 3)

    assert np.isclose(ranking.ndcg[0], (1 / np.log2(3)) / ideal)
    assert ranking.recall[0] == 0.5
    assert ranking.repeat_recall == 1  # the hit was known
    assert ranking.explore_recall == 0  # the other answer was new, and missed
    assert ranking.coverage == 3 / 5


def test_recall_is_not_capped_at_k() -> None:
    shown = np.array([[0]], np.int32)

    ranking = rank_metrics(shown, sparse([[0, 1, 2, 3]], 5), sparse([[]], 5), 1)

    assert ranking.recall[0] == 0.25
    assert ranking.ndcg[0] == 1  # the ideal list has one place, too


def test_users_without_answers_are_left_out_and_empty_lists_score_zero() -> None:
    shown = np.array([[0, 1], [-1, -1], [0, 1]], np.int32)

    ranking = rank_metrics(shown, sparse([[0], [1], []], 3), sparse([[], [], []], 3), 2)

    assert ranking.ndcg.tolist() == [1, 0]
    assert ranking.hit.tolist() == [1, 0]


def test_gini_of_equal_exposure_is_zero_and_of_one_item_nearly_one() -> None:
    assert np.isclose(gini(np.full(50, 7)), 0)
    assert np.isclose(gini(np.eye(1, 50, dtype=np.int64)[0] * 9), 1 - 1 / 50)


def test_the_interval_holds_the_mean_and_does_not_depend_on_the_run() -> None:
    draw = np.random.default_rng(1)
    ours, theirs = draw.random(400) + 0.05, draw.random(400)

    mean, low, high = paired_bootstrap(ours, theirs)

    assert low < mean < high
    assert paired_bootstrap(ours, theirs) == (mean, low, high)
    assert paired_bootstrap(ours, ours) == (0, 0, 0)


def test_true_probabilities_have_no_calibration_error() -> None:
    draw = np.random.default_rng(0)
    probability = draw.random(100_000)
    happened = (draw.random(100_000) < probability).astype(float)

    assert calibration_error(probability, happened) < 0.01
    assert calibration_error(np.sqrt(probability), happened) > 0.1


@given(st.lists(st.lists(st.integers(0, 9), unique=True, max_size=6), min_size=1, max_size=5))
def test_metrics_stay_between_zero_and_one(answers: list[list[int]]) -> None:
    shown = np.tile(np.arange(6, dtype=np.int32), (len(answers), 1))

    ranking = rank_metrics(shown, sparse(answers, 10), sparse([[0, 1]] * len(answers), 10), 6)

    for values in (ranking.ndcg, ranking.recall, ranking.hit):
        assert ((values >= 0) & (values <= 1)).all()


def test_new_users_and_new_items_are_counted_apart() -> None:
    """The first user had five items, the second none; only item 7 is new to the shop."""
    shown = np.array([[0, 7], [6, 7]], np.int32)
    cold = np.arange(8) == 7

    seen = sparse([[1, 2, 3, 4, 5], []], 8)
    ranking = rank_metrics(shown, sparse([[0], [5, 7]], 8), seen, 2, cold)

    assert ranking.cold_user_ndcg == ranking.ndcg[1] < 1
    assert ranking.cold_item_recall == 1  # of the one user who took a new item
    assert np.isnan(rank_metrics(shown, sparse([[0], [5]], 8), seen, 2, cold).cold_item_recall)
