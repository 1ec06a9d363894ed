"""Logits of a head as probabilities, fitted on a later slice: that is what lets heads be merged.

Numpy only: whoever asks what a model was trained for need not import torch.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
NEWTON_STEPS: Final = 25


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
