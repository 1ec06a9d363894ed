"""What an address tells by its words alone: shared mailboxes, throw-away domains, typing mistakes.

Flags, not verdicts: a shop may well write to info@, and only the reader knows what they meant.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from disposable_email_domains import blocklist

# Read by a group or by nobody; many complain, none has opted in.
ROLES: Final = frozenset((
    "abuse", "accounting", "accounts", "admin", "administrator", "all", "billing", "bounce",
    "bounces", "careers", "contact", "customerservice", "dmarc", "dns", "enquiries", "everyone",
    "feedback", "finance", "ftp", "hello", "help", "helpdesk", "hostmaster", "hr", "info",
    "inquiries", "investorrelations", "it", "jobs", "legal", "list", "mail", "mailer-daemon",
    "marketing", "media", "news", "newsletter", "no-reply", "noc", "noreply", "nospam", "office",
    "orders", "payroll", "postmaster", "press", "privacy", "recruiting", "remove", "root",
    "sales", "security", "service", "shop", "spam", "staff", "subscribe", "support", "sysadmin",
    "tech", "unsubscribe", "usenet", "uucp", "web", "webmaster", "www",
))  # fmt: skip
# Where most people have their mail, the more frequent first.
PROVIDERS: Final = (
    "gmail.com", "yahoo.com", "hotmail.com", "outlook.com", "icloud.com", "aol.com", "live.com",
    "msn.com", "googlemail.com", "me.com", "mac.com", "comcast.net", "gmx.de", "web.de",
    "t-online.de", "gmx.net", "orange.fr", "free.fr", "laposte.net", "wanadoo.fr", "libero.it",
    "yahoo.co.uk", "hotmail.co.uk", "btinternet.com", "hotmail.fr", "yahoo.fr", "hotmail.it",
    "mail.ru", "yandex.ru", "qq.com", "163.com", "naver.com", "proton.me", "protonmail.com",
    "verizon.net", "att.net", "sbcglobal.net", "cox.net", "charter.net", "bigpond.com",
)  # fmt: skip
# Real, though one or two letters from another.
NEIGHBOURS: Final = frozenset((
    "ymail.com", "mail.com", "email.com", "hey.com", "gmx.com", "rocketmail.com", "fastmail.com",
    "inbox.com", "zmail.com", "aim.com", "sky.com", "rogers.com", "telus.net", "shaw.ca",
))  # fmt: skip
GENERIC: Final = frozenset(("com", "net", "org", "info", "biz", "edu", "gov", "mil", "email"))
# Endings that are no top-level domains, and what was meant.
ENDINGS: Final = {
    "con": "com", "cmo": "com", "ocm": "com", "comm": "com", "vom": "com", "xom": "com",
    "cpm": "com", "coom": "com", "nte": "net", "ner": "net", "ogr": "org", "orgg": "org",
}  # fmt: skip
FARTHEST: Final = 2  # edits; a third makes another word


def is_role(address: str) -> bool:
    """Whether the address is of a function and not of a person; a tag after + does not count."""
    local = address.rpartition("@")[0].casefold().partition("+")[0]
    return local in ROLES or local.replace(".", "").replace("_", "").replace("-", "") in ROLES


def is_disposable(domain: str) -> bool:
    """Whether the domain, or one that it lies under, gives away addresses for ten minutes."""
    labels = domain.casefold().split(".")
    return any(".".join(labels[n:]) in blocklist for n in range(len(labels) - 1))


def suggestion(address: str) -> str | None:
    """The address that was probably meant, None where nothing looks like a mistake."""
    local, at, domain = address.strip().rpartition("@")
    domain = domain.casefold().strip("#,;:<>() ")
    if not at or not local or not domain:
        return None
    meant = _meant(domain)
    return None if meant in (None, address.rpartition("@")[2].casefold()) else f"{local}@{meant}"


@lru_cache(maxsize=65_536)  # a list has few domains, and each is compared with all providers
def _meant(domain: str) -> str | None:
    if near := _near(domain, PROVIDERS):
        return near
    name, _, ending = domain.partition(".")
    if not name or ending not in ENDINGS:
        return None
    mended = f"{name}.{ENDINGS[ending]}"
    return _near(mended, PROVIDERS) or mended


def _near(domain: str, providers: Sequence[str]) -> str | None:
    """The provider within reach of a mistake; None for a provider, and for what is none."""
    if domain in providers or domain in NEIGHBOURS:
        return domain
    name, _, ending = domain.partition(".")
    real = all(len(part) == 2 or part in GENERIC for part in ending.split("."))
    if real and any(name == provider.partition(".")[0] for provider in providers):
        return domain  # hotmail.es beside hotmail.fr: the provider's house in another country
    near = [(_edits(domain, other), n) for n, other in enumerate(providers)]
    edits, n = min(near, default=(FARTHEST + 1, 0))
    name = providers[n].partition(".")[0] if near else ""
    # me.com is two edits from half of all short domains: a mistake touches a part, not the whole.
    allowed = FARTHEST if len(name) >= 5 else 1 if len(name) >= 4 else 0
    return providers[n] if near and edits <= allowed else None


def _edits(a: str, b: str) -> int:
    """Damerau-Levenshtein distance (optimal string alignment), cut off beyond FARTHEST."""
    if abs(len(a) - len(b)) > FARTHEST:
        return FARTHEST + 1
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row, older = row, [i], before
        for j, y in enumerate(b, 1):
            best = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                best = min(best, older[j - 2] + 1)
            row.append(best)
        if min(row) > FARTHEST:
            return FARTHEST + 1
        before = last
    return row[-1]
