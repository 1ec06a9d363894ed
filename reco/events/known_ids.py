"""Which event ids the lake has already, without reading its files for every batch.

A sorted array of 64-bit hashes stands for each live part; parts never change, so neither does it.
Eight bytes an event: 800 MB for 100 million events, shared out over the processes that append.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from reco.events.manifest import Part

Hashes = npt.NDArray[np.uint64]


class KnownIds:
    """Hashes of the event ids of each live part, by bucket. Not to be shared between threads."""

    def __init__(self) -> None:
        self._parts: dict[int, dict[str, Hashes]] = {}

    def holders(
        self,
        bucket: int,
        ids: pl.Series,
        live: Sequence[Part],
        read: Callable[[Part], pl.Series],
    ) -> list[Part]:
        """Live parts of the bucket that may hold one of the ids; all others certainly do not.

        `read` gives the ids of a part that has not been seen before.
        """
        seen = self._parts.get(bucket, {})
        now = {p.path: seen[p.path] if p.path in seen else _hashed(read(p)) for p in live}
        self._parts[bucket] = now
        hashes = ids.hash().to_numpy()
        return [part for part in live if _meet(now[part.path], hashes)]

    def add(self, bucket: int, part: Part, ids: pl.Series) -> None:
        """A part was written with these ids."""
        self._parts.setdefault(bucket, {})[part.path] = _hashed(ids)


def _meet(known: Hashes, hashes: Hashes) -> bool:
    place = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return bool((known[place] == hashes).any())


def _hashed(ids: pl.Series) -> Hashes:
    return np.sort(ids.hash().to_numpy())
