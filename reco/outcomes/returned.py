"""What follows from bounces, complaints and refusals: suppression, an alarm, an event, or nothing.

A report counts only for a mail of ours, known by the Message-ID that nobody can guess, and for the
address that this mail went to: a forged bounce suppresses nobody.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Engine

from reco.campaigns.delivery import recipient_of
from reco.database import BOUNCES, DELIVERIES
from reco.events.bus import Bus
from reco.outcomes.bounces import parse
from reco.outcomes.mail_text import CODE
from reco.outcomes.verdicts import Kind, Refusal, Report, judge
from reco.subscribers.store import SubscriberStore
from reco.subscribers.suppression import SuppressionList, SuppressionReason
from reco.tables import user_bucket

log = structlog.get_logger()

SOFT_LIMIT: Final = 3  # soft bounces within SOFT_WINDOW make a dead address, for as long again
SOFT_WINDOW: Final = timedelta(days=30)
EVENTS: Final = {Kind.HARD: "bounce", Kind.SOFT: "bounce", Kind.COMPLAINT: "complaint"}


@dataclass(frozen=True, slots=True)
class Delivered:
    """The mail that a report speaks of."""

    campaign_id: str
    delivery: str
    message_id: str
    address: str

    @property
    def user_id(self) -> str:
        """Who got it."""
        return recipient_of(self.delivery)


class ReturnedMail:
    """Takes reports on mails of one installation. Threads may share it.

    `leaving` reads the token of an unsubscription by mail: (campaign id, delivery), or None.
    """

    def __init__(
        self,
        engine: Engine,
        suppressions: SuppressionList,
        bus: Bus | None = None,
        leaving: Callable[[str], tuple[str, str] | None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._subscribers = SubscriberStore(engine)
        self._suppressions = suppressions
        self._bus = bus
        self._leaving = leaving

    def take(self, raw: bytes) -> Counter[str]:
        """Act on one message that came back; how many reports of each kind it held.

        `unmatched` are those on mails that are not ours, `unsubscribe` wishes by mail, `other`
        is a message that reports nothing. Raises ServiceUnavailable when a store is gone.
        """
        reports = parse(raw)
        counts: Counter[str] = Counter()
        if not any(report.message_id for report in reports) and self._unsubscribe(raw):
            return Counter(["unsubscribe"])
        for report in reports:
            mail = self._mail(report)
            counts[report.kind.value if mail else "unmatched"] += 1
            if mail:
                self._act(mail, report)
        return counts or Counter(["other"])

    def refused(self, mail: Delivered, reply: str) -> Kind:
        """Act on the answer of a server while we were sending; the same policy.

        `reply` is what the ledger keeps: our own words, then those of the server from its code on.
        """
        code = CODE.search(reply)
        reply = reply[code.start() :] if code else reply
        kind = judge(Refusal.of(reply))
        self._act(
            mail, Report(kind, mail.address, mail.message_id, Refusal.of(reply).status, reply)
        )
        return kind

    def _act(self, mail: Delivered, report: Report) -> None:
        """Note it, and suppress whom it proves dead or unwilling. The same report acts once."""
        if report.kind is Kind.OUT_OF_OFFICE or not self._note(mail, report):
            return
        source = f"{report.status or report.kind} {mail.campaign_id}"
        if report.kind is Kind.HARD:
            self._suppressions.add([mail.address], SuppressionReason.HARD_BOUNCE, source)
        elif report.kind is Kind.COMPLAINT:
            self._suppressions.add([mail.address], SuppressionReason.COMPLAINT, source)
        elif report.kind is Kind.SOFT and self._softened(mail.address) >= SOFT_LIMIT:
            until = datetime.now(UTC) + SOFT_WINDOW
            self._suppressions.add([mail.address], SuppressionReason.SOFT_BOUNCE, source, until)
        elif report.kind is Kind.POLICY:
            log.warning("mail is refused by policy", campaign=mail.campaign_id, why=report.why)
        self._tell(mail, report)

    def _note(self, mail: Delivered, report: Report) -> bool:
        """Whether the report is new."""
        row = {
            "address_hash": self._suppressions.address_hash(mail.address),
            "message_id": mail.message_id,
            "kind": report.kind.value,
            "campaign_id": mail.campaign_id,
            "status": report.status,
            "why": report.why.replace(mail.address, "recipient")[:300],
        }
        statement = insert(BOUNCES).values(row).on_conflict_do_nothing()
        with self._engine.begin() as connection:
            return connection.execute(statement.returning(BOUNCES.c.kind)).first() is not None

    def _softened(self, address: str) -> int:
        c = BOUNCES.c
        recent = (c.kind == Kind.SOFT.value) & (c.noted_at > func.now() - SOFT_WINDOW)
        query = select(func.count()).where(
            (c.address_hash == self._suppressions.address_hash(address)) & recent
        )
        with self._engine.connect() as connection:
            return connection.execute(query).scalar_one()

    def _mail(self, report: Report) -> Delivered | None:
        if not report.message_id:
            return None
        c = DELIVERIES.c
        query = select(c.campaign_id, c.user_id, c.message_id).where(
            c.message_id == report.message_id
        )
        with self._engine.connect() as connection:
            row = connection.execute(query.limit(1)).first()
        return self._delivered(row.campaign_id, row.user_id, row.message_id) if row else None

    def _delivered(self, campaign_id: str, delivery: str, message_id: str) -> Delivered | None:
        person = self._subscribers.get([recipient_of(delivery)])[0]
        if person is None or not person.email:
            return None
        return Delivered(campaign_id, delivery, message_id, person.email)

    def _unsubscribe(self, raw: bytes) -> bool:
        """A mail whose subject is the token that we put into List-Unsubscribe."""
        link = self._leaving(_subject(raw))
        mail = link and self._delivered(*link, "")
        if not mail:
            return False
        self._suppressions.add([mail.address], SuppressionReason.UNSUBSCRIBE, "mail")
        self._append(mail, "unsubscribe", {})
        return True

    def _tell(self, mail: Delivered, report: Report) -> None:
        if kind := EVENTS.get(report.kind):
            self._append(mail, kind, {"bounce": report.kind.value, "status": report.status})

    def _append(self, mail: Delivered, kind: str, attributes: dict[str, str]) -> None:
        if self._bus is None:
            return
        event = {
            "event_id": f"{kind}:{mail.campaign_id}:{mail.delivery}:{attributes.get('bounce', '')}",
            "type": kind,
            "user_id": mail.user_id,
            "campaign_id": mail.campaign_id,
            "delivery_id": mail.delivery,
            "timestamp": datetime.now(UTC).isoformat(),
            "attributes": attributes,
        }
        shard = user_bucket(mail.user_id, self._bus.shards)
        self._bus.append([(shard, json.dumps(event).encode())])


def _subject(raw: bytes) -> str:
    head = raw[:65_536].replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    for line in head.split(b"\n"):
        if line.lower().startswith(b"subject:"):
            return line[8:].strip().decode("ascii", "replace")
    return ""
