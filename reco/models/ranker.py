"""Wide & deep head: a linear part and an MLP over the same z-scored features, one logit a row.

Two heads share this class: what a subscriber takes again, and what is new to them. Their logits
become probabilities by a calibration (models.calibration).
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Floats = npt.NDArray[np.float32]
CLIP: Final = 6.0  # standard deviations
BLOCK_ROWS: Final = 2048  # whose activations stay in the cache: three times as fast


class Head(nn.Module):
    """logit = wide(z) + deep(z), z = (x - mean) / scale, clipped; x float32 [rows, features]."""

    def __init__(self, features: int, hidden: int = 64) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.wide = nn.Linear(features, 1)
        self.deep = nn.Sequential(
            nn.Linear(features, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, 1),
        )

    def standardise(self, mean: Tensor, scale: Tensor) -> None:
        """Take mean and scale [features]; a column that never varies keeps scale 1."""
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(scale > 1e-6, scale, torch.ones_like(scale)))

    @torch.no_grad()
    def start_from(self, column: int, offset: float) -> None:
        """Begin as one feature + offset, a good logit already; training learns the rest."""
        self.wide.weight.zero_()
        self.wide.weight[0, column] = self.scale[column]
        self.wide.bias.fill_(float(self.mean[column]) + offset)
        last = self.deep[-1]
        assert isinstance(last, nn.Linear)
        last.weight.zero_()
        last.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Logits [rows]."""
        z = ((x - self.mean) / self.scale).clamp(-CLIP, CLIP)
        out: Tensor = (self.wide(z) + self.deep(z)).squeeze(-1)
        return out

    def logits(self, x: Floats) -> Floats:
        """Logits of numpy rows, without gradients."""
        with torch.inference_mode():
            parts = torch.split(torch.from_numpy(x), BLOCK_ROWS)
            return np.concatenate(
                [np.zeros(0, np.float32), *(self(part).numpy() for part in parts)]
            )
