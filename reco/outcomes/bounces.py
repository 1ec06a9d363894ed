"""Bounces, complaints and automatic answers that come back as mail.

Takes one raw message; gives what it reports, a recipient each: delivery reports (RFC 3464) and
feedback reports (RFC 5965) by the standard library, other formats by flufl.bounce.
"""

import json
import re
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from email.utils import getaddresses
from typing import Final

from reco.outcomes.bounce_words import around, other_formats
from reco.outcomes.mail_text import (
    ADDRESS,
    CODE,
    STATUS,
    first,
    header,
    is_after_data,
    is_daemon,
    plain_text,
    sender_of,
    text_of,
)
from reco.outcomes.verdicts import Kind, Refusal, Report, is_full, judge

MOST_RECIPIENTS: Final = 100

_VERP: Final = re.compile(r"\bbounces\+([a-z2-7]{16,64})@([\w.-]+)", re.IGNORECASE)
_MESSAGE_ID: Final = re.compile(rb"^message-id:\s*(<[^>\s]+>)", re.IGNORECASE | re.MULTILINE)
_FIELD: Final = re.compile(r"^([\w-]+):[ \t]*(.*(?:\n[ \t]+.*)*)", re.MULTILINE)
# Outlook's reports to senders (JMRP) are no RFC 5965.
_JMRP: Final = re.compile(r"^\s*complaint about message from ", re.IGNORECASE)
_AWAY: Final = re.compile(
    r"^\s*(re: )?(auto(matic|mated)?[ -:]?(reply|response)|out of (the )?office|vacation|"
    r"abwesenheit)",
    re.IGNORECASE,
)


def parse(raw: bytes) -> list[Report]:
    """Reports in a message; empty for one that reports nothing. Never raises for odd input."""
    message = message_from_bytes(raw)
    parts = list(message.walk())
    ours = _message_id(message, raw)
    feedback = next((p for p in parts if p.get_content_type() == "message/feedback-report"), None)
    if feedback is not None or _JMRP.search(header(message, "Subject")):
        return _complaints(feedback, parts, ours)
    blocks = [block for part in parts for block in _blocks(part) if _recipient(block)]
    if blocks:
        words = plain_text(message)
        reported = [b for b in blocks if _action(b) not in ("delivered", "relayed", "expanded")]
        alone = len(reported) == 1
        return [_report(block, words, ours, alone=alone) for block in reported[:MOST_RECIPIENTS]]
    if re.fullmatch(r"\s*unsubscribe\s*", header(message, "Subject"), re.IGNORECASE):
        return [Report(Kind.COMPLAINT, sender_of(message), ours, why="unsubscribe")]
    if _is_automatic(message):
        return [Report(Kind.OUT_OF_OFFICE, sender_of(message), ours)]
    return _notification(message, ours) or other_formats(message, ours)


def _message_id(message: Message, raw: bytes) -> str:
    """Message-ID of our mail: named by the return path that we gave it, or returned with it."""
    for name in ("To", "Delivered-To", "X-Original-To", "Envelope-To"):
        if found := _VERP.search(str(message.get(name, ""))):
            return f"<{found[1].lower()}@{found[2].lower()}>"
    mine = str(message.get("Message-ID", "")).strip().encode("utf-8", "replace")
    returned = [found for found in _MESSAGE_ID.findall(raw) if found != mine]
    return returned[-1].decode("ascii", "replace") if returned else ""


Fields = dict[str, str]  # of one group, by lower-case name


def _blocks(part: Message) -> list[Fields]:
    """Per-recipient groups of a delivery status; some servers leave out the blank lines between
    them, or send the part as text."""
    payload, kind = part.get_payload(), part.get_content_type()
    if kind == "message/delivery-status" and isinstance(payload, list):
        groups = [list(block.items()) for block in payload if isinstance(block, Message)]
    elif kind.startswith(("text/", "message/")) and isinstance(payload, str):
        text = text_of(part)
        groups = [_FIELD.findall(text)] if "-Recipient:" in text else []
    else:
        groups = []
    return [fields for group in groups for fields in _split(group)]


def _split(group: list[tuple[str, str]]) -> Iterator[Fields]:
    """One group as it is, several in one at each name that would stand there twice."""
    fields: Fields = {}
    for name, value in group:
        key = name.lower()
        if key in fields and key in ("final-recipient", "original-recipient"):
            yield fields
            fields = {}
        fields.setdefault(key, " ".join(str(value).split()))
    yield fields


