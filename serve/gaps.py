"""What the sentence names that says why an item is in the mail.

How often a recipient buys it, and what they took that it goes with.
"""

import numpy as np
import numpy.typing as npt

from reco.catalogue import Catalogue
from reco.features.history import Histories, cutoff_day
from reco.features.pairs import pairs
from reco.models.slates import Reason, Slates
from serve.chunks import FeatureChunk

MOST_DAYS = 366  # a longer gap is no habit


def repeat_gaps(chunk: FeatureChunk, slates: Slates) -> npt.NDArray[np.int64]:
    """Mean days between two purchases of each pick [n, k] that is there as a repeat; 0 unknown."""
    items = np.where(slates.reasons == Reason.REPEAT, slates.items, np.uint64(0))
    known = pairs(_about(items, chunk.histories), cutoff_day(chunk.now))
    days = np.nan_to_num(known.mean_gap, nan=0.0).round().clip(0, MOST_DAYS).astype(np.int64)
    pair, place = np.nonzero(items[known.owner] == known.item[:, None])
    gaps = np.zeros(items.shape, np.int64)
    gaps[known.owner[pair], place] = days[pair]
    return gaps


def bought_rows(slates: Slates, catalogue: Catalogue) -> npt.NDArray[np.int32]:
    """Catalogue row of what they took that each pick goes with [n, k]; -1 for none."""
    if slates.because is None:
        return np.full(slates.items.shape, -1, np.int32)
    together = slates.reasons == Reason.BOUGHT_TOGETHER
    return np.where(together, catalogue.index.rows(slates.because), -1).astype(np.int32)


def titles_of(rows: npt.NDArray[np.int32], catalogue: Catalogue) -> list[str]:
    """Titles of rows, "" for -1."""
    titles = catalogue.frame["title"]
    return [titles[row] or "" if row >= 0 else "" for row in rows.tolist()]


def _about(items: npt.NDArray[np.uint64], histories: Histories) -> Histories:
    """Of each history only what tells of the subscriber's own items [n, k]: very little of it."""
    owner, item = histories.owner, histories.records["item"]
    about = np.zeros(len(owner), bool)
    for column in items.T:
        about |= column[owner] == item
    kept = np.flatnonzero(about)
    return Histories.of(owner[kept], histories.records[kept], len(histories))
