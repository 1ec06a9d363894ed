"""SIMULATED shoppers with known tastes: what is true of them, and what they do with their mails.

No number that comes from here says anything of real people. Everything that they do goes through
the public doors of a running application: links in the mails that they got, and POST /v1/events.
"""

import email
import email.policy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from render.links import LinkKind, LinkSigner

Floats = npt.NDArray[np.float64]

ITEMS: Final = 120
CATEGORIES: Final = 12
NEW: Final = 36  # the last items came this week: no model of before knows them
HISTORY_DAYS: Final = 150
BROWSER: Final = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/13{}.0.0.0"
APPLE: Final = "Mozilla/5.0"
LINK: Final = re.compile(r'(?:href|src)="([^"]*/([co])/([\w-]+))"')


@dataclass(frozen=True)
class Shoppers:
    """n shoppers; `chance` [n, ITEMS] is the probability that one clicks an item of the mail."""

    n: int
    seed: int = 0

    @cached_property
    def ids(self) -> list[str]:
        return [f"s{i:05d}" for i in range(self.n)]

    @cached_property
    def items(self) -> list[str]:
        return [f"thing-{i:03d}" for i in range(ITEMS)]

    @cached_property
    def liking(self) -> Floats:
        """How much each shopper likes each item: taste of its category x how good it is."""
        rng = np.random.default_rng(self.seed)
        taste = rng.dirichlet(np.full(CATEGORIES, 0.25), self.n)
        good = rng.lognormal(0, 0.5, ITEMS)
        good[-NEW:] *= 2.0
        liking: Floats = taste[:, np.arange(ITEMS) % CATEGORIES] * good
        return liking

    @cached_property
    def chance(self) -> Floats:
        """Of a click on an item that is shown; half of those who click buy."""
        chance: Floats = np.minimum(0.15 * self.liking, 0.5)
        return chance

    def value(self, slates: Sequence[Sequence[str]]) -> Floats:
        """Expected clicks [n] on the items shown to each shopper: the truth about a policy."""
        place = {item: i for i, item in enumerate(self.items)}
        return np.array(
            [sum(self.chance[i, place[item]] for item in s) for i, s in enumerate(slates)]
        )

    def best(self, k: int) -> Floats:
        """The most that any policy could reach."""
        best: Floats = np.sort(self.chance, axis=1)[:, -k:].sum(axis=1)
        return best

    def purchases(
        self, a_shopper: float, since: datetime, until: datetime, items: int, seed: int
    ) -> list[dict[str, Any]]:
        """What they buy by themselves among the first `items`: one in five by chance."""
        rng = np.random.default_rng((self.seed, seed))
        rows = []
        for i, count in enumerate(rng.poisson(a_shopper, self.n)):
            like = self.liking[i, :items]
            draw = rng.choice(items, count, p=0.8 * like / like.sum() + 0.2 / items)
            for item, share in zip(draw, rng.random(count), strict=True):
                rows.append(
                    {"event_id": f"own-{seed}-{i}-{len(rows)}", "user_id": self.ids[i],
                     "type": "purchase", "timestamp": (since + share * (until - since)).isoformat(),
                     "item_id": self.items[item], "value": round(float(5 + 20 * rng.random()), 2)}
                )  # fmt: skip
        return rows


@dataclass(frozen=True)
class Habits:
    """What happens to mails, as shares of them."""

    bots: float  # a scanner follows every link of the mail, the hidden one too
    apple: float  # Apple's proxy fetches the pictures
    bounce: float  # comes back later as a report of failed delivery
    leave: float  # the reader unsubscribes; a scanner opens each such link too


class Mailbox:
    """The mails of an outbox by the user id in front of the @."""

    def __init__(self, outbox: Path) -> None:
        self._files = {user_of(path): path for path in (outbox / "new").iterdir()}

    def __len__(self) -> int:
        return len(self._files)

    def read(self, user_id: str, signer: LinkSigner) -> "Mail":
        return Mail.of(self._files[user_id].read_bytes(), signer)


