"""What comes back is understood: delivery reports, feedback reports, older formats, anything."""

import json
from collections import Counter
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reco.outcomes.bounces import parse
from reco.outcomes.verdicts import Kind, Refusal, judge
from tests.conftest import ROOT

OURS = "<abcdefghijklmnopqrstuvwxyz234567@shop.example>"
DSN = """\
From: MAILER-DAEMON@mx.example
To: bounces+abcdefghijklmnopqrstuvwxyz234567@shop.example
Subject: Undelivered Mail Returned to Sender
Message-ID: <1@mx.example>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

Your message to <ana@mail.example> could not be delivered.

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example

Final-Recipient: rfc822; ana@mail.example
Action: {action}
Status: {status}
Diagnostic-Code: smtp; {diagnostic}

--b
Content-Type: message/rfc822

From: news@shop.example
To: ana@mail.example
Message-ID: <abcdefghijklmnopqrstuvwxyz234567@shop.example>
Subject: Your picks

Hi
--b--
"""


def report(status: str, diagnostic: str, action: str = "failed") -> bytes:
    text = DSN.format(status=status, diagnostic=diagnostic, action=action)
    return text.replace("\n", "\r\n").encode()


@pytest.mark.parametrize(
    ("status", "diagnostic", "kind"),
    [
        ("5.1.1", "550 5.1.1 <ana@mail.example>: User unknown", Kind.HARD),
        ("5.0.0", "550 No such user here", Kind.HARD),
        ("5.1.2", "550 Host unknown", Kind.HARD),
        ("5.1.10", "556 5.1.10 Recipient address has null MX", Kind.HARD),
        ("5.4.1", "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", Kind.HARD),
        ("5.2.2", "552 5.2.2 Mailbox full", Kind.SOFT),
        ("5.1.1", "552 over quota", Kind.SOFT),
        ("4.4.7", "delivery time expired", Kind.SOFT),
        ("4.7.0", "421 4.7.0 IP not in whitelist, try again later", Kind.POLICY),
        (
            "5.7.1",
            "554 5.7.1 Service unavailable blocked by zen.spamhaus.org",
            Kind.POLICY,
        ),
        ("5.7.26", "550 5.7.26 Unauthenticated email is not accepted due to DMARC", Kind.POLICY),
        (
            "5.7.515",
            "550 5.7.515 Access denied, bad sending domain",
            Kind.POLICY,
        ),
        ("5.1.1", "550 5.1.1 Message rejected as spam", Kind.POLICY),
        ("5.3.4", "552 5.3.4 Message size exceeds fixed limit", Kind.POLICY),
        ("5.1.0", "550 5.1.0 <news@shop.example> sender rejected", Kind.POLICY),
        ("5.0.0", "554 5.7.1 ana@mail.example: Relay access denied", Kind.POLICY),
    ],
)
def test_a_delivery_report_says_what_it_means(status, diagnostic, kind):
    assert [(kind, "ana@mail.example", OURS)] == [
        (r.kind, r.recipient, r.message_id) for r in parse(report(status, diagnostic))
    ]


@pytest.mark.parametrize("action", ["delivered", "relayed", "expanded"])
def test_success_is_no_bounce(action):
    assert [] == parse(report("2.0.0", "250 OK", action))


def test_a_delay_is_soft_whatever_its_words():
    assert [Kind.SOFT] == [r.kind for r in parse(report("5.1.1", "550 User unknown", "delayed"))]


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        ("5.0.0", "said: 550 Unknown user (in reply to end of DATA command)", Kind.SOFT),
        ("5.1.1", "said: 550 5.1.1 Unknown user (in reply to end of DATA command)", Kind.HARD),
        ("5.0.0", "said: 550 Unknown user (in reply to RCPT TO command)", Kind.HARD),
        ("5.0.0", ">>> DATA\n<<< 550 Unknown user\n554 5.0.0 Service unavailable", Kind.SOFT),
        ("5.0.0", ">>> DATA\n<<< 550 Unknown user\n<<< 503 5.0.0 Need RCPT", Kind.HARD),
    ],
)
def test_unknown_once_the_mail_is_read_may_be_a_filter(status, words, kind):
    raw = report(status, "550 Unknown user")
    raw = raw.replace(b"could not be delivered.", b"failed. " + words.encode())

    assert [kind] == [r.kind for r in parse(raw)]


def test_amazon_s_notification_names_who_bounced_and_why():
    person = {
        "emailAddress": "Ana@mail.example",
        "action": "failed",
        "status": "5.1.1",
        "diagnosticCode": "smtp; 550 5.1.1 user unknown",
    }
    for lasting, kind in (("Permanent", Kind.HARD), ("Transient", Kind.SOFT)):
        said = {"bounce": {"bounceType": lasting, "bouncedRecipients": [person]}}
        raw = f"From: no-reply@sns.example\n\n{json.dumps({'Message': json.dumps(said)})}"

        assert [(kind, "ana@mail.example")] == [(r.kind, r.recipient) for r in parse(raw.encode())]


