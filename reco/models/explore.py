"""Features of items that are new to a subscriber: will they take this one for the first time?

Takes the candidates that retrieval found, gives one row a (subscriber, candidate).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from reco.models.item_statistics import ITEM_FEATURES, ItemStatistics
from reco.models.taste import USER_COLUMNS, Taste

Floats = npt.NDArray[np.float32]

AFFINITY: Final = (
    "retrieval",
    "tower",
    "category_share",
    "log_category_share",
    "brand_share",
    "price_distance",
    "price_gap",
    "category_items",
    "kind_share",
    "log_kind_share",
    "log_kind_activity",
    "log_kind_items",
    "log_kind_new",
    "log_in_kind",
    "kind_lift",
)
EXPLORE_FEATURES: Final = (*AFFINITY, *ITEM_FEATURES, *USER_COLUMNS)
LIFT_WEIGHT: Final = 5.0  # imagined events of average taste beside a subscriber's
NEVER: Final = np.float32(-1e9)
FLOOR: Final = np.float32(-30)  # retrieval logit of an empty place, as a feature


@dataclass(frozen=True, slots=True)
class Candidates:
    """c candidates of each of n subscribers, best first.

    row        int32 [n, c]    row of the item in the model
    retrieval  float32 [n, c]  logit of stage 1; NEVER where a place is empty
    tower      float32 [n, c]  the dot product within it
    """

    row: npt.NDArray[np.int32]
    retrieval: Floats
    tower: Floats

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        """Places that hold a candidate."""
        return self.retrieval > NEVER / 2


def explore_matrix(found: Candidates, taste: Taste, stats: ItemStatistics) -> Floats:
    """Features float32 [n * c, EXPLORE_FEATURES] of all candidates, subscriber by subscriber."""
    n, count = found.row.shape
    owner = np.arange(n)[:, None]
    category = taste.category[owner, stats.category[found.row]]
    distance = np.log1p(stats.price)[found.row] - taste.price[:, None]
    columns = (
        np.maximum(found.retrieval, FLOOR),
        found.tower,
        category,
        np.log(category + 1e-3),
        taste.brand[owner, stats.brand[found.row]],
        distance,
        np.abs(distance),
        np.log1p(category * np.expm1(taste.user[:, :1])),
        *_kind_columns(found, taste, stats),
    )
    out = np.empty((n, count, len(EXPLORE_FEATURES)), np.float32)
    for i, column in enumerate(columns):
        out[:, :, i] = column
    split = len(AFFINITY) + len(ITEM_FEATURES)
    out[:, :, len(AFFINITY) : split] = stats.features[found.row]
    out[:, :, split:] = taste.user[:, None, :]
    return out.reshape(n * count, len(EXPLORE_FEATURES))


def _kind_columns(found: Candidates, taste: Taste, stats: ItemStatistics) -> tuple[Floats, ...]:
    """What the subscriber takes of each candidate's kind; the last is its log-lift over others."""
    owner, kind = np.arange(len(found.row))[:, None], stats.kind[found.row]
    share, usual = taste.kind[owner, kind], stats.kind_share[kind] + np.float32(1e-6)
    whole = taste.activity[:, None]
    drawn = (share * whole + LIFT_WEIGHT * usual) / (whole + LIFT_WEIGHT)
    return (
        share,
        np.log(share + 1e-3),
        np.log1p(share * whole),
        np.log1p(taste.kind_items[owner, kind]),
        np.log1p(taste.kind_new[owner, kind]),
        stats.log_in_kind[found.row],
        np.log(drawn / usual),
    )
