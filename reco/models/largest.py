"""The k largest of each row of many: exact, sorted, and on a CPU at less than half of torch.topk.

Every group of columns has a peak. The k-th highest peak is a floor that at least k values reach,
and where values differ hardly more do; only those are sorted.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float32]
Columns = npt.NDArray[np.int32]
STRIDE: Final = 16  # columns of a group, at most
FEWEST: Final = 4  # columns of a group below which it does not pay
CROWD: Final = 4  # times k: where more values reach the floor, many of them are equal


def largest(x: torch.Tensor, k: int) -> tuple[Floats, Columns]:
    """The k largest of x float32 [n, m], k <= m, and their columns, largest first.

    Equal values come in any order, which other rows may change.
    """
    found = _above_the_floor(x.numpy(), k) if x.device.type == "cpu" else None
    if found is not None:
        return found
    best, at = torch.topk(x, k, dim=1)
    return best.cpu().numpy(), at.cpu().numpy().astype(np.int32)


def _above_the_floor(x: Floats, k: int) -> tuple[Floats, Columns] | None:
    """See `largest`; None where it would not pay."""
    n, m = x.shape
    stride = min(STRIDE, m // max(2 * k, 1))
    if stride < FEWEST or not k:
        return None
    groups = m // stride
    peaks = x[:, : groups * stride].reshape(n, stride, groups).max(axis=1)
    peaks.partition(groups - k, axis=1)
    reached = x >= peaks[:, groups - k, None]
    count = np.count_nonzero(reached, axis=1)
    width = int(count.max(initial=0))
    if width > CROWD * k or int(count.min(initial=k)) < k:  # NaN reaches no floor
        return None
    cell = np.flatnonzero(reached)
    row = np.repeat(np.arange(n), count)
    place = np.arange(len(cell)) - (np.cumsum(count) - count)[row]
    keys = np.full((n, width), np.iinfo(np.int64).max)
    keys[row, place] = _keys(x.reshape(-1)[cell], cell - row * m)
    keys.sort(axis=1)
    column = keys[:, :k] & 0xFFFFFFFF
    return np.take_along_axis(x, column, axis=1), column.astype(np.int32)


def _keys(value: Floats, column: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Integers that sort by value, largest first, then by column.

    The bits of floats, read as integers, are in the order of the floats, those of negative ones in
    the opposite order (IEEE 754).
    """
    bits = value.view(np.int32)
    ordered = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64)
    return (-ordered << 32) | column
