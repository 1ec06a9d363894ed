"""What features need to know about items: arrays over the rows of the catalogue."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from reco.catalogue import Catalogue, KeyIndex

BANDS: Final = 5  # price bands: fifths of the catalogue


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """Arrays over the m rows of a catalogue; they travel to workers without a copy.

    One more row at the end stands for items that the catalogue lacks: row -1 of the index finds it.

    category    int32 [m + 1]    code (Catalogue.category), -1 where there is none
    price_band  int8 [m + 1]     fifth of the catalogue by price, 0..4; -1 where it is unknown
    """

    index: KeyIndex
    category: npt.NDArray[np.int32]
    price_band: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.category) - 1

    @classmethod
    def of(cls, catalogue: Catalogue) -> "ItemFacts":
        """Facts of a catalogue."""
        bands = price_bands(catalogue.price)
        return cls(
            catalogue.index,
            np.append(catalogue.category, np.int32(-1)),
            np.append(bands, np.int8(-1)),
        )


def price_bands(price: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """Fifth of the known prices in which each lies, 0..4; -1 where a price is NaN."""
    known = ~np.isnan(price)
    band = np.full(len(price), -1, np.int8)
    if known.any():
        edges = np.quantile(price[known], np.arange(1, BANDS) / BANDS)
        band[known] = np.searchsorted(edges, price[known], side="right")
    return band
