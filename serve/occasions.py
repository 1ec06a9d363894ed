"""What the moment adds to chances, as the last `reco features` learned it; looked up now and then.

Scores do not depend on it: while there is no table, or the lake is away, they stay as they are.
"""

import time
from collections.abc import Sequence
from datetime import datetime
from threading import Lock
from typing import Final

import structlog

from reco.catalogue import Catalogue
from reco.errors import RecoError
from reco.events.lake import Lake
from reco.features.online import OnlineStore
from reco.features.table import table_name
from reco.models.occasion_lifts import Lifts
from reco.models.slates import Slates

LOOK_S: Final = 60.0  # how soon a new table is used

log = structlog.get_logger()


class Occasions:
    """Keeps Lifts on the features that are served. Threads may share it."""

    def __init__(self, lake: Lake, online: OnlineStore, catalogue: Catalogue) -> None:
        self._lake = lake
        self._online = online
        self._catalogue = catalogue
        self._lifts: Lifts | None = None
        self._as_of: datetime | None = None
        self._looked_at = -LOOK_S
        self._lock = Lock()

    def joined(self, slates: Slates, when: datetime, timezones: Sequence[str]) -> Slates:
        """Slates in the order of their chances at a moment, where each subscriber lives."""
        self._look()
        return slates if self._lifts is None else self._lifts.joined(slates, when, timezones)

    def _look(self) -> None:
        if time.monotonic() - self._looked_at < LOOK_S or not self._lock.acquire(blocking=False):
            return
        try:
            meta = self._online.meta()
            if meta is not None and meta.as_of != self._as_of:
                table = self._lake.read_table(table_name(meta.as_of, "occasions"))
                self._lifts = Lifts.of(table, self._catalogue)
                self._as_of = meta.as_of
        except RecoError as error:
            log.info("no occasions are known", why=str(error))
        finally:
            self._looked_at = time.monotonic()
            self._lock.release()
