"""Reports act on the mails that they speak of: suppression, alarm, event, or nothing."""

import json
from collections import Counter
from dataclasses import dataclass, field

import httpx
import polars as pl
import pytest
from click.testing import CliRunner
from fastapi import FastAPI
from sqlalchemy import select

from reco.campaigns.delivery import HandOff
from reco.campaigns.ledger import Ledger
from reco.cli import main
from reco.database import BOUNCES
from reco.errors import NotFound
from reco.mac import Mac
from reco.outcomes.maildir import take_new
from reco.outcomes.returned import Delivered, ReturnedMail
from reco.outcomes.verdicts import Kind
from reco.subscribers.store import SubscriberStore
from reco.subscribers.suppression import SuppressionList, SuppressionReason
from render.links import Link, LinkKind, LinkSigner
from render.message import message_id, return_path
from serve.inbound import Leaving, router
from tests.test_bounces import DSN, complaint, report

KEY = b"k" * 32
ANA = "ana@mail.example"


@dataclass
class Sent:
    """Mails to Ana, a few campaigns, and what takes their returned."""

    engine: object
    suppressions: SuppressionList
    returned: ReturnedMail
    ids: list[str]
    events: list[dict] = field(default_factory=list)
    shards: int = 4

    def append(self, events):
        self.events += [json.loads(payload) for _, payload in events]

    def reason(self, address: str = ANA) -> SuppressionReason | None:
        entry = self.suppressions.check([address])[0]
        return entry and entry.reason

    def about(self, raw: bytes, n: int = 0) -> bytes:
        mid = self.ids[n]
        old = b"abcdefghijklmnopqrstuvwxyz234567"
        return raw.replace(old, mid[1:].split("@")[0].encode())


@pytest.fixture
def sent(engine, database_url) -> Sent:
    SubscriberStore(engine).upsert(pl.DataFrame({"user_id": ["ana"], "email": [ANA]}))
    ids = [message_id(Mac(KEY), f"c{n}", "ana", "shop.example") for n in range(4)]
    with Ledger(database_url) as ledger:
        for n, mid in enumerate(ids):
            ledger.enqueue(f"c{n}", [("ana", "personal")])
            claim = ledger.claim(f"c{n}", 1)
            ledger.hand_off(f"c{n}", claim.fence, [HandOff("ana", mid, 1, [], [], [], 1)])
    suppressions = SuppressionList(engine, KEY)
    made = Sent(engine, suppressions, None, ids)
    made.returned = ReturnedMail(engine, suppressions, made, Leaving(LinkSigner(KEY)))
    return made


def test_a_dead_address_is_suppressed_and_tells_so(sent):
    raw = sent.about(report("5.1.1", "550 User unknown"))

    assert Counter(hard=1) == sent.returned.take(raw)
    assert SuppressionReason.HARD_BOUNCE == sent.reason()
    event = sent.events[0]
    assert ("bounce", "ana", "c0") == (event["type"], event["user_id"], event["campaign_id"])
    assert "mail.example" not in json.dumps(event)


def test_the_same_report_acts_once(sent):
    raw = sent.about(report("5.1.1", "550 User unknown"))
    for _ in range(3):
        sent.returned.take(raw)

    assert 1 == len(sent.events)


def test_a_forged_bounce_suppresses_nobody(sent):
    raw = report("5.1.1", "550 User unknown")

    assert Counter(unmatched=1) == sent.returned.take(raw)
    assert sent.reason() is None


def test_it_is_the_address_of_the_mail_that_is_suppressed_whatever_the_report_says(sent):
    raw = sent.about(report("5.1.1", "550 User unknown")).replace(b"ana@", b"forwarded@")
    sent.returned.take(raw)

    assert SuppressionReason.HARD_BOUNCE == sent.reason()
    assert sent.reason("forwarded@mail.example") is None


@pytest.mark.parametrize(
    ("status", "diagnostic"),
    [
        ("5.7.1", "554 5.7.1 blocked using zen.spamhaus.org"),
        ("5.7.26", "550 5.7.26 unauthenticated"),
        ("5.3.4", "552 message too large"),
    ],
)
def test_policy_is_our_fault_and_suppresses_nobody(sent, status, diagnostic):
    assert Counter(policy=1) == sent.returned.take(sent.about(report(status, diagnostic)))
    assert sent.reason() is None


