"""Bounces of before RFC 3464, and of servers that never read it: who and why, by their words."""

import logging
import re
from dataclasses import replace
from email.message import Message
from email.utils import getaddresses
from typing import Final

from flufl.bounce import all_failures

from reco.outcomes.mail_text import (
    ADDRESS,
    CODE,
    STATUS,
    header,
    is_after_data,
    is_daemon,
    plain_text,
    text_of,
)
from reco.outcomes.verdicts import Kind, Refusal, Report, judge

MOST_RECIPIENTS: Final = 100
_SAID: Final = re.compile(r"full|quota|4\d\d[ -]|4\.\d+\.\d+", re.IGNORECASE)
_TO: Final = re.compile(r"^[> ]*To:\s*(.+)$", re.IGNORECASE | re.MULTILINE)
_RCPT: Final = re.compile(r"^ *In: +RCPT TO:\s*<([^>\s]+@[^>\s]+)>", re.MULTILINE)  # a session
_FAILURE: Final = re.compile(
    r"undeliver|not (be )?deliver|return(ed|ing) (mail|to sender)|fail(ed|ure)|"
    r"delivery (status|error|problem)|mail (system )?error|bounce|"
    r"(mail|message) (rejected|refused)|エラー|not (a )?member|loop alert|errors from ",
    re.IGNORECASE,
)


def other_formats(message: Message, ours: str) -> list[Report]:
    """Formats of before RFC 3464: who by flufl.bounce or by the words, why by the words."""
    words = plain_text(message)
    temporary, permanent = _detected(message)
    named = {address.decode("ascii", "replace").lower() for address in temporary | permanent}
    late = {address.decode("ascii", "replace").lower() for address in temporary - permanent}
    addressed = _returned_to(message)
    said = words.lower()
    recipients = sorted(address for address in named if address in said)
    if named and not recipients:  # the words know better than a header
        others = addressed - _addresses(message, "To")
        recipients = sorted(address for address in others if address in said) or sorted(named)
    if not recipients and _is_failure(message):
        recipients = _named(message, words, addressed)
    reports = []
    for recipient in recipients[:MOST_RECIPIENTS]:
        near = around(words, recipient, recipients)
        kind, status = _judged(near, words, alone=len(recipients) == 1)
        kind = Kind.SOFT if recipient in late else kind
        reports.append(Report(kind, recipient, ours, status, " ".join(near.split())[:300]))
    return reports


def _detected(message: Message) -> tuple[set[bytes], set[bytes]]:
    """Addresses that failed for now, and for good; its detectors stumble over odd messages."""
    logging.getLogger("flufl.bounce").disabled = True  # it logs a traceback for each stumble
    try:
        temporary, permanent = all_failures(message)
    except Exception:  # noqa: BLE001 - whatever its forty detectors were not written for
        return set(), set()
    return set(temporary), set(permanent)


def _judged(near: str, words: str, *, alone: bool) -> tuple[Kind, str]:
    """By the paragraph of the address; by more of the text as long as that says nothing."""
    paragraph = re.split(r"\n\s*\n", near.strip())[0]
    if not alone:
        paragraph = next((line for line in near.splitlines() if CODE.search(line)), paragraph)
    kind, status = Kind.SOFT, ""
    for text in (paragraph, near, words) if alone else (paragraph,):
        refusal = replace(Refusal.of(text), after_data=is_after_data(near))
        kind, status = judge(refusal), status or refusal.status
        if kind is not Kind.SOFT or _SAID.search(text):
            break
    return kind, status


def _is_failure(message: Message) -> bool:
    subject = header(message, "Subject")
    if is_daemon(message) or _FAILURE.search(subject):
        return True
    returned = any(part.get_content_type() == "message/rfc822" for part in message.walk())
    return returned and bool(_FAILURE.search(plain_text(message)))


def _named(message: Message, words: str, addressed: set[str]) -> list[str]:
    """Whom the words speak of: the header of Exim, lines with a reply code, or the returned To."""
    header = ADDRESS.findall(str(message.get("X-Failed-Recipients", "")))
    if told := _RCPT.findall(words):
        return [address.lower() for address in dict.fromkeys(told)]
    sender = _addresses(message, "To")
    refused = [line for line in words.splitlines() if CODE.search(line) or STATUS.search(line)]
    for text, all_of_them in ((" ".join(header), True), ("\n".join(refused), True), (words, False)):
        found = dict.fromkeys(address.lower() for address in ADDRESS.findall(text))
        others = [address for address in found if address not in sender]
        if others and all_of_them:
            return others
        if others:
            return [address for address in others if address in addressed] or others[:1]
    return sorted(addressed)


def _addresses(message: Message, name: str) -> set[str]:
    return {address.lower() for _, address in getaddresses([str(message.get(name, ""))])}


def _returned_to(message: Message) -> set[str]:
    """Recipients of our own mail, as far as it was returned."""
    lines = []
    for part in list(message.walk())[1:]:
        lines += [str(value) for value in part.get_all("To", [])]
        if part.get_content_maintype() == "text":
            lines += _TO.findall(text_of(part))
    if not message.is_multipart():
        lines = _TO.findall(text_of(message))
    return {address.lower() for _, address in getaddresses(lines) if "@" in address}


def around(words: str, recipient: str, recipients: list[str]) -> str:
    """The line of an address and what follows it, up to the next one's."""
    lower = words.lower()
    at = lower.find(recipient)
    if at < 0:
        return words[:2000]
    start = max(lower.rfind("\n", 0, at), 0)
    others = [lower.find(other, at) for other in recipients if other != recipient]
    end = min([place for place in others if place > at], default=at + 800)
    return words[start : max(end, at + len(recipient))]