def complaint(feedback_type: str) -> bytes:
    mail = EmailMessage()
    mail["From"], mail["To"] = "fbl@isp.example", "fbl@shop.example"
    mail.set_content("This is an email abuse report.")
    text = mail.as_bytes().replace(
        b"Content-Type: text/plain",
        b'Content-Type: multipart/report; report-type=feedback-report; boundary="b"',
    )
    head = text.split(b"\n\n")[0]
    parts = (
        "Content-Type: text/plain\n\nAn abuse report.",
        f"Content-Type: message/feedback-report\n\nFeedback-Type: {feedback_type}\n"
        "User-Agent: isp/1\nVersion: 1\nOriginal-Rcpt-To: <Ana@mail.example>\n",
        f"Content-Type: message/rfc822\n\nFrom: news@shop.example\nMessage-ID: {OURS}\n\nHi",
    )
    body = "".join(f"--b\n{part}\n" for part in parts) + "--b--\n"
    return head + b"\n\n" + body.encode()


@pytest.mark.parametrize(
    ("feedback_type", "kind"),
    [("abuse", Kind.COMPLAINT), ("fraud", Kind.COMPLAINT), ("auth-failure", Kind.POLICY)],
)
def test_a_feedback_report_names_who_complained_and_of_what(feedback_type, kind):
    assert [(kind, "ana@mail.example", OURS)] == [
        (r.kind, r.recipient, r.message_id) for r in parse(complaint(feedback_type))
    ]


@pytest.mark.parametrize(
    "header",
    ["Auto-Submitted: auto-replied", "X-Autoreply: yes", "Subject: Out of office: Re: Hi"],
)
def test_an_automatic_answer_is_none_of_them(header):
    raw = f"From: Ana <ana@mail.example>\nTo: news@shop.example\n{header}\n\nUser unknown."

    assert [Kind.OUT_OF_OFFICE] == [r.kind for r in parse(raw.encode())]


def test_what_a_person_writes_reports_nothing():
    raw = b"From: Ana <ana@mail.example>\nTo: news@shop.example\nSubject: Hello\n\nuser unknown 550"

    assert [] == parse(raw)


@given(st.binary(max_size=400), st.integers(0, 900), st.integers(0, 900))
def test_no_message_makes_it_fail(noise, start, length):
    raw = report("5.1.1", "550 User unknown")

    for damaged in (noise, raw[:start] + noise + raw[start + length :]):
        assert len(parse(damaged)) <= 100


@given(st.text(max_size=200))
def test_every_refusal_has_a_meaning(text):
    assert judge(Refusal.of(text)) in (Kind.HARD, Kind.SOFT, Kind.POLICY)


POLICY_REASONS = {
    "authfailure", "badreputation", "blocked", "contenterror", "exceedlimit", "mesgtoobig",
    "norelaying", "notcompliantrfc", "policyviolation", "rejected", "requireptr", "securityerror",
    "spamdetected", "speeding", "toomanyconn", "vacation", "virusdetected",
}  # fmt: skip


RECIPIENTS = json.loads((ROOT / "tests/data/bounce_recipients.json").read_text())["recipients"]


def right(entry: dict, kind: Kind) -> bool:
    """Whether a kind is what the corpus says. "filtered" (23 of 331) may be dead or alive: most of
    them say "User unknown", and a reader of the words can say no more.
    """
    if entry["reason"] == "feedback":
        accused = entry["feedbacktype"] == "auth-failure"
        return kind is (Kind.POLICY if accused else Kind.COMPLAINT)
    if entry["reason"] == "vacation":
        return kind is Kind.OUT_OF_OFFICE
    if entry["reason"] == "filtered":
        return kind in (Kind.HARD, Kind.SOFT, Kind.POLICY)
    return kind is Kind.HARD if entry["hardbounce"] else kind in (Kind.SOFT, Kind.POLICY)


def test_the_corpus_of_sisimai_is_understood(corpora):
    """98 % right in class and recipient, and nothing of policy or absence condemns an address."""
    folder = corpora / "bounces"
    lines = (folder / "sisimai_expected.jsonl").read_text().splitlines()
    cases = [json.loads(line) for line in lines]
    seen: Counter[str] = Counter()
    condemned, wrong = [], []
    for case in cases:
        reports = parse((folder / "sisimai" / case["file"]).read_bytes())
        for entry, names in zip(case["expected"], RECIPIENTS[case["file"]], strict=True):
            of_them = next((r for r in reports if r.recipient in names), None)
            both = of_them is not None and right(entry, of_them.kind)
            seen.update(total=1, recipient=of_them is not None, both=both)
            wrong += [] if both else [case["file"]]
        reasons = {entry["reason"] for entry in case["expected"]}
        if reasons <= POLICY_REASONS and any(r.kind is Kind.HARD for r in reports):
            condemned.append(case["file"])

    assert [] == condemned
    assert seen["recipient"] / seen["total"] >= 0.98
    assert seen["both"] / seen["total"] >= 0.98, wrong


def test_what_is_no_bounce_is_taken_for_none(corpora):
    for path in (corpora / "bounces" / "not_bounces").iterdir():
        assert [] == parse(path.read_bytes())
