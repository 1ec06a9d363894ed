"""The items as arrays: what the scorer ranks, the rules mask and the renderer shows.

Every room addresses an item by its key (tables.item_key) and finds its row here.
"""

import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from reco.tables import ITEMS, item_keys

Ints = npt.NDArray[np.int32]


class KeyIndex:
    """Positions of 64-bit keys: a vectorised open-addressing table, about 10 ns a look-up."""

    def __init__(self, keys: npt.NDArray[np.uint64]) -> None:
        """Raises ValueError when a key stands twice or is 0."""
        size = 1 << max(4, int(np.ceil(np.log2(max(len(keys), 1) * 2.5))))
        self._mask = np.uint64(size - 1)
        self._keys = np.zeros(size, np.uint64)
        self._rows = np.full(size, -1, np.int32)
        if (keys == 0).any() or len(np.unique(keys)) != len(keys):
            raise ValueError("keys must be distinct and not 0")
        pending, slot = np.arange(len(keys)), keys & self._mask
        while len(pending):
            at = slot[pending]
            free = self._keys[at] == 0
            _, first = np.unique(at[free], return_index=True)
            won = pending[free][first]
            self._keys[slot[won]], self._rows[slot[won]] = keys[won], won
            pending = np.setdiff1d(pending, won, assume_unique=True)
            slot[pending] = (slot[pending] + np.uint64(1)) & self._mask

    def rows(self, keys: npt.NDArray[np.uint64]) -> Ints:
        """Row of each key, in any shape; -1 where the key is unknown or 0."""
        slot = keys & self._mask
        found = self._keys[slot]
        out = np.where(found == keys, self._rows[slot], np.int32(-1))
        miss = np.nonzero((found != keys) & (found != 0))
        while len(miss[0]):
            slot[miss] = (slot[miss] + np.uint64(1)) & self._mask
            found = self._keys[slot[miss]]
            hit = found == keys[miss]
            out[miss] = np.where(hit, self._rows[slot[miss]], -1)
            again = ~hit & (found != 0)
            miss = tuple(axis[again] for axis in miss)
        out[keys == 0] = -1
        return out.astype(np.int32)


@dataclass(frozen=True)
class Catalogue:
    """All items, sorted by item_id. `frame` has the columns of tables.ITEMS."""

    frame: pl.DataFrame

    @classmethod
    def of(cls, items: pl.DataFrame) -> "Catalogue":
        """Catalogue of rows of tables.ITEMS; the last row of an item_id wins."""
        return cls(items.unique("item_id", keep="last").sort("item_id").select(ITEMS.names))

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def item_ids(self) -> npt.NDArray[np.object_]:
        """Item id of each row."""
        return self.frame["item_id"].to_numpy()

    @cached_property
    def keys(self) -> npt.NDArray[np.uint64]:
        """Key of each row."""
        return item_keys(self.frame["item_id"].to_list())

    @cached_property
    def index(self) -> KeyIndex:
        """Key to row."""
        return KeyIndex(self.keys)

    @cached_property
    def category(self) -> Ints:
        """Code of the category of each row, -1 where there is none; names in `category_names`."""
        return _codes(self.frame["category"], self.category_names)

    @cached_property
    def category_names(self) -> list[str]:
        """Distinct categories, sorted."""
        return self.frame["category"].drop_nulls().unique().sort().to_list()

    @cached_property
    def brand(self) -> Ints:
        """Code of the brand of each row, -1 where there is none; names in `brand_names`."""
        return _codes(self.frame["brand"], self.brand_names)

    @cached_property
    def brand_names(self) -> list[str]:
        """Distinct brands, sorted."""
        return self.frame["brand"].drop_nulls().unique().sort().to_list()

    @cached_property
    def price(self) -> npt.NDArray[np.float32]:
        """Price of each row, NaN where unknown."""
        return self.frame["price"].cast(pl.Float32).fill_null(float("nan")).to_numpy()

    @cached_property
    def in_stock(self) -> npt.NDArray[np.bool_]:
        """Whether a row can be sold; stock that is not tracked counts as there."""
        return (self.frame["stock"].fill_null(1.0) > 0).to_numpy()

    def attribute(self, name: str) -> pl.Series:
        """Values of a column of the shop's own, as text; null where an item has none."""
        texts = self.frame["attributes"].to_list()
        found = [json.loads(text).get(name) if text else None for text in texts]
        return pl.Series(name, [None if v is None else str(v) for v in found], pl.String)


def _codes(column: pl.Series, names: list[str]) -> Ints:
    codes = {name: code for code, name in enumerate(names)}
    return column.replace_strict(codes, default=-1, return_dtype=pl.Int32).fill_null(-1).to_numpy()
