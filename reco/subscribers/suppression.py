"""Who must not be written to, whatever else is said about them.

Keyed by an HMAC of the normalised address: it survives the erasure of the subscriber, and a copy of
the table names nobody. Checked when a mail is queued and again when it is handed off.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy import ARRAY, ColumnElement, LargeBinary, any_, delete, func, literal, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Engine

from reco.database import SUPPRESSIONS
from reco.mac import Mac
from reco.subscribers.hygiene import normalise

# Its own normal form; sparing the full parse makes a hash 50 times cheaper.
PLAIN: Final = re.compile(r"[a-z0-9_+-]+(\.[a-z0-9_+-]+)*@[a-z0-9-]+(\.[a-z0-9-]+)+")
# An entry carries the time at which its transaction began, and is seen when that ends.
OVERLAP: Final = timedelta(seconds=30)
IN_FORCE: Final = or_(SUPPRESSIONS.c.expires_at.is_(None), SUPPRESSIONS.c.expires_at > func.now())


class SuppressionReason(StrEnum):
    """Why an address is on the list."""

    UNSUBSCRIBE = "unsubscribe"
    COMPLAINT = "complaint"
    HARD_BOUNCE = "hard_bounce"
    SOFT_BOUNCE = "soft_bounce"  # the only one that should expire
    INVALID = "invalid"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Suppression:
    """An entry of the list; `expires_at` None means for ever."""

    reason: SuppressionReason
    source: str  # where it came from: one_click, bounce, import, ...
    since: datetime
    expires_at: datetime | None


class SuppressionList:
    """The list in PostgreSQL; `key` is the secret of the HMAC and must never change."""

    def __init__(self, engine: Engine, key: bytes) -> None:
        """Raises ValueError when the key is shorter than 16 bytes."""
        if len(key) < 16:
            raise ValueError("the key of the suppression list needs at least 16 bytes")
        self._engine = engine
        self._mac = Mac(Mac(key).digest(b"reco suppression list"))

    def address_hash(self, address: str) -> bytes:
        """HMAC-SHA256 of the address in its normal form, without regard to case."""
        # Servers that tell Ann@ from ann@ are rarer than people who write both.
        plain = address.strip().casefold()
        if not PLAIN.fullmatch(plain) or "xn--" in plain:
            plain = (normalise(plain) or plain).casefold()
        return self._mac.digest(plain.encode())

    def add(
        self,
        addresses: Sequence[str],
        reason: SuppressionReason,
        source: str,
        expires_at: datetime | None = None,
    ) -> int:
        """Put addresses on the list and give how many entries are new or stronger.

        An entry without end stays as it is: only one that expires makes way for a longer one.
        """
        if not addresses:
            return 0
        hashes = sorted({self.address_hash(address) for address in addresses})
        row = {"reason": reason.value, "source": source, "expires_at": expires_at}
        statement = insert(SUPPRESSIONS).values([{"address_hash": h, **row} for h in hashes])
        old, new = SUPPRESSIONS.c, statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=["address_hash"],
            set_={**{name: new[name] for name in row}, "since": func.now()},
            where=old.expires_at.is_not(None)
            & (new.expires_at.is_(None) | (new.expires_at > old.expires_at)),
        )
        with self._engine.begin() as connection:
            return connection.execute(statement.returning(old.address_hash)).rowcount

    def remove(self, address: str) -> bool:
        """Take an address off, on its owner's wish (a new opt-in); whether it was on the list."""
        statement = delete(SUPPRESSIONS).where(
            SUPPRESSIONS.c.address_hash == self.address_hash(address)
        )
        with self._engine.begin() as connection:
            return connection.execute(statement).rowcount > 0

    def check(self, addresses: Sequence[str]) -> list[Suppression | None]:
        """The entry in force of each address, None where there is none; one query."""
        hashes = [self.address_hash(address) for address in addresses]
        columns = SUPPRESSIONS.c
        statement = select(
            columns.address_hash,
            columns.reason,
            columns.source,
            columns.since,
            columns.expires_at,
        ).where(_one_of(hashes), IN_FORCE)
        with self._engine.connect() as connection:
            found = {
                row.address_hash: Suppression(
                    SuppressionReason(row.reason), row.source, row.since, row.expires_at
                )
                for row in connection.execute(statement)
            }
        return [found.get(h) for h in hashes]

    def since(self, moment: datetime | None) -> tuple[datetime, set[bytes]]:
        """The time by the database's clock, and hashes of the addresses put on the list after
        `moment`; some of just before it are among them, and None is now.
        """
        columns = SUPPRESSIONS.c
        with self._engine.connect() as connection:
            now = connection.execute(select(func.now())).scalar_one()
            after = (moment or now) - OVERLAP
            new = select(columns.address_hash).where(columns.since > after, IN_FORCE)
            return now, set(connection.execute(new).scalars())

    def still(self, hashes: Collection[bytes]) -> set[bytes]:
        """Those of these hashes that are on the list: entries expire, and are taken off."""
        if not hashes:
            return set()
        statement = select(SUPPRESSIONS.c.address_hash).where(_one_of(hashes), IN_FORCE)
        with self._engine.connect() as connection:
            return set(connection.execute(statement).scalars())


def _one_of(hashes: Collection[bytes]) -> ColumnElement[bool]:
    """One array instead of a parameter each, which psycopg would look for in the text."""
    return SUPPRESSIONS.c.address_hash == any_(literal(list(hashes), ARRAY(LargeBinary)))
