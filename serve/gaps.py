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
from serve.rows import some

MOST_DAYS = 366  # a longer gap is no habit


def repeat_gaps(chunk: FeatureChunk, slates: Slates) -> npt.NDArray[np.int64]:
    """Mean days between two purchases of each pick [n, k] that is there as a repeat; 0 unknown.

    Unknown too for those whose precomputed slate spared us their history.
    """
    repeats = slates.reasons == Reason.REPEAT
    gaps = np.zeros(slates.items.shape, np.int64)
    wanted = repeats.any(axis=1) & (np.diff(chunk.histories.offsets) > 0)
    if wanted.any():
        histories = some(chunk.histories, wanted)
        gaps[wanted] = _gaps(histories, cutoff_day(chunk.now), slates.items[wanted])
    return np.where(repeats, gaps, 0)


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


def _gaps(
    histories: Histories, as_of_day: int, items: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    known = pairs(histories, as_of_day)
    days = np.nan_to_num(known.mean_gap, nan=0.0).round().clip(0, MOST_DAYS).astype(np.int64)
    out = np.zeros(items.shape, np.int64)
    for i, (start, end) in enumerate(zip(known.offsets[:-1], known.offsets[1:], strict=True)):
        mine = known.item[start:end]
        at = np.searchsorted(mine, items[i]).clip(max=max(len(mine) - 1, 0))
        if len(mine):
            out[i] = np.where(mine[at] == items[i], days[start:end][at], 0)
    return out
