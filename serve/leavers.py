"""Who unsubscribed, was suppressed otherwise, or withdrew consent after their mail was made.

A mail may wait for its rate, for its receiver's pace or for a free connection. Whoever leaves
meanwhile is told apart in the last moment, when the connection is free and nothing is said yet.
Suppressions are asked for twice a second; of changed profiles the database tells by itself, and
those are looked up: no consent to mail, or no profile any more, is no mail.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from datetime import datetime
from typing import Final

import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

from reco.database import PROFILE_CHANNEL
from reco.subscribers.suppression import SuppressionList

log = structlog.get_logger()

EVERY_S: Final = 0.4  # with the time of the question: within a second on every sender
FORGET_S: Final = 10.0  # whoever came back has their mails after this time
HEAR_S: Final = 0.01  # for notes that are on their way
# Of those who changed: who may not be written to, and who may.
ALLOWED: Final = """
    select user_id from subscribers where user_id = any(%s) and consent_mail and email <> ''
"""


class Left(Exception):
    """Its reader left while it waited."""


class Leavers:
    """Who left since this was made; for one event loop. Without an address of the database only
    suppressions are followed.
    """

    def __init__(
        self,
        suppressions: SuppressionList,
        database_url: str | None = None,
        every_s: float = EVERY_S,
        forget_s: float = FORGET_S,
    ) -> None:
        self._suppressions = suppressions
        self._every_s = every_s
        self._forget_s = forget_s
        self._forgot_at = time.monotonic()
        self._since: datetime | None = None
        self._suppressed: set[bytes] = set()
        self._withdrawn: set[str] = set()
        self._changes = Changes(database_url) if database_url else None

    def check(self, address: str, user_id: str = "") -> None:
        """Raises Left when the address was suppressed, or the subscriber withdrew, meanwhile."""
        if user_id in self._withdrawn:
            raise Left
        if self._suppressed and self._suppressions.address_hash(address) in self._suppressed:
            raise Left

    @property
    def listens(self) -> bool:
        """Whether every change of a profile is heard of from now on."""
        return self._changes is not None and self._changes.listens

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Ask again and again, until the block ends. A store that is down is asked again."""
        with ExitStack() as stack:
            watches = [asyncio.create_task(self._again_and_again(self._ask))]
            if self._changes is not None:
                stack.callback(self._changes.close)
                watches.append(asyncio.create_task(self._again_and_again(self._listen)))
            try:
                yield
            finally:
                for watch in watches:
                    watch.cancel()
                await asyncio.gather(*watches, return_exceptions=True)

    async def _again_and_again(self, look: Callable[[], None]) -> None:
        while True:
            try:
                await asyncio.to_thread(look)
            except (SQLAlchemyError, psycopg.Error, OSError) as error:
                log.warning("who leaves is not known", why=str(error).splitlines()[0])
            await asyncio.sleep(self._every_s)

    def _ask(self) -> None:
        if time.monotonic() - self._forgot_at >= self._forget_s:
            self._suppressed = self._suppressions.still(self._suppressed)
            self._forgot_at = time.monotonic()
        self._since, new = self._suppressions.since(self._since)
        self._suppressed |= new

    def _listen(self) -> None:
        assert self._changes is not None
        changed, allowed = self._changes.heard()
        self._withdrawn = (self._withdrawn | changed) - allowed


class Changes:
    """Profiles that changed, by what PostgreSQL tells its listeners, whoever wrote them."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._connection: psycopg.Connection | None = None

    def heard(self) -> tuple[set[str], set[str]]:
        """Who changed since the last call, and who of them may be written to.

        Raises psycopg.Error when the database is away; the next call listens anew.
        """
        try:
            changed = set(self._notes())
            if not changed:
                return set(), set()
            assert self._connection is not None
            found = self._connection.execute(ALLOWED, [list(changed)])
            return changed, {user for (user,) in found}
        except psycopg.Error:
            self.close()
            raise

    @property
    def listens(self) -> bool:
        """Whether PostgreSQL tells of changes."""
        return self._connection is not None

    def close(self) -> None:
        """Stop listening."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _notes(self) -> Iterator[str]:
        if self._connection is None:
            connection = psycopg.connect(self._url, autocommit=True)
            connection.execute(f"listen {PROFILE_CHANNEL}")
            self._connection = connection
        for note in self._connection.notifies(timeout=HEAR_S):
            yield note.payload
