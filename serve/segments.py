"""Segment of each recipient: the first conditions of the campaign that fit profile and features."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final

import numpy as np
import polars as pl

from reco.campaigns.campaign import OTHER, Campaign
from reco.catalogue import Catalogue
from reco.features.definitions import USER_FEATURES, Feature, read_all
from reco.features.history import Histories, cutoff_day
from reco.features.items import ItemFacts
from reco.features.view import Context, View
from reco.subscribers.store import Subscriber
from serve.audience import profile_value
from serve.chunks import Request

FEATURES: Final[Mapping[str, Feature[View]]] = {f.name: f for f in USER_FEATURES}
NAMED: Final = frozenset(name for name, f in FEATURES.items() if f.unit == "code")


@lru_cache(maxsize=64)
def campaign_of(spec: bytes) -> Campaign:
    """The campaign that a chunk carries; parsed once a process."""
    return Campaign.model_validate_json(spec)


class Segments:
    """Names the segment of each recipient of a chunk."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._categories = np.array([*catalogue.category_names, None], np.object_)
        self._facts = ItemFacts.of(catalogue)

    def of(
        self,
        request: Request,
        people: Sequence[Subscriber | None],
        histories: Histories,
        now: datetime,
    ) -> list[str]:
        """Segment of each of n recipients; OTHER where none fits."""
        if not (wanted := _fields(request)) or not people:
            return [OTHER] * len(people)
        columns = {
            name: [profile_value(person, name) for person in people]
            for name in wanted - FEATURES.keys()
        }
        frame = pl.DataFrame(
            [pl.Series(name, values, strict=False) for name, values in columns.items()]
            + self._features(sorted(wanted & FEATURES.keys()), histories, now)
        )
        return campaign_of(request.campaign).segments_of(frame)

    def _features(
        self, names: Sequence[str], histories: Histories, now: datetime
    ) -> list[pl.Series]:
        if not names:
            return []
        view = View(histories, Context(cutoff_day(now), self._facts))
        values = read_all([FEATURES[name] for name in names], view)
        return [self._column(name, values[:, i]) for i, name in enumerate(names)]

    def _column(self, name: str, values: np.ndarray) -> pl.Series:
        if name in NAMED:  # a category is known to people by its name; code -1 is the last, None
            return pl.Series(name, self._categories[values.astype(np.int64)], pl.String)
        return pl.Series(name, values)


def _fields(request: Request) -> frozenset[str]:
    return campaign_of(request.campaign).segment_fields if request.campaign else frozenset()
