"""Twelve items that the tests of the rules and of the graph share, and slates by name."""

import numpy as np
import polars as pl

from reco.catalogue import Catalogue
from reco.models.slates import Slates
from reco.tables import ITEMS, item_key

ITEM_COUNT = 12
ITEMS_SCHEMA = pl.from_arrow(ITEMS.empty_table()).schema


def _shop() -> Catalogue:
    """Items i0..i11 in four categories (c0..c2 and none) and two brands; i11 is out of stock."""
    rows = [
        {
            "item_id": f"i{i}",
            "category": None if i % 4 == 3 else f"c{i % 4}",
            "brand": f"b{i % 2}",
            "stock": 0.0 if i == 11 else None,
        }
        for i in range(ITEM_COUNT)
    ]
    return Catalogue.of(
        pl.DataFrame([dict.fromkeys(ITEMS.names) | row for row in rows], schema=ITEMS_SCHEMA)
    )


SHOP = _shop()


def slates_of(*rows: list[str]) -> Slates:
    """Slates with these items, '' for an empty place."""
    items = np.array([[item_key(i) if i else 0 for i in row] for row in rows], np.uint64)
    n, k = items.shape
    scores = np.linspace(0.9, 0.1, k, dtype=np.float32) * np.ones((n, 1), np.float32)
    ones = np.ones((n, k), np.uint8)
    return Slates(items, scores, ones, ones)


def names(slates: Slates) -> list[list[str]]:
    """Item ids shown, without the empty places."""
    rows = SHOP.index.rows(slates.items)
    return [[str(SHOP.item_ids[r]) for r in row if r >= 0] for row in rows]
