"""What a refusal means: by its enhanced status (RFC 3463), its reply code and its words.

Words come first, since servers give 5.1.1 for spam and 5.0.0 for a dead mailbox. Among the words
those of policy come first: to suppress somebody who did nothing wrong is the worse mistake.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from reco.outcomes.mail_text import CODE, STATUS, first


class Kind(StrEnum):
    """What came back, and what follows from it.

    hard           the address is dead: suppressed at once
    soft           full, suspended, or not reached in time: suppressed after several
    policy         our own reputation, authentication, content or size: an alarm, not the address
    complaint      somebody pressed "spam": suppressed at once
    out_of_office  an automatic answer: nothing
    """

    HARD = "hard"
    SOFT = "soft"
    POLICY = "policy"
    COMPLAINT = "complaint"
    OUT_OF_OFFICE = "out_of_office"


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a server said: "5.1.1" or "", 550 or 0, its words, and whether it had read the mail."""

    status: str = ""
    code: int = 0
    text: str = ""
    after_data: bool = False

    @classmethod
    def of(cls, reply: str) -> "Refusal":
        """What the reply of an SMTP server says."""
        status, code = first(STATUS, reply), CODE.search(reply)
        return cls(status, int(code[1]) if code else 0, reply)


@dataclass(frozen=True, slots=True)
class Report:
    """What is said of one recipient of one of our mails.

    recipient   address, "" where the report hides it; the delivery is known by `message_id` then
    message_id  of our mail, from the return path or the returned headers; "" when neither is there
    """

    kind: Kind
    recipient: str
    message_id: str = ""
    status: str = ""
    why: str = ""


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


# Microsoft's way to say that nobody has this address (5.4.1, directory-based edge blocking).
_EDGE: Final = _words(r"recipient address rejected: access denied")
# Of the sender, whoever the recipient is: stronger than any word on the recipient.
_OURS: Final = _words(
    r"after MAIL FROM|sender (address|domain|verif|reject|denied)|(un|not )?rout\w+ sender",
    r"my name was rejected|invalid ip|for sending mail|\bhelo\b|\behlo\b",
    r"\bspf\b|\bdkim\b|\bdmarc\b|black ?list|dnsbl|spamhaus|reverse dns|no ptr",
)
_POLICY: Final = _words(
    r"spam|junk|virus|malware|phish|unsolicited|bulk mail",
    r"black ?list|block(ed)? ?list|dnsbl|\brbl\b|spamhaus|barracuda|reputation|abuse",
    r"\bspf\b|\bdkim\b|\bdmarc\b|authenticat|unauthori[sz]ed|not authori[sz]ed|authori[sz]ation",
    r"policy|policies|polic(y|ies) reasons|prohibit|administrative(ly)? (prohibition|denied)",
    r"relay(ing)? (access )?(is )?(denied|not (permitted|allowed))|not permitted to relay",
    r"(reverse|rdns|ptr)\b.{0,40}(dns|record|lookup)|no ptr|reverse (dns|mapping|lookup)|\bptr\b",
    r"too (large|big)|size (exceeds|limit)|exceed(s|ed)?.{0,40}\bsize|maximum (message )?size",
    r"rate limit|too many|throttl|too fast|connection(s)? (rate|limit)",
    r"access denied|blocked|block(ing)? |banned|client host rejected|service refused",
    r"connection refused by",
    r"content (rejected|filter)|rejected by content|attachment",
    r"message (was )?(rejected|refused|content)",
    r"sender (address )?(rejected|denied|refused|verif)|helo|from address",
    r"(recipient|e-?mail) preferences|not (a )?member",
    r"RFC ?[0-9]{3,4}.{0,20}complian|not RFC|syntax error|starttls|\btls\b",
)
_FULL: Final = _words(
    r"(mail ?box|inbox|user|account|recipient|storage|disk|file ?system).{0,40}\bfull\b|\bquota\b",
    r"over ?quota|storage (space )?(limit|allocat|exceed)|out of space",
    r"not enough ((storage|disk) )?space",
    r"insufficient (system )?(storage|disk)|no space left|exceeded.{0,30}(storage|limit|space)",
    r"メールボックス.{0,10}一杯|容量",
)
_ASLEEP: Final = _words(
    r"(account|mail ?box|user|recipient|address|email).{0,60}"
    r"(disabled|inactive|suspend|deactivat|not active|locked|discontinued|on hold|frozen)",
    r"(disabled|inactive|suspended|deactivated|locked) (account|mail ?box|user|recipient|address)",
    r"temporar(y|ily)|try (again|it) later|gr[ae]y ?list|over the limit|is on hold",
)
_MOVED: Final = _words(
    r"has moved|no longer (here|works|with|employed|used)|address (has )?changed"
)
_DEAD: Final = _words(
    r"(user|recipient|address|mail ?box|account|alias|addressee|rcpt|adresse|name)\b.{0,60}"
    r"(unknown|not (be )?(found|known|exist|listed|valid|a valid|on this|here|recognized)|"
    r"does(n't| not) exist|isn't|invalid|undeliverable|nonexist|non-exist)",
    r"(unknown|invalid|no such|nonexist\w*|non-exist\w*|not? a? ?(valid|known)|undefined|bad) "
    r"(local )?(e-?mail )?"
    r"(user|recipient|address|mail ?box|account|alias|person|destination|rcpt|local)",
    r"no (mail ?box|account|user|recipient)( (by|with|here|of) | named| for)",
    r"does(n't| not) have (an?|any) (\S+ )?(account|mail ?box)|user .{0,40}does(n't| not) exist",
    r"is not a (valid|known|registered)|not our customer|no longer valid|unroute?able address",
    r"(host|domain|dns)( name)?( or \w+)?( was)?( is)? (unknown|not (be )?(found|known|exist))",
    r"(unknown|no such|bad|illegal|invalid) (host|domain|dest\w* (system|domain))|\bnxdomain\b",
    r"(host|domain|name).{0,40}(not found|does(n't| not) exist)|name or service not known",
    r"does(n't| not) accept (any )?mail|null ?mx|unroutable|unrouteable|no smtp service",
    r"no mx found|invalid (\w+ ){0,3}userid|見つかりません|存在しません",
    r"(user|recipient)? ?address rejected\.?$|check if (the )?address is correct",
)
NEVER: Final = (521, 556)  # RFC 7504: a host, a domain that takes no mail at all
_DEAD_STATUS: Final = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.4.4"})
_FULL_STATUS: Final = frozenset({"5.2.2", "4.2.2"})


