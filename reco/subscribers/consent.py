"""What a subscriber agreed to, purpose by purpose: when, to which words, and where they said so.

Records are only added, never changed: the last one of a purpose is in force, all of them are the
proof (GDPR 7.1). The flags of the subscriber are what the rest of the line reads.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import Row, Select, insert, select, update
from sqlalchemy.engine import Engine

from reco.database import CONSENTS, SUBSCRIBERS
from reco.errors import NotFound


class Purpose(StrEnum):
    """What is agreed to, each on its own (CNIL 2026-042: tracking is apart from mail)."""

    MAIL = "mail"  # to be written to
    PROFILING = "profiling"  # picks from what one did; without it the mail is the same for all
    TRACKING = "tracking"  # the open pixel, and clicks that name a person


FLAGS: Final = {purpose: f"consent_{purpose.value}" for purpose in Purpose}


@dataclass(frozen=True, slots=True)
class Consent:
    """One statement. `text_version` names the words that were shown, `source` the form."""

    purpose: Purpose
    given: bool
    text_version: str
    source: str
    given_at: datetime


class ConsentLog:
    """The records of one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, user_id: str, consents: Sequence[Consent]) -> None:
        """Add statements and set the flags that follow from them; all or none.

        One that is older than what is known is kept as a proof and changes no flag.
        Raises NotFound for an unknown subscriber.
        """
        with self._engine.begin() as connection:
            query = select(SUBSCRIBERS.c.user_id).where(SUBSCRIBERS.c.user_id == user_id)
            if connection.execute(query.with_for_update()).first() is None:
                raise NotFound(f"There is no subscriber {user_id}.", todo="Import them first.")
            rows = [
                {
                    "user_id": user_id,
                    "purpose": c.purpose.value,
                    "given": c.given,
                    "text_version": c.text_version,
                    "source": c.source,
                    "given_at": c.given_at.astimezone(UTC),
                }
                for c in consents
            ]
            if rows:
                connection.execute(insert(CONSENTS), rows)
            known = _consents(connection.execute(_of(user_id)))
            flags = {FLAGS[c.purpose]: c.given for c in known}  # the last one of each stays
            if flags:
                mine = SUBSCRIBERS.c.user_id == user_id
                connection.execute(update(SUBSCRIBERS).where(mine).values(flags))

    def of(self, user_id: str) -> list[Consent]:
        """All that somebody ever said, the oldest first."""
        with self._engine.connect() as connection:
            return _consents(connection.execute(_of(user_id)))


def _of(user_id: str) -> Select[tuple[str, bool, str, str, datetime]]:
    c = CONSENTS.c
    columns = (c.purpose, c.given, c.text_version, c.source, c.given_at)
    return select(*columns).where(c.user_id == user_id).order_by(c.given_at, c.consent_id)


def _consents(rows: Iterable[Row[tuple[str, bool, str, str, datetime]]]) -> list[Consent]:
    return [
        Consent(Purpose(row.purpose), row.given, row.text_version, row.source, row.given_at)
        for row in rows
    ]
