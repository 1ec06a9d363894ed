"""Features of items that a subscriber had before: will they take this one again?

Takes the pairs and the item statistics, gives one row a pair. Decayed counts carry most of it, then
the time since the last one against the usual gap.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from reco.features.pairs import HALF_LIVES_DAYS, Pairs
from reco.models.item_statistics import ITEM_FEATURES, ItemStatistics
from reco.models.taste import MIDDLE, USER_COLUMNS, Known, Taste

Floats = npt.NDArray[np.float32]

PERSONAL: Final = (
    *(f"log_decayed{h}" for h in HALF_LIVES_DAYS),
    "log_count",
    "log_days",
    "log_age",
    "log_since",
    "log_gap_personal",
    "age_over_gap",
    "age_minus_gap",
    "has_gap",
    "log_money",
    "share_of_activity",
    "category_share",
    "brand_share",
    "price_distance",
)
REPEAT_FEATURES: Final = (*PERSONAL, *ITEM_FEATURES, *USER_COLUMNS)
GAP_WEIGHT: Final = 2.0  # imagined gaps of the item's usual length beside the personal ones


def debiased(
    logits: Floats, row: npt.NDArray[np.int32], stats: ItemStatistics, penalty: float
) -> Floats:
    """Logits of items at `row` less `penalty` x log popularity.

    More different items, few hits lost.
    """
    return (logits - penalty * stats.log_share[row]).astype(np.float32)


def repeat_matrix(p: Pairs, known: Known, taste: Taste, stats: ItemStatistics) -> Floats:
    """Features float32 [pairs known, REPEAT_FEATURES]."""
    at, row, owner = known.pairs, known.row, known.owner
    days, gap = p.days[at].astype(np.float32), p.mean_gap[at]
    own = np.nan_to_num(gap) * (days - 1)
    expected = (own + GAP_WEIGHT * stats.gap[row]) / (days - 1 + GAP_WEIGHT)
    out = np.empty((len(row), len(REPEAT_FEATURES)), np.float32)
    decayed = p.decayed[at]
    columns = (
        *np.log1p(decayed * 4).T,
        np.log1p(p.count[at]),
        np.log(days),
        np.log1p(known.age),
        np.log1p(known.since),
        np.log1p(expected),
        np.log1p(known.age / expected),
        (known.age - expected) / 28,
        days > 1,
        np.log1p(np.maximum(p.money[at], 0)),
        decayed[:, MIDDLE] / np.maximum(np.expm1(taste.user[owner, 1]), 1e-3),
        taste.category[owner, stats.category[row]],
        taste.brand[owner, stats.brand[row]],
        np.log1p(stats.price[row]) - taste.price[owner],
    )
    for i, column in enumerate(columns):
        out[:, i] = column
    split = len(PERSONAL) + len(ITEM_FEATURES)
    out[:, len(PERSONAL) : split] = stats.features[row]
    out[:, split:] = taste.user[owner]
    return out
