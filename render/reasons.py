"""Why an item is in the mail, as a sentence for its reader."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from reco.models.slates import Reason

_SENTENCES: Final[Mapping[Reason, str]] = {
    Reason.NONE: "",
    Reason.REPEAT: "You have bought this before",
    Reason.BOUGHT_TOGETHER: "Goes well with what you bought",
    Reason.CATEGORY: "From an aisle you visit often",
    Reason.POPULAR: "Popular in the shop lately",
    Reason.SIMILAR_PEOPLE: "Liked by customers like you",
    Reason.EXPLORE: "Something new to try",
    Reason.EDITORIAL: "Chosen by our team",
    Reason.RANDOM: "On the shelves now",
    Reason.ASKED: "Because you asked for this",
    Reason.PROMOTED: "Promoted by the shop",
    Reason.LOOKED_AT: "You have looked at this",
}
# Upper ends, in days, of what people call a gap.
_GAPS: Final = (
    (3, "every other day"),
    (10, "about every week"),
    (18, "about every two weeks"),
    (25, "about every three weeks"),
    (45, "about once a month"),
    (75, "about every two months"),
)


@lru_cache(maxsize=16_384)
def reason_sentence(
    reason: int, category: str = "", gap_days: float | None = None, bought: str = ""
) -> str:
    """The sentence of a Reason, without a full stop; "" for NONE.

    `category` is named where it is the reason; `gap_days`, the usual time between two purchases of
    the item, makes a repeat "You buy this about every two weeks"; `bought` is the title of what the
    item goes with.
    """
    why = Reason(reason)
    if why is Reason.BOUGHT_TOGETHER and bought:
        return f"Because you bought {bought}"
    if why is Reason.REPEAT and gap_days is not None and gap_days > 0:
        gap = next((words for days, words in _GAPS if gap_days <= days), "")
        return f"You buy this {gap}" if gap else "You buy this now and then"
    if why is Reason.ASKED and category:
        return f"Because you asked for {_spoken(category)}"
    if why is Reason.CATEGORY and category:
        return f"Because you often buy {_spoken(category)}"
    return _SENTENCES[why]


def _spoken(category: str) -> str:
    return category.lower() if category.isupper() else category
