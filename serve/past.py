"""A replay asks about a moment of the past: what was learned after it may not answer."""

from datetime import datetime
from functools import lru_cache

import redis

from reco.errors import ConfigError, ModelMismatch, NotFound, ServiceUnavailable
from reco.features.history import cutoff_day
from reco.features.online import OnlineStore
from reco.models.artifact import read_config
from reco.models.registry import champion


class Past:
    """Knows up to when features and champion have looked. Threads may share it."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._online = OnlineStore(client)
        self._as_of_day = lru_cache(maxsize=8)(_as_of_day)

    def check(self, as_of: datetime | None) -> None:
        """Raise ConfigError when features or champion know of events after `as_of` (None: now).

        Raises ServiceUnavailable when Redis does not answer.
        """
        if as_of is None:
            return
        when = f"{as_of:%Y-%m-%dT%H:%M:%S%z}"
        meta = self._online.meta()
        if meta is not None and meta.as_of > as_of:
            raise ConfigError(
                f"Nothing can be replayed as of {when}.",
                f"The features are as of {meta.as_of.isoformat()}, which is later.",
                f"Run `reco features --as-of {when}`, then ask again.",
            )
        try:
            model = champion(self._redis)
        except redis.RedisError as error:
            raise ServiceUnavailable("The champion cannot be looked up.", str(error)) from error
        if model is not None and self._as_of_day(model.directory) > cutoff_day(as_of):
            raise ConfigError(
                f"Nothing can be replayed as of {when}.",
                f"The champion, {model.version}, has learned from later events.",
                f"Run `reco train --as-of {when}`, then ask again.",
            )


def _as_of_day(directory: str) -> int:
    """First day that a model did not see; 0 for one that no replica can load either."""
    try:
        return read_config(directory).as_of_day
    except (NotFound, ModelMismatch):
        return 0
