"""What is known of each item as of a day.

Popularity, trend, repeat behaviour, price, category, brand.

Takes histories (bucket by bucket: the sums add up), gives arrays over the rows of the model.
The same statistics are used for training, at an earlier day, and stand in the artifact for serving.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from reco.catalogue import Catalogue, KeyIndex
from reco.features.history import Histories
from reco.features.pairs import decay, pairs

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
WINDOW_DAYS: Final = 28
HORIZON_AGE: Final = 400  # days; older first sales are "old"
CODES: Final = 1024  # categories and brands beyond it share codes


@dataclass(frozen=True, slots=True)
class ItemSums:
    """Additive counts over n items and the users of some buckets, as of a day."""

    buyers: Doubles  # distinct users, ever
    recent7: Doubles  # distinct users in the last 7 days
    recent28: Doubles  # ... 28 days
    earlier28: Doubles  # ... the 28 days before those
    decayed: Doubles  # events, half-life 60 days
    repeaters: Doubles  # users who took it on two days or more
    old: Doubles  # users who had it before the last 28 days
    again: Doubles  # ... and took it again in these
    gap_sum: Doubles  # days between repeats
    gap_count: Doubles
    last_age: Doubles  # days since the last event, the smallest over users
    first_age: Doubles  # days since the first event, the largest over users
    users: Doubles  # [1] users active in the last 28 days

    def __add__(self, other: "ItemSums") -> "ItemSums":
        joined = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        joined["last_age"] = np.minimum(self.last_age, other.last_age)
        joined["first_age"] = np.maximum(self.first_age, other.first_age)
        return ItemSums(**joined)


def item_sums(
    histories: Histories, index: KeyIndex, items: int, as_of_day: int, event_type: int
) -> ItemSums:
    """Sums over the events of one type before `as_of_day`.

    Items that `index` does not know are left out.
    """
    p = pairs(histories, as_of_day, event_type)
    row = index.rows(p.item)
    known = row >= 0
    row, last, first = row[known], p.last_day[known], p.first_day[known]
    age = np.where(last > 0, as_of_day - last, 0)

    def count(weight: npt.NDArray[np.generic] | None = None) -> Doubles:
        return np.bincount(row, weight, items).astype(np.float64)

    records = histories.records
    r_row = index.rows(records["item"])
    day = records["day"].astype(np.int64)
    mine = (records["type"] == event_type) & (r_row >= 0) & (day < as_of_day)
    r_row, r_age, r_owner = r_row[mine], as_of_day - day[mine], histories.owner[mine]

    def users_in(low: int, high: int) -> Doubles:
        inside = (r_age > low) & (r_age <= high)
        pair = np.unique(r_owner[inside] * items + r_row[inside])
        return np.bincount(pair % items, minlength=items).astype(np.float64)

    had = first < as_of_day - WINDOW_DAYS
    gap = np.nan_to_num(p.mean_gap[known])
    last_age, first_age = np.full(items, float(HORIZON_AGE)), np.zeros(items)
    np.minimum.at(last_age, row, age)
    np.maximum.at(
        first_age, row, np.minimum(np.where(first > 0, as_of_day - first, 0), HORIZON_AGE)
    )
    return ItemSums(
        buyers=count(),
        recent7=users_in(-1, 7),
        recent28=users_in(-1, WINDOW_DAYS),
        earlier28=users_in(WINDOW_DAYS, 2 * WINDOW_DAYS),
        decayed=np.bincount(r_row, decay(np.where(day[mine] > 0, r_age, 0), 60), items).astype(
            np.float64
        ),
        repeaters=count(p.days[known] > 1),
        old=count(had),
        again=count(had & (age <= WINDOW_DAYS)),
        gap_sum=count(gap),
        gap_count=count(gap > 0),
        last_age=last_age,
        first_age=first_age,
        users=np.array([float(len(np.unique(r_owner[r_age <= WINDOW_DAYS])))]),
    )


ITEM_FEATURES: Final = (
    "log_recent7",
    "log_recent28",
    "trend",
    "log_buyers",
    "log_decayed",
    "repeat_share",
    "again_share",
    "log_gap",
    "log_last_age",
    "log_first_age",
    "log_price",
)


@dataclass(frozen=True)
class ItemStatistics:
    """Items of a model, as of a day, in the order of the model's rows.

    features  float32 [n, ITEM_FEATURES]
    gap       float32 [n]  expected days between repeats, shrunk to the mean of the shop
    share     float32 [n]  share of the active users who took it in the last 28 days
    price     float32 [n]  0 where unknown
    category, brand  int32 [n]  codes below CODES, 0 for none
    kind      int32 [n]  codes of the kinds (models.kinds) among these items
    """

    features: Floats
    gap: Floats
    share: Floats
    price: Floats
    category: npt.NDArray[np.int32]
    brand: npt.NDArray[np.int32]
    kind: npt.NDArray[np.int32]

    @classmethod
    def of(
        cls, sums: ItemSums, catalogue: Catalogue, rows: npt.NDArray[np.int32],
        kind: npt.NDArray[np.int32],
    ) -> "ItemStatistics":  # fmt: skip
        """Statistics of the catalogue's `rows` [n], of kinds [n], from the sums of all buckets."""
        gap = _shrunk(sums.gap_sum, sums.gap_count, 5.0, float(WINDOW_DAYS))
        price = np.nan_to_num(catalogue.price[rows]).clip(0)
        columns = (
            np.log1p(sums.recent7),
            np.log1p(sums.recent28),
            np.log((sums.recent28 + 2) / (sums.earlier28 + 2)),
            np.log1p(sums.buyers),
            np.log1p(sums.decayed),
            _shrunk(sums.repeaters, sums.buyers, 10.0, 0.0),
            _shrunk(sums.again, sums.old, 10.0, 0.0),
            np.log1p(gap),
            np.log1p(sums.last_age),
            np.log1p(sums.first_age),
            np.log1p(price),
        )
        return cls(
            features=np.stack(columns, axis=1).astype(np.float32),
            gap=gap.astype(np.float32),
            share=(sums.recent28 / max(sums.users[0], 1.0)).astype(np.float32),
            price=price.astype(np.float32),
            category=_code(catalogue.category[rows]),
            brand=_code(catalogue.brand[rows]),
            kind=np.unique(kind, return_inverse=True)[1].astype(np.int32),
        )

    @cached_property
    def kind_share(self) -> Floats:
        """Share of each kind in what is taken lately."""
        taken = np.bincount(self.kind, self.share)
        shares: Floats = (taken / max(taken.sum(), 1e-9)).astype(np.float32)
        return shares

    @cached_property
    def log_in_kind(self) -> Floats:
        """Log of an item's share of its kind in what is taken lately."""
        taken = np.bincount(self.kind, self.share)[self.kind]
        logs: Floats = np.log(self.share / np.maximum(taken, 1e-9) + 1e-4).astype(np.float32)
        return logs

    @cached_property
    def log_share(self) -> Floats:
        """Log of `share`; half a user where nobody took an item."""
        smallest = self.share[self.share > 0].min(initial=1.0)
        logs: Floats = np.log(np.maximum(self.share, smallest / 2)).astype(np.float32)
        return logs


def _shrunk(part: Doubles, whole: Doubles, weight: float, otherwise: float) -> Doubles:
    """part / whole drawn towards the overall ratio by `weight` imagined observations."""
    overall = part.sum() / whole.sum() if whole.sum() else otherwise
    shrunk: Doubles = (part + weight * overall) / (whole + weight)
    return shrunk


def _code(codes: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Code of a category or brand, 0 for none, folded below CODES."""
    return np.where(codes < 0, 0, 1 + codes % (CODES - 1)).astype(np.int32)
