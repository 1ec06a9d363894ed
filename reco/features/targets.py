"""Which event says "wanted it": the strongest type that a shop has."""

from collections.abc import Iterable
from typing import Final

from reco.tables import KNOWN_TYPES

# Strongest first. A type that we do not know comes after these, but before a mail's own events.
STRENGTH: Final = (
    "purchase", "redemption", "checkin", "cart", "rating", "like", "preference", "click", "view",
)  # fmt: skip


def strongest(types: Iterable[str]) -> str:
    """The strongest of the event types of a shop, "purchase" where none says that much."""
    present = set(types)
    for name in STRENGTH:
        if name in present:
            return name
    unknown = sorted(present.difference(KNOWN_TYPES))
    return unknown[0] if unknown else "purchase"
