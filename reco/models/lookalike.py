"""Cold start: what subscribers with a like profile take, shrunk towards recent popularity.

Takes counts of takers by profile token, gives probabilities of the popular items for any profile.
What a new subscriber asked for, or came for, lifts its category before anybody has taken anything.
"""

from collections.abc import Mapping
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

    rows    int32 [m]       rows of items in the model, most popular first; then those of priors
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

    def with_priors(
        self, priors: Mapping[int, tuple[float, npt.NDArray[np.int32]]], share: Floats
    ) -> "Lookalike":
        """With log-lifts that are known beforehand, added to what segments show.

        `priors` holds log-lift and item rows of a token, `share` [n] is that of all items.
        """
        wanted = [rows for _, rows in priors.values()]
        new = np.setdiff1d(np.concatenate([self.rows[:0], *wanted]), self.rows)
        new = new[np.argsort(-share[new], kind="stable")].astype(np.int32)
        rows = np.concatenate([self.rows, new])
        tokens = np.union1d(self.tokens, np.array(sorted(priors), np.uint32)).astype(np.uint32)
        lift = np.zeros((len(tokens), len(rows)), np.float32)
        lift[np.searchsorted(tokens, self.tokens), : len(self.rows)] = self.lift
        for token, (height, raised) in priors.items():
            lift[np.searchsorted(tokens, token), np.isin(rows, raised)] += height
        shares = np.concatenate([self.share, np.maximum(share[new], 1e-6)]).astype(np.float32)
        return Lookalike(rows, shares, tokens, lift)

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
