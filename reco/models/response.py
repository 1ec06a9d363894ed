"""What a shown item earns: chances of a click, of a purchase after it, and of losing the reader.

Three logistic heads over the chance that a subscriber takes the item by themselves (the two heads
of the ranker) and a few things that say how mails differ from that. They learn from mails
(train.response_stage); a model without them, which is any that had too few mails, ranks by the
ranker alone. Knows nothing of Ray.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from reco.models.item_statistics import ITEM_FEATURES, ItemStatistics
from reco.models.picks import NO, Picks
from reco.models.slates import Reason
from reco.models.taste import USER_COLUMNS, Taste

Floats = npt.NDArray[np.float32]

HEADS: Final = ("click", "purchase", "leave")
OF_PAIR: Final = ("organic", "had", "log_category_share", "log_kind_share")
OF_ITEM: Final = ("log_recent28", "log_price", "log_in_kind")
OF_USER: Final = USER_COLUMNS
OF_PLACE: Final = ("log_slot",)  # in training only: all are judged as if shown first
RESPONSE_FEATURES: Final = (*OF_PAIR, *OF_ITEM, *OF_USER, *OF_PLACE)
PAIR, ITEM, USER = (
    slice(0, len(OF_PAIR)),
    slice(len(OF_PAIR), len(OF_PAIR) + len(OF_ITEM)),
    slice(len(OF_PAIR) + len(OF_ITEM), -len(OF_PLACE)),
)
SHORTLIST: Final = 64  # of a subscriber's candidates, by the ranker, that are valued
FAINT: Final = 0.01  # share of a taste that counts as none
DEAREST: Final = 99  # percentile of the margins, above which none counts


@dataclass(frozen=True, slots=True)
class Response:
    """The heads, f = RESPONSE_FEATURES of the model's m items.

    weight     float32 [f, 3]  of features as they are, in the order of HEADS
    bias       float32 [3]
    low, high  float32 [f]     of features in the mails: beyond these nothing is known
    platt      float32 [3, 2]  slope and intercept of the calibration on later mails
    margin     float32 [m]     what a purchase of the item earns; 1 on average
    leave_cost float32 [1]     what a lost reader costs, in average purchases
    """

    weight: Floats
    bias: Floats
    low: Floats
    high: Floats
    platt: Floats
    margin: Floats
    leave_cost: Floats

    def chances(self, picks: Picks, taste: Taste, stats: ItemStatistics) -> Floats:
        """Calibrated chances [n, w, 3] of each pick, shown in the first place."""
        z = self._part(PAIR, pair_features(picks, taste, stats))
        z += self._part(ITEM, item_features(stats))[picks.row]
        z += (self._part(USER, taste.user) + self.bias)[:, None, :]
        slope, intercept = self.platt.T
        chances: Floats = 1 / (1 + np.exp(-np.clip(z * slope + intercept, -30, 30)))
        return chances

    def _part(self, columns: slice, x: Floats) -> Floats:
        """What some features add to the logits."""
        inside: Floats = np.clip(x, self.low[columns], self.high[columns])
        logits: Floats = inside @ self.weight[columns]
        return logits

    def value(self, picks: Picks, taste: Taste, stats: ItemStatistics) -> Floats:
        """Expected earnings [n, w] of showing each pick; -inf where a place is empty.

        p(click) x p(purchase | click) x margin - p(leave) x cost.
        """
        p = self.chances(picks, taste, stats)
        earned = p[:, :, 0] * p[:, :, 1] * self.margin[picks.row] - p[:, :, 2] * self.leave_cost
        value: Floats = np.where(picks.row >= 0, earned, np.float32(-np.inf)).astype(np.float32)
        return value


def margins(price: Floats, by_price: bool) -> Floats:
    """What a purchase of each item earns, 1 on average: in proportion to its price, or the same.

    An unknown price counts as the middle one.
    """
    known = price[price > 0]
    if not by_price or not len(known):
        return np.ones(len(price), np.float32)
    filled = np.where(price > 0, price, np.median(known))
    capped = np.minimum(filled, np.percentile(filled, DEAREST))
    margin: Floats = (capped / capped.mean()).astype(np.float32)
    return margin


def shortlist(picks: Picks, k: int) -> Picks:
    """The most probable of each subscriber's picks, in any order; at least k."""
    keep = max(SHORTLIST, k)
    if picks.row.shape[1] <= keep:
        return picks
    best = np.argpartition(-picks.probability, keep - 1, axis=1)[:, :keep]
    return Picks(
        np.take_along_axis(picks.row, best, 1),
        np.take_along_axis(picks.probability, best, 1),
        np.take_along_axis(picks.reason, best, 1),
    )


def features(picks: Picks, taste: Taste, stats: ItemStatistics, slot: Floats) -> Floats:
    """RESPONSE_FEATURES [n, w, f] of picks shown in these places [n, w]; any for empty places."""
    n, width = picks.row.shape
    out = np.empty((n, width, len(RESPONSE_FEATURES)), np.float32)
    out[:, :, PAIR] = pair_features(picks, taste, stats)
    out[:, :, ITEM] = item_features(stats)[picks.row]
    out[:, :, USER] = taste.user[:, None, :]
    out[:, :, -1] = np.log1p(slot)
    return out


def pair_features(picks: Picks, taste: Taste, stats: ItemStatistics) -> Floats:
    """OF_PAIR [n, w, 4]; the first is the logit of taking the item without any mail."""
    owner, there = np.arange(len(picks.row))[:, None], picks.probability != NO
    p = np.clip(np.where(there, picks.probability, 0.5), 1e-6, 1 - 1e-6)
    columns = (
        np.log(p / (1 - p)),
        picks.reason == Reason.REPEAT,
        np.log(taste.category[owner, stats.category[picks.row]] + FAINT),
        np.log(taste.kind[owner, stats.kind[picks.row]] + FAINT),
    )
    table: Floats = np.stack(columns, axis=2).astype(np.float32)
    return table


def item_features(stats: ItemStatistics) -> Floats:
    """OF_ITEM [m, 3]."""
    columns = [stats.features[:, ITEM_FEATURES.index(name)] for name in OF_ITEM[:-1]]
    return np.column_stack([*columns, stats.log_in_kind])