def test_the_third_full_mailbox_in_a_month_suppresses_for_a_while(sent):
    reasons = []
    for n in range(3):
        sent.returned.take(sent.about(report("5.2.2", "552 Mailbox full"), n))
        reasons.append(sent.reason())

    assert [None, None, SuppressionReason.SOFT_BOUNCE] == reasons
    entry = sent.suppressions.check([ANA])[0]
    assert entry
    assert entry.expires_at


def test_full_mailboxes_of_long_ago_do_not_count(sent):
    for n in range(2):
        sent.returned.take(sent.about(report("5.2.2", "552 Mailbox full"), n))
    with sent.engine.begin() as connection:
        connection.exec_driver_sql("update bounces set noted_at = now() - interval '31 days'")
    sent.returned.take(sent.about(report("5.2.2", "552 Mailbox full"), 2))

    assert sent.reason() is None


def test_a_complaint_suppresses_and_tells_so(sent):
    assert Counter(complaint=1) == sent.returned.take(sent.about(complaint("abuse")))
    assert SuppressionReason.COMPLAINT == sent.reason()
    assert ["complaint"] == [event["type"] for event in sent.events]


def test_who_is_away_stays_on_the_list(sent):
    away = f"From: {ANA}\nTo: {return_path(sent.ids[0], 'shop.example')}\n"
    away += "Auto-Submitted: auto-replied\nSubject: Away\n\nUser unknown until May."

    assert Counter(out_of_office=1) == sent.returned.take(away.encode())
    assert sent.reason() is None
    assert not sent.events


def test_a_refusal_while_sending_counts_like_a_bounce(sent):
    mail = Delivered("c0", "ana", sent.ids[0], ANA)
    refusal = "The relay refused the recipient. 550 5.1.1 <recipient>: User unknown"

    assert Kind.POLICY is sent.returned.refused(mail, "The relay refused the mail. 550 5.7.1 spam")
    assert sent.reason() is None
    assert Kind.HARD is sent.returned.refused(mail, refusal)
    assert SuppressionReason.HARD_BOUNCE == sent.reason()


def test_the_address_is_in_no_row_and_no_event(sent):
    sent.returned.take(sent.about(report("5.1.1", f"550 <{ANA}>: User unknown")))
    with sent.engine.connect() as connection:
        rows = connection.execute(select(BOUNCES)).all()

    assert 1 == len(rows)
    assert ANA not in str(rows) + str(sent.events)


def test_an_unsubscription_by_mail_needs_the_token_from_the_header(sent):
    token = LinkSigner(KEY).sign(Link(LinkKind.UNSUBSCRIBE, "c0", "ana"))
    mail = f"From: {ANA}\nTo: out@shop.example\nSubject: {{}}\n\n"

    assert Counter(unmatched=1) == sent.returned.take(mail.format("unsubscribe").encode())
    assert Counter(other=1) == sent.returned.take(mail.format(token[:-1]).encode())
    assert sent.reason() is None
    assert Counter(unsubscribe=1) == sent.returned.take(mail.format(token).encode())
    assert SuppressionReason.UNSUBSCRIBE == sent.reason()


def test_a_maildir_is_taken_once(sent, tmp_path):
    for name in ("new", "cur", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "new" / "1").write_bytes(sent.about(report("5.1.1", "550 User unknown")))
    (tmp_path / "new" / "2").write_bytes(b"From: x@y.example\n\nHello")

    assert Counter(messages=2, hard=1, other=1) == take_new(tmp_path, sent.returned.take)
    assert Counter() == take_new(tmp_path, sent.returned.take)
    assert 2 == len(list((tmp_path / "cur").iterdir()))
    with pytest.raises(NotFound, match="no Maildir"):
        take_new(tmp_path / "new", sent.returned.take)


def test_the_command_takes_a_maildir(home, monkeypatch, tmp_path):
    monkeypatch.setenv("RECO_HOME", str(home))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "1").write_text(DSN)
    done = CliRunner().invoke(main, ["bounces", str(tmp_path), "--json"])

    assert 0 == done.exit_code, done.output
    assert {"messages": 1, "unmatched": 1} == json.loads(done.stdout)


async def test_the_endpoint_takes_a_raw_message(sent):
    app = FastAPI()
    app.include_router(router(sent.returned), prefix="/v1")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://reco"
    ) as client:
        raw = sent.about(report("5.1.1", "550 User unknown"))
        headers = {"content-type": "message/rfc822"}
        answer = await client.post("/v1/inbound", content=raw, headers=headers)

    assert (200, {"reports": {"hard": 1}}) == (answer.status_code, answer.json())
    assert SuppressionReason.HARD_BOUNCE == sent.reason()