def judge(refusal: Refusal) -> Kind:
    """HARD, SOFT or POLICY.

    A server that took the recipient and calls them unknown once it has read the mail may well
    filter it, as Japanese carriers do: SOFT without 5.1.1, so that only the third one condemns.
    """
    kind = _judged(refusal)
    doubtful = refusal.after_data and refusal.status not in _DEAD_STATUS
    return Kind.SOFT if kind is Kind.HARD and doubtful else kind


def is_full(text: str) -> bool:
    """Whether words speak of a mailbox or disk that is full."""
    return bool(_FULL.search(" ".join(text.split())))


def _judged(refusal: Refusal) -> Kind:
    text = " ".join(refusal.text.split())
    status = refusal.status
    if _temporary(refusal):
        return Kind.POLICY if status.startswith("4.7.") else Kind.SOFT
    if _EDGE.search(text) or refusal.code in NEVER:
        return Kind.HARD
    if _FULL.search(text) or status in _FULL_STATUS:
        return Kind.SOFT
    if status.startswith("5.7.") or status in ("5.3.4", "5.2.3"):
        return Kind.HARD if _DEAD.search(text) and not _POLICY.search(text) else Kind.POLICY
    if _OURS.search(text):
        return Kind.POLICY
    if refusal.code == 550 and "mailbox unavailable" in text.lower():
        return Kind.HARD  # RFC 5321 4.2.3: not found, no access, or policy; the latter is out
    if _POLICY.search(text) and not _DEAD.search(text):
        return Kind.POLICY
    if _ASLEEP.search(text):
        return Kind.SOFT
    if _DEAD.search(text) or _MOVED.search(text) or status in _DEAD_STATUS:
        return Kind.HARD
    return Kind.SOFT


def _temporary(refusal: Refusal) -> bool:
    if refusal.status:
        return refusal.status.startswith("4.")
    return 400 <= refusal.code < 500
