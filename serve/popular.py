"""What is popular now, as the features tell it; and which features these are."""

import time
from datetime import UTC, datetime
from typing import Final

import numpy as np
import structlog

from reco.errors import RecoError
from reco.features.online import OnlineStore
from reco.rules.ladder import Keys

log = structlog.get_logger()

POPULAR_S: Final = 60.0  # how long a list of popular items is kept
AGAIN_S: Final = 2.0  # after which one that could not be read is asked for again


class Popular:
    """Recent popular items, read again when they are older than POPULAR_S.

    When Redis does not answer, the last list goes on being used.
    """

    def __init__(self, online: OnlineStore) -> None:
        self._online = online
        self._keys: Keys = np.zeros(0, np.uint64)
        self._as_of = datetime.min.replace(tzinfo=UTC)
        self._version = ""
        self._due = time.monotonic()

    def keys(self, as_of: datetime | None = None) -> Keys:
        """Item keys, best first; empty before the first load of features.

        A replay of a time before the features, `as_of`, gets none: they are its future.
        """
        self._refresh()
        if as_of is not None and self._as_of > as_of:
            return self._keys[:0]
        return self._keys

    @property
    def version(self) -> str:
        """As of when the features were loaded, and the hash of their definition; "" before."""
        return self._version

    def _refresh(self) -> None:
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + AGAIN_S  # other threads do not ask meanwhile
        try:
            meta = self._online.meta()
        except RecoError as error:
            log.warning("no popular items", why=str(error))
            return
        self._due = now + POPULAR_S
        if meta is not None:
            self._keys, self._as_of = meta.popular, meta.as_of
            self._version = f"{meta.as_of:%Y-%m-%dT%H:%M:%SZ} {meta.schema}"
