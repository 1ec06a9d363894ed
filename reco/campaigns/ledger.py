"""The ledger of deliveries: at most one mail a recipient and campaign, and never a silent loss.

Takes groups of mails, one statement and one durable commit a group; stands between the senders
and SMTP. Plain PostgreSQL: SKIP LOCKED for the claims, a fence against the slow and the dead.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from threading import Lock
from types import TracebackType
from typing import Any, Final, TypeVar

import polars as pl
import psycopg
from psycopg import sql

from reco.campaigns import ledger_sql
from reco.campaigns.delivery import (
    Claim,
    Claimed,
    HandOff,
    Outcome,
    Recovered,
    Settled,
    State,
    Suppressed,
)
from reco.errors import ServiceUnavailable

T = TypeVar("T")
Connection = psycopg.Connection[tuple[Any, ...]]

LEASE_S: Final = 30.0  # senders renew theirs; what a dead one held is taken over after it
ANALYZE_FROM: Final = 5_000  # rows a call; fewer do not mislead the planner
# Each by name: psycopg's classes of SQLSTATE do not descend from one another.
ROLLED_BACK: Final = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
# A network that drops everything is noticed within some 25 s, not after the kernel's hours.
KEEPALIVE: Final[dict[str, Any]] = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # ms
}

ROWS: Final = pl.Schema(
    {
        "user_id": pl.String(),
        "arm": pl.String(),
        "state": pl.String(),
        "fence": pl.Int64(),
        "attempts": pl.Int32(),
        "message_id": pl.String(),
        "rung": pl.Int16(),
        "items": pl.List(pl.String()),
        "scores": pl.List(pl.Float64()),
        "reasons": pl.List(pl.Int16()),
        "reply": pl.String(),
        "size_bytes": pl.Int32(),
        "queued_at": pl.Datetime("us", "UTC"),
        "accepted_at": pl.Datetime("us", "UTC"),
    }
)


class Ledger:
    """One connection to the ledger; safe to share between threads, which then take turns.

    Every method raises ServiceUnavailable when the database stays away after one new connection.
    """

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._lock = Lock()
        self._connection: Connection | None = None

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a later call opens a new one."""
        with self._lock:
            self._drop()

    def enqueue(self, campaign_id: str, rows: Sequence[tuple[str, str]]) -> int:
        """Queue (user_id, arm) and give the number of new ones; known recipients are left alone."""
        return self._run(lambda connection: _enqueue(connection, campaign_id, rows))

    def exclude(self, campaign_id: str, rows: Sequence[tuple[str, str]], reason: str) -> int:
        """Write down (user_id, arm) as suppressed from the start; known recipients are left alone.

        Gives the number of new ones. Call it before they are enqueued with the others.
        """
        columns = {"users": [user for user, _ in rows], "arms": [arm for _, arm in rows]}
        names = {"campaign": campaign_id, "reason": reason}
        return self._count(ledger_sql.EXCLUDE, columns | names) if rows else 0

    def known(self, campaign_id: str, users: Sequence[str]) -> dict[str, str]:
        """Those of the users who have a delivery already, each with its reply or reason."""
        found = self.outcomes(campaign_id, users)
        return {user: outcome.reply or "" for user, outcome in found.items()}

    def claim(self, campaign_id: str, limit: int, lease_s: float = LEASE_S) -> Claim:
        """Take up to `limit` deliveries: first the deferred ones that are due, then the queued."""
        values = {"campaign": campaign_id, "limit": limit, "lease_s": lease_s}
        return _claim(self._fetch(ledger_sql.CLAIM, values))

    def claim_these(
        self, campaign_id: str, users: Sequence[str], lease_s: float = LEASE_S
    ) -> Claim:
        """Take these deliveries, as far as they are queued, or deferred and due."""
        values = {"campaign": campaign_id, "users": list(users), "lease_s": lease_s}
        return _claim(self._fetch(ledger_sql.CLAIM_THESE, values))

    def take(
        self, campaign_id: str, rows: Sequence[tuple[str, str]], lease_s: float = LEASE_S
    ) -> Claim:
        """Queue (user_id, arm), each user once, and claim them: as far as they are new or wait."""
        columns = {"users": [user for user, _ in rows], "arms": [arm for _, arm in rows]}
        values = {"campaign": campaign_id, "lease_s": lease_s} | columns
        return _claim(self._fetch(ledger_sql.TAKE, values))

    def hand_off(
        self, campaign_id: str, fence: int, mails: Sequence[HandOff], lease_s: float = LEASE_S
    ) -> set[str]:
        """Make durable that these mails are about to be sent; only the returned users' may be.

        Whoever is missing belongs to another claim by now. Call it before the first byte of DATA.
        """
        if not mails:
            return set()
        lasts = list(accumulate(len(mail.items) for mail in mails))
        columns = {
            "users": [mail.user_id for mail in mails],
            "messages": [mail.message_id for mail in mails],
            "rungs": [mail.rung for mail in mails],
            "sizes": [mail.size_bytes for mail in mails],
            "items": [item for mail in mails for item in mail.items],
            "scores": [score for mail in mails for score in mail.scores],
            "reasons": [reason for mail in mails for reason in mail.reasons],
            "firsts": [1, *(last + 1 for last in lasts[:-1])],
            "lasts": lasts,
        }
        claim = {"campaign": campaign_id, "fence": fence, "lease_s": lease_s}
        return {user for (user,) in self._fetch(ledger_sql.HAND_OFF, columns | claim)}

    def settle(self, campaign_id: str, fence: int, outcomes: Sequence[Settled]) -> set[str]:
        """Write down what became of hand-offs; gives the users whose row took the outcome.

        Only rows of this fence change, and only by the table of `State`; the others are left alone.
        """
        return self._close_rows(
            campaign_id,
            fence,
            [(o.user_id, o.state.value, o.reply, o.next_at, o.tried) for o in outcomes],
        )

    def suppress(self, campaign_id: str, fence: int, rows: Sequence[Suppressed]) -> set[str]:
        """End claimed deliveries that must not be sent, each with its reason."""
        state = State.SUPPRESSED.value
        return self._close_rows(
            campaign_id, fence, [(row.user_id, state, row.reason, None, True) for row in rows]
        )

    def release(self, campaign_id: str, fence: int) -> int:
        """Put back whatever this claim has not handed off yet; gives the number."""
        return self._count(ledger_sql.RELEASE, {"campaign": campaign_id, "fence": fence})

    def renew(self, campaign_id: str, fence: int, lease_s: float = LEASE_S) -> int:
        """Keep whatever this claim still works on; gives the number. Call it before the lease ends.

        What another call is writing at this moment is left to that one.
        """
        values = {"campaign": campaign_id, "fence": fence, "lease_s": lease_s}
        return self._count(ledger_sql.RENEW, values)

    def recover(self, campaign_id: str) -> Recovered:
        """Take deliveries from senders whose lease ran out; call it now and then, from anywhere."""
        rows = dict(self._fetch(ledger_sql.RECOVER, {"campaign": campaign_id}))
        return Recovered(rows.get(State.QUEUED, 0), rows.get(State.UNCERTAIN, 0))

    def stop(self, campaign_id: str, reason: str) -> int:
        """End everything that waits (queued, deferred) as suppressed, when a campaign is over."""
        return self._count(ledger_sql.STOP, {"campaign": campaign_id, "reason": reason})

    def counts(self, campaign_id: str) -> dict[str, int]:
        """Deliveries by state, 0 included."""
        found = dict(self._fetch(ledger_sql.COUNTS, {"campaign": campaign_id}))
        return {state.value: found.get(state.value, 0) for state in State}

    def next_due(self, campaign_id: str) -> datetime | None:
        """When the next deferred delivery may be claimed; None when none waits."""
        due: datetime | None = self._fetch(ledger_sql.NEXT_DUE, {"campaign": campaign_id})[0][0]
        return due.astimezone(UTC) if due else None

    def outcomes(self, campaign_id: str, users: Sequence[str]) -> dict[str, Outcome]:
        """Where these deliveries are, as far as there are any."""
        rows = self._fetch(ledger_sql.OUTCOMES, {"campaign": campaign_id, "users": list(users)})
        return {user: Outcome(*rest) for user, *rest in rows}

    def rows(self, campaign_id: str) -> pl.DataFrame:
        """Every delivery of a campaign, by user_id, with the columns of `ROWS`."""
        rows = self._fetch(ledger_sql.ROWS, {"campaign": campaign_id})
        return pl.DataFrame(rows, schema=ROWS, orient="row")

    def _close_rows(
        self,
        campaign_id: str,
        fence: int,
        rows: Sequence[tuple[str, str, str, datetime | None, bool]],
    ) -> set[str]:
        if not rows:
            return set()
        users, states, replies, times, tried = zip(*rows, strict=True)
        columns = {
            "campaign": campaign_id,
            "fence": fence,
            "users": list(users),
            "states": list(states),
            "replies": list(replies),
            "times": list(times),
            "tried": list(tried),
        }
        return {user for (user,) in self._fetch(ledger_sql.SETTLE, columns)}

    def _fetch(self, query: sql.SQL, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        return self._run(lambda connection: connection.execute(query, values).fetchall())

    def _count(self, query: sql.SQL, values: dict[str, Any]) -> int:
        return self._run(lambda connection: connection.execute(query, values).rowcount)

    def _run(self, work: Callable[[Connection], T]) -> T:
        """Do the work, once more on a new connection when the first one was lost on the way."""
        with self._lock:
            try:
                return work(self._connected())
            except psycopg.OperationalError as error:
                if not self._worth_again(error):
                    raise _unavailable(error) from error
                self._drop()
            try:
                return work(self._connected())
            except psycopg.OperationalError as error:
                self._drop()
                raise _unavailable(error) from error

    def _worth_again(self, error: psycopg.OperationalError) -> bool:
        lost = self._connection is None or self._connection.closed
        return lost or isinstance(error, ROLLED_BACK)

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=10,
                application_name="reco ledger",
                **KEEPALIVE,
            )
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _claim(rows: Sequence[tuple[Any, ...]]) -> Claim:
    fence = rows[0][0] if rows else 0
    return Claim(fence, [Claimed(user, arm, attempts) for _, user, arm, attempts in rows])


def _enqueue(connection: Connection, campaign_id: str, rows: Sequence[tuple[str, str]]) -> int:
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(ledger_sql.INBOX)
        with cursor.copy(ledger_sql.FILL_INBOX) as copy:
            for row in rows:
                copy.write_row(row)
        new = cursor.execute(ledger_sql.ENQUEUE, {"campaign": campaign_id}).rowcount
    if len(rows) >= ANALYZE_FROM:
        connection.execute(ledger_sql.ANALYZE)
    return new


def _unavailable(error: psycopg.OperationalError) -> ServiceUnavailable:
    if isinstance(error, psycopg.errors.DiskFull):
        todo = "Make room on the database's disk, then resume the campaign; nothing was lost."
    else:
        todo = "Check RECO_DATABASE_URL and the server, then resume the campaign; nothing was lost."
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ServiceUnavailable("The ledger's database does not answer.", reason, todo)
