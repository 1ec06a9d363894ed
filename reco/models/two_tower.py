"""The two towers: a subscriber and an item as 128-d unit vectors, logit = scale x dot + bias.

Both start from the spectrum of the decayed histories (models.spectral) and learn corrections: of
the item ids, of hashed content (category, brand, price band, title words) and of the profile's
tokens. Corrections start at 0, so an untrained tower is the spectrum itself.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reco.models.item_tokens import CONTENT_ROWS
from reco.models.spectral import Spectrum
from reco.models.taste import USER_COLUMNS
from reco.models.towers import Towers

PROFILE_ROWS: Final = 4096  # hashed tokens of profiles
START_SCALE: Final = 7.0  # 1 / temperature; log-odds between the nearest and an orthogonal item


@dataclass(frozen=True, slots=True)
class Bags:
    """What n subscribers took, as flat rows: subscriber i has rows[offsets[i]:offsets[i + 1]].

    rows [r] item rows, weights [r], offsets [n], tokens [n, t] of the profile, user [n,
    USER_COLUMNS]
    """

    rows: Tensor
    weights: Tensor
    offsets: Tensor
    tokens: Tensor
    user: Tensor


class TwoTower(nn.Module):
    """Towers over `items` items.

    `start` is the spectrum they correct, `prior` [items] the log popularity.
    """

    def __init__(
        self, start: Spectrum, prior: npt.NDArray[np.float32], content: npt.NDArray[np.int64]
    ) -> None:
        super().__init__()
        items, dim = start.item.shape
        self.start_taken: Tensor
        self.start_item: Tensor
        self.prior: Tensor
        self.content_tokens: Tensor
        self.taken = nn.Embedding(items, dim)
        self.item = nn.Embedding(items, dim)
        self.content = nn.Embedding(CONTENT_ROWS, dim, padding_idx=0)
        self.profile = nn.Embedding(PROFILE_ROWS, dim, padding_idx=0)
        self.activity = nn.Linear(len(USER_COLUMNS), dim, bias=False)
        self.bias = nn.Parameter(torch.zeros(items))
        self.log_scale = nn.Parameter(torch.zeros(()))
        for weight in self.parameters():
            nn.init.zeros_(weight)
        nn.init.constant_(self.log_scale, math.log(START_SCALE))
        self.register_buffer("content_tokens", torch.from_numpy(content), persistent=False)
        self.rebase(start, prior)

    def rebase(self, start: Spectrum, prior: npt.NDArray[np.float32]) -> None:
        """Put the learned corrections on another start, which must lie in the same frame."""
        self.register_buffer("start_taken", torch.from_numpy(start.taken), persistent=False)
        self.register_buffer("start_item", torch.from_numpy(start.item), persistent=False)
        self.register_buffer("prior", torch.from_numpy(prior), persistent=False)

    @property
    def scale(self) -> Tensor:
        """1 / temperature, held in 1 / 0.3 .. 1 / 0.03."""
        return self.log_scale.clamp(math.log(1 / 0.3), math.log(1 / 0.03)).exp()

    def users(self, bags: Bags) -> Tensor:
        """Unit vectors [n, d]."""
        table = self.start_taken + self.taken.weight
        bag = F.embedding_bag(
            bags.rows, table, bags.offsets, mode="sum", per_sample_weights=bags.weights
        )
        known = F.normalize(bag, dim=1)
        profile = self.profile(bags.tokens % PROFILE_ROWS).sum(dim=1)
        return F.normalize(known + profile + self.activity(bags.user), dim=1)

    def items(self, id_dropout: float = 0.0) -> Tensor:
        """Unit vectors [items, d]; with id-dropout an item must be known by its content alone."""
        return self._vectors(self.start_item, self.item.weight, self.content_tokens, id_dropout)

    def items_at(self, rows: Tensor, id_dropout: float = 0.0) -> Tensor:
        """Unit vectors of some rows."""
        learned = self.item(rows)
        return self._vectors(self.start_item[rows], learned, self.content_tokens[rows], id_dropout)

    def _vectors(
        self, start: Tensor, learned: Tensor, content: Tensor, id_dropout: float
    ) -> Tensor:
        if id_dropout and self.training:
            keep = torch.rand(len(learned), 1, device=learned.device) >= id_dropout
            learned = learned * keep
        return F.normalize(start + learned + self.content(content).mean(dim=1), dim=1)

    def logits(self, users: Tensor, items: Tensor) -> Tensor:
        """Logits [n, items]."""
        return self.scale * users @ items.T + self.prior + self.bias

    @torch.no_grad()
    def fold(self) -> Towers:
        """The towers as plain arrays for serving."""

        def plain(x: Tensor) -> npt.NDArray[np.float32]:
            return x.detach().float().cpu().numpy().copy()

        return Towers(
            taken=plain(self.start_taken + self.taken.weight),
            item=plain(self.scale * self.items()),
            bias=plain(self.prior + self.bias),
            profile=plain(self.profile.weight),
            activity=plain(self.activity.weight),
        )
