"""The kind of an item: finer than its category, where a shop has such a column.

Shops name it in many ways (product type, sub-category, family), so it is found by what it does:
its values lie within one category each, and are more than the categories.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from reco.catalogue import Catalogue

NESTED: Final = 0.8  # share of the items that lie in the main category of their value
SMALLEST: Final = 3.0  # items a value, on average; finer columns name items rather than kinds
FILLED: Final = 0.5  # share of the items with a value
CODES: Final = 4096  # kinds beyond it share codes
SAMPLE: Final = 2_000  # items in which columns are looked for


def kinds(catalogue: Catalogue) -> npt.NDArray[np.int32]:
    """Code of the kind of each item, 0 .. CODES - 1; its category's where there is no finer one."""
    frame = catalogue.frame.select(
        pl.col("category").fill_null(""), pl.col("attributes").alias("raw")
    )
    found = {name: _values(frame["raw"], name) for name in _columns(frame["raw"])}
    finer = {name: v for name, v in found.items() if _nested(frame["category"], v)}
    best = max(finer, key=lambda name: (finer[name].n_unique(), name), default=None)
    parts = [frame["category"]] + ([finer[best].fill_null("")] if best is not None else [])
    code = pl.DataFrame({str(i): part for i, part in enumerate(parts)}).to_struct().rank("dense")
    return ((code.to_numpy() - 1) % CODES).astype(np.int32)


def _columns(raw: pl.Series) -> list[str]:
    """Names of attributes in a sample of JSON objects, sorted."""
    some = raw.drop_nulls()
    some = some.gather_every(max(len(some) // SAMPLE, 1))
    names = some.str.extract_all(r'"[^"\\]+":').explode().drop_nulls().unique()
    return sorted(name[1:-2] for name in names.to_list())


def _values(raw: pl.Series, name: str) -> pl.Series:
    return raw.str.json_path_match(f'$["{name}"]')


def _nested(category: pl.Series, value: pl.Series) -> bool:
    """Whether a column divides the categories."""
    rows = pl.DataFrame({"category": category, "value": value}).drop_nulls("value")
    sizes = rows.group_by("value", "category").len()
    values = rows["value"].n_unique()
    if len(rows) < FILLED * len(value) or not category.n_unique() < values <= len(rows) / SMALLEST:
        return False
    return bool(sizes.group_by("value").agg(pl.col("len").max())["len"].sum() >= NESTED * len(rows))
