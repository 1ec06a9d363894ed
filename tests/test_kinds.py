"""Which column of a shop divides its categories, found by what it does."""

import json

import numpy as np
import polars as pl

from reco.catalogue import Catalogue
from reco.models.kinds import kinds
from tests.model_world import catalogue_of

ITEMS = 600


def shop(*columns: str) -> Catalogue:
    """Ten categories of sixty items, each of six product types."""
    row = np.arange(ITEMS)
    named = {
        "product_type": [f"type {i // 10}" for i in row],  # six a category
        "maker": [f"maker {i % 150}" for i in row],  # works in every category
        "department": [f"department {i // 120}" for i in row],  # holds two categories
        "sku": [f"sku {i}" for i in row],  # one an item
    }
    raw = [json.dumps({name: named[name][i] for name in columns}) for i in row]
    frame = catalogue_of(ITEMS).frame.with_columns(
        pl.Series("category", [f"c{i // 60}" for i in row]), pl.Series("attributes", raw)
    )
    return Catalogue.of(frame)


def test_the_column_that_divides_the_categories_is_the_kind() -> None:
    catalogue = shop("maker", "department", "sku", "product_type")

    found = kinds(catalogue)

    assert found.tolist() == kinds(shop("product_type")).tolist()
    assert len(np.unique(found)) == 60
    assert all(len(np.unique(found[i * 10 : i * 10 + 10])) == 1 for i in range(60))


def test_without_one_it_is_the_category() -> None:
    for catalogue in (shop("maker", "department", "sku"), shop()):
        assert len(np.unique(kinds(catalogue))) == 10
        assert all(
            len(np.unique(kinds(catalogue)[catalogue.category == c])) == 1 for c in range(10)
        )


def test_a_shop_without_categories_has_one_kind() -> None:
    frame = catalogue_of(5).frame.with_columns(pl.lit(None, pl.String).alias("category"))

    assert kinds(Catalogue.of(frame)).tolist() == [0] * 5
