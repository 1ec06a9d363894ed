"""Who unsubscribed, or was suppressed otherwise, after their mail was made: asked twice a second.

A mail may wait for its rate, for its receiver's pace or for a free connection. Whoever leaves
meanwhile is told apart in the last moment, when the connection is free and nothing is said yet.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from reco.subscribers.suppression import SuppressionList

log = structlog.get_logger()

EVERY_S: Final = 0.4  # with the time of the question: within a second on every sender


class Left(Exception):
    """Its reader left while it waited."""


class Leavers:
    """Addresses suppressed since this was made; for one event loop."""

    def __init__(self, suppressions: SuppressionList, every_s: float = EVERY_S) -> None:
        self._suppressions = suppressions
        self._every_s = every_s
        self._since: datetime | None = None
        self._left: set[bytes] = set()

    def check(self, address: str) -> None:
        """Raises Left when the address was suppressed meanwhile."""
        if self._left and self._suppressions.address_hash(address) in self._left:
            raise Left

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Ask again and again, until the block ends. A store that is down is asked again."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()

    async def _watch(self) -> None:
        while True:
            try:
                self._since, new = await asyncio.to_thread(self._suppressions.since, self._since)
                self._left |= new
            except (SQLAlchemyError, OSError) as error:
                log.warning("who leaves is not known", why=str(error).splitlines()[0])
            await asyncio.sleep(self._every_s)
