"""The decision records of a chunk, as one Arrow batch: made where the mails are made.

Takes FeatureChunk, PickedChunk and the mails, gives rows of reco.campaigns.decisions.DECISIONS.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from reco.campaigns.decisions import DECISIONS
from reco.campaigns.variants import Chosen
from reco.catalogue import Catalogue
from serve.chunks import FeatureChunk, PickedChunk
from serve.rows import lines

_PEOPLE: Final = (  # column of the record, column of Recipients
    ("delivery", "deliveries"),
    ("arm", "arms"),
    ("email", "emails"),
    ("first_name", "first_names"),
    ("language", "languages"),
    ("segment", "segments"),
    ("tracked", "tracked"),
)
_LONGEST_GAP: Final = np.iinfo(np.int16).max


def records_of(
    chunk: FeatureChunk,
    picked: PickedChunk,
    made_of: str,
    made: Sequence[int],
    messages: Sequence[bytes],
    copy: Sequence[tuple[Chosen, ...]],
    gaps: npt.NDArray[np.int64],
    bought: npt.NDArray[np.int32],
    curious: npt.NDArray[np.bool_],
    catalogue: Catalogue,
) -> pa.RecordBatch:
    """Rows of DECISIONS of the recipients `made`, in their order; the fence comes later.

    `messages` and `copy` are of those mails, the rest is of the whole chunk.
    """
    n = len(made)
    shown = lines(picked.slates, made)
    seen = lines(picked.candidates, made)
    columns: dict[str, Any] = {
        column: pa.array([getattr(chunk.recipients, name)[i] for i in made])
        for column, name in _PEOPLE
    }
    same = {
        "made_of": made_of,
        "model": picked.model_version,
        "features": picked.features_version,
        "fallback": picked.fallback,
    }
    columns |= {name: pa.repeat(pa.scalar(value), n) for name, value in same.items()}
    popular = np.tile(catalogue.index.rows(picked.popular), (n, 1))
    popular[[row for row, i in enumerate(made) if i in chunk.recipients.refused]] = -1
    columns |= {
        "made_at": pa.repeat(pa.scalar(chunk.now, DECISIONS.field("made_at").type), n),
        "copy": pa.array([_json(chosen) for chosen in copy]),
        "propensity": picked.chances[made],
        "curious": curious[made],
        "rows": _lists(catalogue.index.rows(shown.items)),
        "scores": _lists(shown.scores),
        "reasons": _lists(shown.reasons),
        "rungs": _lists(shown.rungs),
        "gaps": _lists(np.minimum(gaps[made], _LONGEST_GAP).astype(np.int16)),
        "bought": _lists(bought[made]),
        "popular": _lists(popular),
        "candidates": _lists(catalogue.index.rows(seen.items)),
        "candidate_scores": _lists(seen.scores),
        "candidate_rungs": _lists(seen.rungs),
        "fates": _lists(picked.fates[made]),
        "message_hash": pa.array([xxhash.xxh3_64_intdigest(m) for m in messages], pa.uint64()),
        "fence": pa.nulls(n, pa.int64()),
    }
    return pa.RecordBatch.from_arrays(
        [
            pa.array(columns[field.name], field.type)
            if isinstance(columns[field.name], np.ndarray)
            else columns[field.name].cast(field.type)
            for field in DECISIONS
        ],
        schema=DECISIONS,
    )


def _lists(values: npt.NDArray[Any]) -> pa.ListArray:
    """A list a row of [n, w]."""
    n, width = values.shape
    offsets = pa.array(np.arange(n + 1, dtype=np.int32) * width)
    return pa.ListArray.from_arrays(offsets, pa.array(np.ravel(values)))


def _json(chosen: tuple[Chosen, ...]) -> str:
    return json.dumps([asdict(one) for one in chosen]) if chosen else ""