def user_of(path: Path) -> str:
    """Of the address in To."""
    with path.open("rb") as file:
        found = re.search(rb"^To:[^\n]*?([\w-]+)@", file.read(4_000), re.MULTILINE | re.IGNORECASE)
    assert found, path
    return found[1].decode()


@dataclass(frozen=True)
class Mail:
    """What a reader's program sees in a mail; `clicks` by number of the link."""

    clicks: dict[int, str]
    opens: list[str]
    leave: str
    message_id: str

    @classmethod
    def of(cls, raw: bytes, signer: LinkSigner) -> "Mail":
        message = email.message_from_bytes(raw, policy=email.policy.default)
        html = next(p for p in message.walk() if p.get_content_type() == "text/html").get_content()
        links = LINK.findall(html)
        leave = re.search(r"<(https?:[^>]+)>", str(message["List-Unsubscribe"]))
        assert leave
        return cls(
            {signer.verify(t, LinkKind.CLICK).number: url for url, k, t in links if k == "c"},
            [url for url, kind, _ in links if kind == "o"],
            leave[1],
            str(message["Message-ID"]),
        )


def ask(url: str, network: int, agent: str, method: str = "GET", body: bytes = b"") -> str:
    """One request from a network of 127/8, all of which is this machine; where it leads."""
    parts = urlsplit(url)
    home = f"127.{1 + network // 256}.{network % 256}.1"  # the filter sees no more than this /24
    connection = HTTPConnection(parts.netloc, timeout=60, source_address=(home, 0))
    try:
        headers = {"User-Agent": agent} | ({"Content-Length": "0"} if method == "POST" else {})
        connection.request(method, parts.path, body or None, headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status < 400, (url, answer.status)
        return answer.headers.get("Location", "")
    finally:
        connection.close()


@dataclass(frozen=True)
class Deed:
    """Everything that is done with one mail, in this order; `bought` are items."""

    user_id: str
    bot: bool
    apple: bool
    clicks: tuple[int, ...]  # places
    bought: tuple[str, ...]
    bounced: bool
    leaves: bool


def deeds(
    shoppers: Shoppers, habits: Habits, shown: Mapping[str, Sequence[str]], followed: set[str]
) -> list[Deed]:
    """Drawn from the truth, for whoever does anything at all."""
    rng, out = np.random.default_rng((shoppers.seed, 99)), []
    place = {item: i for i, item in enumerate(shoppers.items)}
    for i, user in enumerate(shoppers.ids):
        bot, apple, bounced, leaves = rng.random(4)
        if user not in shown:
            continue
        chance = shoppers.chance[i, [place[item] for item in shown[user]]]
        hit = rng.random(len(chance)) < chance
        took = hit & (rng.random(len(chance)) < 0.5)
        known = user in followed
        deed = Deed(
            user,
            known and bot < habits.bots,
            known and apple < habits.apple,
            tuple(np.flatnonzero(hit).tolist()) if known else (),
            tuple(item for item, t in zip(shown[user], took, strict=True) if t),
            bounced < habits.bounce,
            leaves < habits.leave,
        )
        if deed != Deed(user, False, False, (), (), False, False):
            out.append(deed)
    return out


def act(deed: Deed, number: int, mail: Mail) -> None:
    """One reader, and the programs around, with one mail; `number` is their network."""
    if deed.bot:
        ask(mail.leave, 60_000 + number % 500, BROWSER.format(1))  # a scanner looks there too
        for url in mail.clicks.values():
            ask(url, 60_000 + number % 500, BROWSER.format(1))
    if deed.apple:
        ask(mail.opens[0], 62_000, APPLE)
    agent = BROWSER.format(number % 10)
    if deed.clicks:
        ask(mail.opens[0], number, agent)
    for at in deed.clicks:
        ask(mail.clicks[at], number, agent)
    if deed.leaves:
        ask(mail.leave, number, agent, "POST")
