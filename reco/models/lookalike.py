"""Cold start: what subscribers with a like profile take, shrunk towards recent popularity.

Takes counts of takers by profile token, gives probabilities of the popular items for any profile.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
POPULAR: Final = 500  # items that a cold subscriber can be given
SHRINKAGE: Final = 50.0  # imagined subscribers of average taste beside those of a segment
DAMPING: Final = 0.5  # tokens of a profile overlap: each adds half its log-lift


@dataclass(frozen=True, slots=True)
class Lookalike:
    """Segments by profile token over the m most popular items.

    rows    int32 [m]       rows of the items in the model, most popular first
    share   float32 [m]     share of active subscribers who took it lately
    tokens  uint32 [t]      sorted tokens that were seen
    lift    float32 [t, m]  log of the segment's share over the whole, after shrinkage
    """

    rows: npt.NDArray[np.int32]
    share: Floats
    tokens: npt.NDArray[np.uint32]
    lift: Floats

    @classmethod
    def of(
        cls, takers: npt.NDArray[np.float64], members: npt.NDArray[np.float64],
        tokens: npt.NDArray[np.uint32], share: Floats, rows: npt.NDArray[np.int32],
    ) -> "Lookalike":  # fmt: skip
        """From takers [t, m] and active members [t] of each token.

        `share` [m] of all for `rows` [m].
        """
        floor = np.maximum(share, 1e-6)
        segment = (takers + SHRINKAGE * floor) / (members + SHRINKAGE)[:, None]
        return cls(
            rows, floor.astype(np.float32), tokens, np.log(segment / floor).astype(np.float32)
        )

    def probabilities(self, profiles: npt.NDArray[np.uint32]) -> Floats:
        """Probabilities [n, m] of the popular items for profiles [n, tokens]."""
        logit = np.tile(np.log(self.share / (1 - np.minimum(self.share, 0.99))), (len(profiles), 1))
        if len(self.tokens) and profiles.shape[1]:
            at = np.searchsorted(self.tokens, profiles).clip(max=len(self.tokens) - 1)
            known = (self.tokens[at] == profiles) & (profiles != 0)
            for column in range(profiles.shape[1]):
                logit += DAMPING * np.where(known[:, column, None], self.lift[at[:, column]], 0)
        probability: Floats = (1 / (1 + np.exp(-logit))).astype(np.float32)
        return probability


def token_takers(
    profiles: npt.NDArray[np.uint32], took: npt.NDArray[np.bool_], tokens: npt.NDArray[np.uint32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Takers [t, m] and members [t] of each token; profiles [n, width], took [n, m].

    Adds up over buckets.
    """
    takers = np.zeros((len(tokens), took.shape[1]))
    members = np.zeros(len(tokens))
    at = np.searchsorted(tokens, profiles)
    at = np.where((profiles != 0) & (at < len(tokens)), at, len(tokens) - 1) if len(tokens) else at
    for column in range(profiles.shape[1] if len(tokens) else 0):
        here = tokens[at[:, column]] == profiles[:, column]
        np.add.at(takers, at[here, column], took[here])
        np.add.at(members, at[here, column], 1)
    return takers, members
