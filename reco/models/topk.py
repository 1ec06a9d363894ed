"""A precomputed slate as one small value in Redis: model, time, item keys, scores, reasons.

Takes slates of a chunk, gives one value a subscriber; read back by the ladder's first rung.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

from reco.models.slates import Rung, Slates

FORMAT: Final = 1
# Format, number of places, spare, hash of the model's version, time (s) that the slate is for.
HEADER: Final = np.dtype(
    [("format", "u1"), ("places", "u1"), ("spare", "<u2"), ("version", "<u4"), ("as_of", "<i8")]
)
PLACE_BYTES: Final = 8 + 2 + 1  # key u8, score f2, reason u1


@dataclass(frozen=True, slots=True)
class TopK:
    """Slates of n subscribers as they were stored.

    slates    rung FRESH where a slate was found
    as_of     int64 [n]  time (s) that each is for: nothing later was known; 0 where there is none
    """

    slates: Slates
    as_of: npt.NDArray[np.int64]


def version_hash(version: str) -> int:
    """Hash of a model's version, by which a stale slate is told."""
    return xxhash.xxh32_intdigest(version.encode())


def pack(slates: Slates, version: str, as_of: int) -> list[bytes]:
    """One value a subscriber."""
    n, k = slates.items.shape
    head = np.zeros(1, HEADER)
    head["format"], head["places"], head["version"], head["as_of"] = (
        FORMAT,
        k,
        version_hash(version),
        as_of,
    )
    body = np.concatenate(
        [
            np.ascontiguousarray(slates.items.astype("<u8")).view(np.uint8).reshape(n, -1),
            np.ascontiguousarray(slates.scores.astype("<f2")).view(np.uint8).reshape(n, -1),
            slates.reasons.astype(np.uint8).reshape(n, -1),
        ],
        axis=1,
    )
    front, width, blob = head.tobytes(), body.shape[1], body.tobytes()
    return [front + blob[i * width : (i + 1) * width] for i in range(n)]


def unpack(values: Sequence[bytes | None], k: int, version: str) -> TopK:
    """Slates with k places behind stored values.

    One that is missing or of another model is empty.
    """
    out = Slates.empty(len(values), k)
    as_of = np.zeros(len(values), np.int64)
    wanted, h = version_hash(version), HEADER.itemsize
    rows = [i for i, v in enumerate(values) if v and len(v) >= h]
    heads = np.frombuffer(b"".join([(values[i] or b"")[:h] for i in rows]), HEADER)
    good = (heads["format"] == FORMAT) & (heads["version"] == wanted)
    for places in np.unique(heads["places"][good]).tolist():
        group = good & (heads["places"] == places)
        at = np.asarray(rows, np.intp)[group]
        body = np.frombuffer(b"".join([(values[i] or b"")[h:] for i in at]), np.uint8).reshape(
            len(at), -1
        )
        kept = min(places, k)
        items, scores, reasons = (8 * places, 10 * places, PLACE_BYTES * places)
        out.items[at, :kept] = np.ascontiguousarray(body[:, :items]).view("<u8")[:, :kept]
        out.scores[at, :kept] = np.ascontiguousarray(body[:, items:scores]).view("<f2")[:, :kept]
        out.reasons[at, :kept] = body[:, scores:reasons][:, :kept]
        as_of[at] = heads["as_of"][group]
    out.rungs[out.items != 0] = Rung.FRESH
    return TopK(out, as_of)
