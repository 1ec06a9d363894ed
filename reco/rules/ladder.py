"""The fallback ladder: every empty place is filled, from the best rung that has something left.

recent popular -> editorial -> random in stock. It obeys the blocklist and the stock, shows nothing
twice, and writes rung and reason into the slate; ladder picks have no score of their own, so 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from reco.catalogue import Catalogue
from reco.models.slates import Reason, Rung, Slates
from reco.rules.rules import Bools, among, cut

Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Pools:
    """What the rungs may draw from, best first; only items that are allowed and in stock."""

    popular: Keys
    editorial: Keys
    stock: Keys

    @classmethod
    def of(cls, catalogue: Catalogue, allowed: Bools, popular: Keys, editorial: Keys) -> "Pools":
        """Pools of a campaign: `allowed` [m] masks catalogue rows, lists are item keys."""
        return cls(
            _allowed(catalogue, allowed, popular),
            _allowed(catalogue, allowed, editorial),
            catalogue.keys[allowed],
        )

    def without(self, refused: Bools, catalogue: Catalogue) -> "Pools":
        """The same pools, less what somebody refuses, `refused` [m] over catalogue rows."""
        every = (self.popular, self.editorial, self.stock)
        return Pools(*(keys[among(catalogue, ~refused, keys)] for keys in every))


def editorial_slates(pools: Pools, n: int, k: int) -> Slates:
    """The same list for n subscribers, as rung EDITORIAL: the editor's, else the popular one."""
    chosen = pools.editorial if len(pools.editorial) else pools.popular
    reason = Reason.EDITORIAL if len(pools.editorial) else Reason.POPULAR
    return _climb(Slates.empty(n, k), chosen[None, :], Rung.EDITORIAL, reason)


def fill(slates: Slates, k: int, pools: Pools, seeds: npt.NDArray[np.uint64]) -> Slates:
    """Slates of exactly k places, none empty while k items are allowed.

    `seeds` [n] steer the random rung.
    """
    slates = cut(slates, k)
    slates = slates.keep(slates.items != 0)
    slates = _climb(slates, pools.popular[None, :], Rung.POPULAR, Reason.POPULAR)
    slates = _climb(slates, pools.editorial[None, :], Rung.EDITORIAL, Reason.EDITORIAL)
    if not (slates.items == 0).any() or not len(pools.stock):
        return slates
    return _climb(slates, _random(pools.stock, 2 * k, seeds), Rung.RANDOM, Reason.RANDOM)


def seeds_of(user_ids: Sequence[str], campaign_id: str) -> npt.NDArray[np.uint64]:
    """Seed of each subscriber in a campaign: the same mail is made the same way again."""
    salt = xxhash.xxh3_64_intdigest(campaign_id.encode())
    return np.array([xxhash.xxh3_64_intdigest(u.encode(), salt) for u in user_ids], np.uint64)


def _allowed(catalogue: Catalogue, allowed: Bools, keys: Keys) -> Keys:
    found = keys[among(catalogue, allowed, keys)]
    _, first = np.unique(found, return_index=True)
    return found[np.sort(first)]


def _climb(slates: Slates, pool: Keys, rung: Rung, reason: Reason) -> Slates:
    """Fill empty places, which stand last, from `pool` [n or 1, p] in its order."""
    k = slates.items.shape[1]
    pool = pool[:, : 2 * k]  # k places to fill at most, and at most k of the pool are shown already
    filled = slates.items != 0
    if filled.all() or not pool.shape[1]:
        return slates
    taken = (pool[:, :, None] == slates.items[:, None, :]).any(axis=2)
    free = np.argsort(taken, axis=1, kind="stable")
    wanted = np.arange(k)[None, :] - filled.sum(axis=1)[:, None]
    new = ~filled & (wanted < (~taken).sum(axis=1)[:, None])
    source = np.take_along_axis(free, np.clip(wanted, 0, pool.shape[1] - 1), axis=1)
    picked = np.take_along_axis(np.broadcast_to(pool, taken.shape), source, axis=1)
    return Slates(
        items=np.where(new, picked, slates.items),
        scores=slates.scores,
        reasons=np.where(new, np.uint8(reason), slates.reasons),
        rungs=np.where(new, np.uint8(rung), slates.rungs),
        because=slates.because,  # 0 in empty places
    )


def _random(stock: Keys, count: int, seeds: npt.NDArray[np.uint64]) -> Keys:
    """`count` distinct keys a subscriber: a random start, and steps coprime to the stock's size."""
    size = len(stock)
    start = (seeds % np.uint64(size)).astype(np.int64)
    step = ((seeds >> np.uint64(32)) % np.uint64(size)).astype(np.int64)
    while (odd := np.gcd(step, size) != 1).any():
        step[odd] += 1
    places = np.arange(min(count, size))
    return np.asarray(stock[(start[:, None] + places * step[:, None]) % size], np.uint64)
