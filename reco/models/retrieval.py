"""Stage 1: candidates that are new to each subscriber, by the towers or by the graph of items.

Training and the Scorer both retrieve by this, so the explore head is given what it learned from.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from reco.models.explore import NEVER, Candidates
from reco.models.item_graph import ItemGraph
from reco.models.largest import largest
from reco.models.taste import Known, Taste
from reco.models.towers import Towers

Floats = npt.NDArray[np.float32]
FAINT: Final = np.float32(1e-9)  # score of an item that nothing leads to


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Towers, their item vectors on a device, and the graph where it is what retrieves."""

    towers: Towers
    item: torch.Tensor
    graph: ItemGraph | None

    @classmethod
    def of(cls, towers: Towers, graph: ItemGraph | None, device: str = "cpu") -> "Retrieval":
        """Ready to find candidates on a device."""
        return cls(towers, torch.from_numpy(towers.item).to(device), graph)

    def find(
        self, bags: sp.csr_matrix, known: Known, taste: Taste, tokens: npt.NDArray[np.uint32],
        count: int, usable: npt.NDArray[np.bool_] | None = None,
    ) -> Candidates:  # fmt: skip
        """Up to `count` candidates of each subscriber of a chunk; `usable` masks the items.

        `bags` [n, items] are decayed (models.towers.bag_matrix), `known` the pairs within them.
        """
        users = self.towers.users(bags, taste, tokens)
        hidden = np.float32(0) if usable is None else np.where(usable, np.float32(0), NEVER)
        if self.graph is None:
            bias = (self.towers.bias + hidden).astype(np.float32)
            return retrieve(users, self.item, bias, known, count)
        logits = np.log(np.maximum(self.graph.scores(known, len(users)), FAINT)) + hidden
        row, best = strongest(torch.from_numpy(logits), known, count)
        return Candidates(row, best, np.einsum("nd,ncd->nc", users, self.towers.item[row]))


def retrieve(
    users: Floats, items: torch.Tensor, bias: Floats, known: Known, count: int
) -> Candidates:
    """Best `count` items by users @ items.T + bias, [n, d] x [m, d] + [m], without the `known`."""
    device = items.device
    with torch.inference_mode():
        level = torch.from_numpy(bias).to(device)
        logits = torch.addmm(level, torch.from_numpy(users).to(device), items.T)
        row, best = strongest(logits, known, count)
    return Candidates(row, best, best - bias[row])


def strongest(
    logits: torch.Tensor, known: Known, count: int
) -> tuple[npt.NDArray[np.int32], Floats]:
    """Rows and logits of the best `count` of logits [n, m], without the `known`, best first."""
    device = logits.device
    with torch.inference_mode():
        owner, row = torch.from_numpy(known.owner), torch.from_numpy(known.row).long()
        logits[owner.to(device), row.to(device)] = float(NEVER)
        best, at = largest(logits, min(count, logits.shape[1]))
    return at, best
