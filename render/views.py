"""What a template may say: the recipient, the picks and the names around them.

Everything here is plain text, ready to print; a template never sees an address or a score.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Final


@dataclass(frozen=True, slots=True)
class ItemView:
    """One pick. `price` is formatted, `url` is tracked already, `reason` is a sentence or ""."""

    item_id: str
    title: str
    price: str
    image_url: str
    url: str
    category: str = ""
    reason: str = ""
    live_url: str = ""  # picture of price and stock as they are when the mail is opened

    def shown(self, reason: str, url: str) -> "ItemView":
        """The same item with the reason and the tracked link of a recipient."""
        return ItemView(  # dataclasses.replace costs three times as much, and a mail has five
            self.item_id,
            self.title,
            self.price,
            self.image_url,
            url,
            self.category,
            reason,
            self.live_url,
        )


@dataclass(frozen=True, slots=True)
class RecipientView:
    """The subscriber as a template sees them: `user` (without the address)."""

    user_id: str
    email: str
    first_name: str = ""
    language: str = "en"
    segment: str = ""


@dataclass(frozen=True, slots=True)
class Interest:
    """A one-click answer in the mail itself: what shall we show you more of?"""

    label: str
    url: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """One mail before MIME."""

    subject: str
    preheader: str
    html: str
    text: str


# Names that every template may use beside `user` and `recommendations`.
REQUIRED: Final = ("postal_address", "unsubscribe_url")
OPTIONAL: Final[Mapping[str, object]] = {
    "preferences_url": "",
    "open_url": "",  # the pixel; empty without consent to tracking
    "countdown_url": "",  # picture of the time left, where the campaign's offer ends
    "interests": (),  # of Interest; for those whom we know little about
    "popular": (),  # of ItemView; recent favourites, for the content block
    "sent_at": None,  # datetime
    "campaign_id": "",
}
# Written by the renderer itself, in this order; each part may use the ones before.
MADE: Final = ("subject", "preheader")

VIEW_FIELDS: Final[Mapping[type, frozenset[str]]] = {
    ItemView: frozenset(f.name for f in fields(ItemView)),
    RecipientView: frozenset(f.name for f in fields(RecipientView)) - {"email"},
    Interest: frozenset(f.name for f in fields(Interest)),
}


def one_line(text: str) -> str:
    """A title or name as one line: control characters and line breaks become single blanks.

    A line break in a subject would start another header, and cost the mail.
    """
    if text.isprintable() and "  " not in text:
        return text.strip()
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def sample_item(number: int) -> ItemView:
    """An invented pick, for trial renders."""
    return ItemView(
        item_id=f"sample-{number}",
        title=f"Sample item {number} <&> \N{SNOWMAN}",
        price="$3.49",
        image_url="https://images.example/sample.png",
        url=f"https://shop.example/items/{number}",
        category="Produce",
        reason="You buy this about every two weeks",
    )


def sample_recipient(segment: str = "", first_name: str = "Ana") -> RecipientView:
    """An invented recipient, for trial renders."""
    return RecipientView("sample", "ana@example.com", first_name, "en", segment)


def sample_context(full: bool = True) -> dict[str, object]:
    """Values for all names of REQUIRED and OPTIONAL; not `full`: the optional ones empty."""
    context = {
        **OPTIONAL,
        "postal_address": "Sample Shop, 1 Example Street, 10115 Berlin",
        "unsubscribe_url": "https://shop.example/u/sample",
    }
    if full:
        context |= {
            "preferences_url": "https://shop.example/p/sample",
            "open_url": "https://shop.example/o/sample",
            "countdown_url": "https://shop.example/i/sample",
            "interests": (Interest("Fruit & vegetables", "https://shop.example/p/1"),),
            "popular": tuple(sample_item(n) for n in range(4, 8)),
            "sent_at": datetime(2017, 12, 4, 9, tzinfo=UTC),
            "campaign_id": "sample",
        }
    return context
