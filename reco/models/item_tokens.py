"""What an item is, as a few hashed tokens: the content of the towers and of similar items."""

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

from reco.catalogue import Catalogue

CONTENT_ROWS: Final = 8192  # hashed tokens of items
CONTENT_WIDTH: Final = 12  # tokens an item
PRICE_BANDS_PER_E: Final = 2  # bands of the log price


def content_tokens(catalogue: Catalogue, rows: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Hashed tokens [n, CONTENT_WIDTH] of items: category, brand, price band, words of the title.

    0 is none.
    """
    out = np.zeros((len(rows), CONTENT_WIDTH), np.int64)
    frame = catalogue.frame[rows.astype(np.int64)]
    columns = (frame["title"], frame["category"], frame["brand"], frame["price"])
    for i, (title, category, brand, price) in enumerate(zip(*columns, strict=True)):
        words = [f"word={w}" for w in (title or "").lower().split()]
        band = (
            ""
            if price is None or price <= 0
            else f"band={int(math.log(price) * PRICE_BANDS_PER_E)}"
        )
        named = [
            f"category={category}" if category else "",
            f"brand={brand}" if brand else "",
            band,
        ]
        tokens = [
            xxhash.xxh32_intdigest(t.encode()) % (CONTENT_ROWS - 1) + 1
            for t in (*named, *words)
            if t
        ]
        out[i, : len(tokens[:CONTENT_WIDTH])] = tokens[:CONTENT_WIDTH]
    return out
