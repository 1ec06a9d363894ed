"""Wide & deep head: a linear part and an MLP over the same z-scored features, one logit a row.

Two heads share this class: what a subscriber takes again, and what is new to them. Their logits
become probabilities by a calibration fitted on a later slice, which is what lets them be merged.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Floats = npt.NDArray[np.float32]
CLIP: Final = 6.0  # standard deviations


class Head(nn.Module):
    """logit = wide(z) + deep(z), z = (x - mean) / scale, clipped; x float32 [rows, features]."""

    def __init__(self, features: int, hidden: int = 64) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.wide = nn.Linear(features, 1)
        self.deep = nn.Sequential(
            nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1)
        )

    def standardise(self, x: Tensor) -> None:
        """Take mean and scale from rows x; a column that never varies keeps scale 1."""
        self.mean = x.mean(dim=0)
        scale = x.std(dim=0, unbiased=False)
        self.scale = torch.where(scale > 1e-6, scale, torch.ones_like(scale))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [rows]."""
        z = ((x - self.mean) / self.scale).clamp(-CLIP, CLIP)
        out: Tensor = (self.wide(z) + self.deep(z)).squeeze(-1)
        return out

    def logits(self, x: Floats) -> Floats:
        """Logits of numpy rows, without gradients."""
        with torch.inference_mode():
            return self(torch.from_numpy(x)).numpy()


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt's map of a logit to a probability: sigmoid(slope x logit + intercept), slope > 0."""

    slope: float = 1.0
    intercept: float = 0.0

    def probability(self, logits: Floats) -> Floats:
        """Probabilities, in the order of the logits."""
        return (1 / (1 + np.exp(-(self.slope * logits + self.intercept)))).astype(np.float32)

    @classmethod
    def fit(cls, logits: Floats, happened: npt.NDArray[np.bool_], weight: Floats | None = None) -> "Calibration":
        """Maximum likelihood by Newton's method (Platt 1999), towards the identity when data are few."""
        x = np.stack([logits.astype(np.float64), np.ones(len(logits))], axis=1)
        y, w = happened.astype(np.float64), np.ones(len(logits)) if weight is None else weight
        beta, prior = np.array([1.0, 0.0]), np.array([1.0, 0.0])
        for _ in range(25):
            p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
            gradient = x.T @ (w * (y - p)) - (beta - prior)
            hessian = (x * (w * p * (1 - p))[:, None]).T @ x + np.eye(2)
            step = np.linalg.solve(hessian, gradient)
            beta = beta + step
            if np.abs(step).max() < 1e-8:
                break
        return cls(max(float(beta[0]), 0.05), float(beta[1]))
