"""What can be sold now: the stock of the lake's items, looked at again every few seconds.

The rest of the items (titles, prices, new ones) is what it was when the replica started.
"""

import time
from threading import Lock
from typing import Final

import polars as pl
import structlog

from reco.catalogue import Catalogue
from reco.errors import RecoError
from reco.events.lake import Lake
from reco.rules.rules import Bools

LOOK_S: Final = 10.0  # how soon something that is sold out is offered no more

log = structlog.get_logger()


class Shelf:
    """Stock of the rows of a catalogue. Threads may share it."""

    def __init__(self, lake: Lake, catalogue: Catalogue) -> None:
        self._lake = lake
        self._catalogue = catalogue
        self._in_stock = catalogue.in_stock
        self._seen = lake.items_version()
        self._looked_at = time.monotonic()
        self._lock = Lock()

    def in_stock(self) -> Bools:
        """Whether each row [m] can be sold; an item that is no longer in the lake cannot."""
        if time.monotonic() - self._looked_at >= LOOK_S and self._lock.acquire(blocking=False):
            try:
                self._look()
            except (RecoError, OSError) as error:
                log.warning("the stock is as it was", why=str(error))
            finally:
                self._looked_at = time.monotonic()
                self._lock.release()
        return self._in_stock

    def _look(self) -> None:
        version = self._lake.items_version()
        if version == self._seen:
            return
        now = Catalogue.of(self._lake.items())
        there = now.frame.select("item_id", pl.Series("there", now.in_stock))
        mine = self._catalogue.frame.select("item_id")
        joined = mine.join(there, on="item_id", how="left", maintain_order="left")
        self._in_stock = joined["there"].fill_null(False).to_numpy()
        self._seen = version
