"""Precomputed slates of the champion, as far as they are in Redis and not too old (TTL)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import redis

from reco.errors import ServiceUnavailable
from reco.models.registry import champion
from reco.models.slates import Slates
from reco.models.topk import unpack
from reco.rules.rules import Bools
from reco.tables import topk_key
from serve.rows import placed


@dataclass(frozen=True, slots=True)
class Fresh:
    """Slates [n, k], empty where there are none, and the model that they are of; "" for none."""

    slates: Slates
    version: str = ""


class FreshSlates:
    """Reads slates that `reco precompute` wrote."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def fetch(
        self, user_ids: Sequence[str], wanted: Bools, k: int, as_of: datetime | None = None
    ) -> Fresh:
        """Slates [n, k] in the order of the ids; empty where unwanted, missing or of another model.

        A replay takes only what is for its time: `as_of`. Raises ServiceUnavailable.
        """
        nothing = Slates.empty(len(user_ids), k)
        rows = np.flatnonzero(wanted).tolist()
        try:
            model = champion(self._redis)
            if model is None or not rows:
                return Fresh(nothing)
            values: list[Any] = self._redis.mget([topk_key(user_ids[i]) for i in rows])
        except redis.RedisError as error:
            raise ServiceUnavailable("Precomputed slates cannot be read.", str(error)) from error
        found = unpack(values, k, model.version)
        slates = found.slates
        if as_of is not None:
            other = found.as_of != int(as_of.timestamp())
            slates = placed(slates, other, Slates.empty(int(other.sum()), k))
        return Fresh(placed(nothing, wanted, slates), model.version if slates.items.any() else "")
