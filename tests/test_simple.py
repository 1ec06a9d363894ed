import numpy as np

from reco.catalogue import KeyIndex
from reco.features.history import RECORD, Histories
from reco.models.simple import most_popular, personal_frequency, popularity
from reco.tables import item_keys, type_code

KEYS = item_keys(["a", "b", "c", "d"])
INDEX = KeyIndex(KEYS)
TODAY, PURCHASE = 1_000, type_code("purchase")


def histories(*events: tuple[int, str, int]) -> Histories:
    """(subscriber, item, days ago), three subscribers."""
    records = np.zeros(len(events), RECORD)
    records["item"] = item_keys([item for _, item, _ in events])
    records["day"] = [TODAY - age for _, _, age in events]
    records["count"], records["type"] = 1, PURCHASE
    return Histories.of(np.array([user for user, _, _ in events]), records, 3)


HISTORY = histories(
    (0, "a", 1), (0, "a", 2), (0, "b", 3), (1, "b", 5), (1, "c", 200), (1, "c", 300), (0, "d", 0)
)  # fmt: skip


def test_popularity_counts_subscribers_once_and_only_lately() -> None:
    found = popularity(HISTORY, INDEX, 4, TODAY, PURCHASE, 28)

    assert found.tolist() == [1, 2, 0, 0]  # d happened today, which is not before today


def test_equal_items_come_in_the_order_of_their_rows_and_unpopular_ones_not_at_all() -> None:
    assert most_popular(np.array([1.0, 3, 3, 0]), 2, 4).tolist() == [[1, 2, 0, -1]] * 2


def test_personal_frequency_decays_and_is_filled_up_by_popularity() -> None:
    popular = popularity(HISTORY, INDEX, 4, TODAY, PURCHASE, 28)

    found = personal_frequency(HISTORY, INDEX, popular, TODAY, PURCHASE, 3)

    assert found[0].tolist() == [0, 1, -1]
    assert found[1].tolist() == [1, 2, 0]  # one recent b beats two old c
    assert found[2].tolist() == [1, 0, -1]  # nothing of their own
