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
BLOCK_ROWS: Final = 2048  # whose activations stay in the cache: three times as fast
NEWTON_STEPS: Final = 25


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


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt's map of a logit to a probability: sigmoid(slope x logit + user . weights + intercept).

    The order of a subscriber's items stays, since slope > 0; `user` sets the level between
    subscribers, which a loss over one subscriber's items alone cannot learn.
    """

    slope: float = 1.0
    intercept: float = 0.0
    user: tuple[float, ...] = ()

    def probability(self, logits: Floats, user: Floats) -> Floats:
        """Probabilities of rows; user [rows, USER_COLUMNS] of the subscriber of each row."""
        level = user @ np.asarray(self.user, np.float32) if self.user else np.float32(0)
        z = np.float32(self.slope) * logits + level + np.float32(self.intercept)
        probability: Floats = (1 / (1 + np.exp(-np.clip(z, -30, 30)))).astype(np.float32)
        return probability

    @classmethod
    def fit(cls, logits: Floats, user: Floats, happened: npt.NDArray[np.generic]) -> "Calibration":
        """Maximum likelihood by Newton's method (Platt 1999).

        Near the identity when rows are few.
        """
        x = np.column_stack([logits, user, np.ones(len(logits))]).astype(np.float64)
        y = happened.astype(np.float64)
        prior = np.zeros(x.shape[1])
        prior[0] = 1.0
        beta = prior.copy()
        for _ in range(NEWTON_STEPS):
            p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
            gradient = x.T @ (y - p) - (beta - prior)
            hessian = (x * (p * (1 - p))[:, None]).T @ x + np.eye(len(beta))
            step = np.linalg.solve(hessian, gradient)
            # Where hits are rare a full step overshoots to where the curve is flat, for ever.
            now = _loss(x @ beta, y, beta - prior)
            while (
                _loss(x @ (beta + step), y, beta + step - prior) > now and np.abs(step).max() > 1e-6
            ):
                step = step / 2
            beta = beta + step
            if np.abs(step).max() < 1e-6:
                break
        return cls(max(float(beta[0]), 0.05), float(beta[-1]), tuple(beta[1:-1].tolist()))


def _loss(
    z: npt.NDArray[np.float64], y: npt.NDArray[np.float64], away: npt.NDArray[np.float64]
) -> float:
    """Negative log likelihood of labels y at logits z, and the pull of the prior."""
    return float(np.logaddexp(0, z).sum() - y @ z + away @ away / 2)
