"""What may be shown: one signature, `(Slates, RuleContext) -> Slates`, and the order of the rules.

Takes the candidates of a chunk, best first, and gives those that are left, still best first.
A rule takes candidates away or moves them; none brings one in, that is the ladder's task.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from reco.campaigns.showing import Rules
from reco.catalogue import Catalogue
from reco.features.history import Histories
from reco.models.slates import Slates
from reco.rules.diversity import relevance_against_likeness
from reco.tables import item_keys, type_code

Bools = npt.NDArray[np.bool_]

# (owner, item) as one sortable word: 10 bits of owner (chunks hold at most 1,024), 54 of item key.
OWNER_SHIFT: Final = np.uint64(54)
ITEM_SHIFT: Final = np.uint64(10)


@dataclass(frozen=True, slots=True)
class Bought:
    """What each subscriber of a chunk bought lately, as sorted words of (owner, item)."""

    words: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, histories: Histories, since_day: int) -> "Bought":
        """Purchases since the UTC day `since_day`; a history is sorted by item within a type."""
        records = histories.records
        keep = (records["type"] == type_code("purchase")) & (records["day"] >= since_day)
        return cls(_words(histories.owner[keep], records["item"][keep]))

    def has(self, items: npt.NDArray[np.uint64]) -> Bools:
        """Whether subscriber i bought items[i, j]."""
        asked = _words(np.arange(len(items))[:, None], items)
        if not len(self.words):
            return np.zeros(items.shape, np.bool_)
        at = np.minimum(np.searchsorted(self.words, asked), len(self.words) - 1)
        return np.asarray(self.words[at] == asked)


@dataclass(frozen=True, slots=True)
class RuleContext:
    """What the rules know about a campaign and a chunk.

    blocked           bool [m] over catalogue rows: items, categories and brands never to be shown
    bought            None leaves the already-bought filter off
    max_per_category  None leaves it open
    diversity         0 keeps the order, 1 looks at likeness alone (MMR)
    refused           of some places of the chunk: catalogue rows [m] that the subscriber refuses
    stocked           bool [m] what can be sold now; None asks the catalogue
    """

    catalogue: Catalogue
    blocked: Bools
    bought: Bought | None = None
    max_per_category: int | None = None
    diversity: float = 0.0
    refused: Mapping[int, Bools] = field(default_factory=dict)
    stocked: Bools | None = None

    @property
    def in_stock(self) -> Bools:
        """Over catalogue rows [m]: what can be sold."""
        return self.catalogue.in_stock if self.stocked is None else self.stocked

    @property
    def allowed(self) -> Bools:
        """The hard part, over catalogue rows [m]: not blocked, and in stock."""
        return ~self.blocked & self.in_stock


Rule = Callable[[Slates, RuleContext], Slates]


def blocked_rows(
    catalogue: Catalogue,
    items: Sequence[str],
    categories: Sequence[str],
    brands: Sequence[str],
    attributes: Sequence[tuple[str, Sequence[str]]] = (),
) -> Bools:
    """Catalogue rows [m] that a blocklist names; names that no item has block nothing.

    `attributes` are columns of the shop's own, each with the values that block an item.
    """
    mask = np.isin(catalogue.keys, item_keys(items))
    for codes, names, wanted in (
        (catalogue.category, catalogue.category_names, categories),
        (catalogue.brand, catalogue.brand_names, brands),
    ):
        mask |= np.isin(codes, [code for code, name in enumerate(names) if name in set(wanted)])
    for name, values in attributes:
        mask |= catalogue.attribute(name).is_in(list(values)).fill_null(False).to_numpy()
    return mask


def blocked_by(catalogue: Catalogue, rules: Rules) -> Bools:
    """Catalogue rows [m] that a campaign blocks."""
    named = (rules.blocked_items, rules.blocked_categories, rules.blocked_brands)
    return blocked_rows(catalogue, *named, rules.blocked_attributes)


def among(catalogue: Catalogue, mask: Bools, items: npt.NDArray[np.uint64]) -> Bools:
    """Whether each item is a row of the catalogue for which `mask` [m] holds; in any shape."""
    rows = catalogue.index.rows(items)
    if not len(mask):
        return np.zeros(items.shape, np.bool_)
    return np.asarray((rows >= 0) & mask[rows], np.bool_)


def distinct(slates: Slates, _: RuleContext) -> Slates:
    """No item twice: the better place wins."""
    same = slates.items[:, :, None] == slates.items[:, None, :]
    return slates.keep((slates.items != 0) & ~_earlier(same).any(axis=2))


def not_blocked(slates: Slates, context: RuleContext) -> Slates:
    """Neither item, category nor brand is on the blocklist, and the catalogue knows the item."""
    return slates.keep(among(context.catalogue, ~context.blocked, slates.items))


def in_stock(slates: Slates, context: RuleContext) -> Slates:
    """The item can be sold."""
    return slates.keep(among(context.catalogue, context.in_stock, slates.items))


def not_refused(slates: Slates, context: RuleContext) -> Slates:
    """The subscriber themselves does not refuse item, category or brand."""
    if not context.refused:
        return slates
    mask = slates.items != 0
    for i, refused in context.refused.items():
        mask[i] &= among(context.catalogue, ~refused, slates.items[i])
    return slates.keep(mask)


def not_bought(slates: Slates, context: RuleContext) -> Slates:
    """The subscriber has not just bought it, in shops where nobody buys a thing twice."""
    if context.bought is None:
        return slates
    return slates.keep((slates.items != 0) & ~context.bought.has(slates.items))


def per_category(slates: Slates, context: RuleContext) -> Slates:
    """At most so many of one category; items without a category are not counted."""
    limit = context.max_per_category
    if limit is None:
        return slates
    codes = _categories(slates, context)
    before = _earlier((codes[:, :, None] == codes[:, None, :]) & (slates.items != 0)[:, None, :])
    return slates.keep((slates.items != 0) & ((codes < 0) | (before.sum(axis=2) < limit)))


def diverse(slates: Slates, context: RuleContext) -> Slates:
    """Like items move apart: maximal marginal relevance over categories."""
    if context.diversity <= 0:
        return slates
    order = relevance_against_likeness(slates, _categories(slates, context), context.diversity)
    return slates.take(order)


RULES: Final[tuple[Rule, ...]] = (
    distinct,
    not_blocked,
    in_stock,
    not_refused,
    not_bought,
    per_category,
    diverse,
)


def apply(slates: Slates, context: RuleContext) -> Slates:
    """What all rules leave, in their order."""
    for rule in RULES:
        slates = rule(slates, context)
    return slates


def trace(slates: Slates, context: RuleContext) -> Iterator[tuple[str, Slates]]:
    """What each rule leaves, with the rule's name: for the decision record."""
    for rule in RULES:
        slates = rule(slates, context)
        yield rule.__name__, slates


def cut(slates: Slates, k: int) -> Slates:
    """The first k places; a shorter slate gets empty places up to k."""
    if not slates.items.shape[1]:
        return Slates.empty(len(slates), k)
    places = np.arange(k)
    order = np.where(places < slates.items.shape[1], places, -1)
    return slates.take(np.broadcast_to(order, (len(slates), k)))


def _words(owner: npt.NDArray[np.int64], items: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return (owner.astype(np.uint64) << OWNER_SHIFT) | (items >> ITEM_SHIFT)


def _categories(slates: Slates, context: RuleContext) -> npt.NDArray[np.int32]:
    rows = context.catalogue.index.rows(slates.items)
    if not len(context.catalogue):
        return rows
    return np.where(rows >= 0, context.catalogue.category[rows], np.int32(-1))


def _earlier(pairs: Bools) -> Bools:
    """Of pairs [n, w, w], those whose second place stands before the first."""
    width = pairs.shape[1]
    return pairs & np.tri(width, k=-1, dtype=np.bool_)