def _recipient(block: Fields) -> str:
    for name in ("original-recipient", "final-recipient", "x-actual-recipient"):
        value = block.get(name, "").partition(";")[2] or block.get(name, "")
        if found := ADDRESS.search(value):
            return found[0].strip("<>").lower()
    return ""


def _action(block: Fields) -> str:
    return block.get("action", "failed").strip().lower().split(" ")[0]


def _report(block: Fields, words: str, ours: str, *, alone: bool) -> Report:
    action, recipient = _action(block), _recipient(block)
    diagnostic = block.get("diagnostic-code", "")
    status = first(STATUS, block.get("status", ""))
    told = next((s for s in STATUS.findall(diagnostic) if s[1:3] == ".7"), "")
    told = told or first(STATUS, diagnostic)
    if told and (not status or status.endswith(".0.0") or told[0] == status[0]):
        status = told  # the other server's own word is the more exact one
    code = CODE.search(diagnostic)
    text = diagnostic.partition(";")[2] or diagnostic or words
    after_data = is_after_data(words) and (alone or is_after_data(around(words, recipient, [])))
    refusal = Refusal(status, int(code[1]) if code else 0, text, after_data)
    kind = judge(refusal)
    if kind is Kind.SOFT and action == "failed" and words and text != words:
        more = f"{text} {around(words, recipient, [])}"
        kind = judge(Refusal(status, refusal.code, more, after_data))
    if action == "delayed" or (kind is Kind.HARD and alone and is_full(words)):
        kind = Kind.SOFT
    return Report(kind, recipient, ours, status, diagnostic[:300])


def _notification(message: Message, ours: str) -> list[Report]:
    """A bounce or complaint as Amazon SES mails it: JSON, maybe within that of a notification."""
    text = "\n".join(text_of(part) for part in message.walk())
    if not any(word in text for word in ("complainedRecipients", "bouncedRecipients")):
        return []
    try:
        text = re.sub(r"!?\r?\n ", "", text)  # SNS breaks long lines
        said, _ = json.JSONDecoder().raw_decode(text[text.index("{") :])
        said = json.loads(said["Message"]) if "Message" in said else said
        if "bounce" in said:
            lasting = said["bounce"].get("bounceType") == "Permanent"
            return [
                _bounced(person, ours, lasting=lasting)
                for person in said["bounce"]["bouncedRecipients"][:MOST_RECIPIENTS]
            ]
        people = [
            person["emailAddress"].lower() for person in said["complaint"]["complainedRecipients"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    return [Report(Kind.COMPLAINT, person, ours, why="abuse") for person in people]


def _bounced(person: dict[str, str], ours: str, *, lasting: bool) -> Report:
    status, words = person.get("status", ""), person.get("diagnosticCode", "")
    code = CODE.search(words)
    kind = judge(Refusal(status, int(code[1]) if code else 0, words)) if lasting else Kind.SOFT
    return Report(kind, person["emailAddress"].lower(), ours, status, words[:300])


def _complaints(feedback: Message | None, parts: list[Message], ours: str) -> list[Report]:
    """A report on abuse or an opt-out; one on authentication accuses our set-up, not a reader."""
    payload: object = feedback.get_payload() if feedback else None
    inner = (
        [part for part in payload if isinstance(part, Message)] if isinstance(payload, list) else []
    )
    block = (inner or [feedback or Message()])[0]
    feedback_type = str(block.get("Feedback-Type", "abuse")).strip().lower()
    kind = Kind.POLICY if feedback_type == "auth-failure" else Kind.COMPLAINT
    told = [
        str(v)
        for name in ("Original-Rcpt-To", "Removal-Recipient")
        for v in block.get_all(name, [])
    ]
    if not told:
        told = [str(part["To"]) for part in parts[1:] if part.get("To")][-1:]
    found = {address.lower() for _, address in getaddresses(told) if "@" in address}
    return [Report(kind, address, ours, why=feedback_type) for address in sorted(found) or [""]]


def _is_automatic(message: Message) -> bool:
    automatic = str(message.get("Auto-Submitted", "no")).lower().partition(";")[0].strip()
    if automatic == "auto-replied" and not is_daemon(message):
        return True
    marks = ("X-Autoreply", "X-Autorespond", "X-Auto-Response-Suppress")
    if any(message.get(mark) for mark in marks[:2]) or _AWAY.search(header(message, "Subject")):
        return not is_daemon(message)
    return str(message.get("Precedence", "")).lower() == "auto_reply"
