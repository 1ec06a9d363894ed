"""The scorer: histories of a chunk of subscribers in, ranked slates out. Knows nothing of Ray.

Stage 1 finds candidates that are new to each subscriber by the towers; stage 2 ranks what they had by the
repeat head and what is new by the explore head; both give calibrated probabilities, so one sort
merges them. A subscriber with little history leans on those with a like profile.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from reco.catalogue import Catalogue, KeyIndex
from reco.features.history import NO_PROFILING, Histories, cutoff_day
from reco.features.pairs import Pairs, pairs
from reco.models.artifact import Artifact
from reco.models.explore import EXPLORE_FEATURES, Candidates, explore_matrix, retrieve
from reco.models.ranker import Head
from reco.models.repeat import REPEAT_FEATURES, repeat_matrix
from reco.models.slates import Reason, Rung, Slates
from reco.models.taste import Known, Taste
from reco.tables import item_keys, type_code

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
WARM_ITEMS: Final = 5  # different items from which on a subscriber stands for themselves
NEAR: Final = 0.35  # cosine between a pick and the bag from which on it "goes with" what was bought
LIKED: Final = 0.03  # share of a category in what a subscriber takes from which on they "like" it


@dataclass(frozen=True, slots=True)
class _Picks:
    """Scored items of n subscribers in padded rows [n, w]; row -1 is an empty place."""

    row: npt.NDArray[np.int32]
    probability: Floats
    reason: npt.NDArray[np.uint8]

    def beside(self, other: "_Picks") -> "_Picks":
        join = lambda name: np.concatenate([getattr(self, name), getattr(other, name)], axis=1)  # noqa: E731
        return _Picks(join("row"), join("probability"), join("reason"))


class Scorer:
    """Scores chunks by one artifact; safe to share between threads, since nothing changes."""

    def __init__(
        self, artifact: Artifact, catalogue: Catalogue, version: str, device: str = "cpu"
    ) -> None:
        self.version = version
        self.artifact = artifact
        self.config = artifact.config
        self._keys = item_keys(artifact.item_ids)
        self._index = KeyIndex(self._keys)
        self._catalogue_row = catalogue.index.rows(self._keys)
        self._type = type_code(self.config.target)
        self._stats, self._lookalike = artifact.statistics, artifact.lookalike
        self._towers = artifact.towers
        self._item = torch.from_numpy(self._towers.item).to(device)
        self._repeat = _head(artifact, "repeat", len(REPEAT_FEATURES))
        self._explore = _head(artifact, "explore", len(EXPLORE_FEATURES))

    @classmethod
    def load(cls, directory: str, catalogue: Catalogue, device: str = "cpu") -> "Scorer":
        """Scorer of the artifact in `directory`; its name is the version.

        Raises NotFound without an artifact there, ModelMismatch when it was made by other definitions.
        """
        return cls(Artifact.load(directory), catalogue, Path(directory).name, device)

    def score(
        self,
        histories: Histories,
        as_of: datetime,
        k: int,
        *,
        allowed: Mask | None = None,
        novel_only: bool = False,
    ) -> Slates:
        """Best k items of each of n subscribers by what they did before `as_of`.

        `allowed` masks rows of the catalogue. `novel_only` leaves out what a subscriber had.
        Places for which nothing is left stay empty. A subscriber without history gets rung LOOKALIKE.
        """
        day = cutoff_day(as_of)
        histories = histories.before(day)
        p = pairs(histories, day, self._type)
        known = Known.of(p, self._index.rows(p.item), day)
        taste = Taste.of(p, known, len(histories), self._stats)
        usable = self._usable(allowed)
        tokens = np.where(
            (histories.flags & NO_PROFILING)[:, None] > 0, 0, histories.tokens
        ).astype(np.uint32)
        picks = self._novel(p, known, taste, tokens, usable, k)
        picks = self._blended(picks, known, tokens, usable, len(histories))
        if self.config.repeats and not novel_only:
            picks = picks.beside(self._repeats(p, known, taste, usable))
        return self._slates(picks, np.bincount(known.owner, minlength=len(histories)), k)

    def _usable(self, allowed: Mask | None) -> Mask:
        """Rows of the model that may be shown: in the catalogue, and allowed."""
        there = self._catalogue_row >= 0
        return there if allowed is None else there & allowed[np.maximum(self._catalogue_row, 0)]

    def _novel(
        self,
        p: Pairs,
        known: Known,
        taste: Taste,
        tokens: npt.NDArray[np.uint32],
        usable: Mask,
        k: int,
    ) -> _Picks:
        users = self._towers.users(p, known, taste, tokens)
        bias = np.where(usable, self._towers.bias, np.float32(-1e9)).astype(np.float32)
        found = retrieve(users, self._item, bias, known, max(self.config.candidates, k))
        valid = found.valid
        owner, at = np.nonzero(valid)
        features = explore_matrix(owner, at, found, taste, self._stats)
        probability = np.full(found.row.shape, -1, np.float32)
        probability[owner, at] = self.config.explore_calibration.probability(
            self._explore.logits(features), taste.user[owner]
        )
        return _Picks(
            np.where(valid, found.row, -1).astype(np.int32), probability, self._why(found, taste)
        )

    def _repeats(self, p: Pairs, known: Known, taste: Taste, usable: Mask) -> _Picks:
        n = len(taste.user)
        features = repeat_matrix(p, known, taste, self._stats)
        probability = self.config.repeat_calibration.probability(
            self._repeat.logits(features), taste.user[known.owner]
        )
        place = np.arange(len(known.owner)) - np.searchsorted(known.owner, known.owner)
        width = int(place.max(initial=-1)) + 1
        row, score = np.full((n, width), -1, np.int32), np.full((n, width), -1, np.float32)
        row[known.owner, place] = np.where(usable[known.row], known.row, -1)
        score[known.owner, place] = np.where(usable[known.row], probability, -1)
        return _Picks(row, score, np.full((n, width), Reason.REPEAT, np.uint8))

    def _why(self, found: Candidates, taste: Taste) -> npt.NDArray[np.uint8]:
        """Main reason of each candidate: near the bag, a liked category, popular, else to explore."""
        scale = np.linalg.norm(self._towers.item[0]) or 1.0
        owner = np.arange(len(found.row))[:, None]
        liked = taste.category[owner, self._stats.category[found.row]] >= LIKED
        popular = np.isin(found.row, self._lookalike.rows[:100])
        reason = np.where(popular, Reason.POPULAR, Reason.EXPLORE)
        reason = np.where(liked, Reason.CATEGORY, reason)
        return np.where(found.tower / scale >= NEAR, Reason.BOUGHT_TOGETHER, reason).astype(
            np.uint8
        )

    def _blended(
        self, picks: _Picks, known: Known, tokens: npt.NDArray[np.uint32], usable: Mask, n: int
    ) -> _Picks:
        """Picks of those with little history, mixed with what subscribers of a like profile take."""
        items = np.bincount(known.owner, minlength=n)
        cool = np.flatnonzero(items < WARM_ITEMS)
        if not len(cool):
            return picks
        weight = (items[cool] / WARM_ITEMS).astype(np.float32)[:, None]
        model = len(self._keys)
        score = np.zeros((len(cool), model + 1), np.float32)  # one column more for empty places
        own = np.where(picks.row[cool] < 0, model, picks.row[cool])
        np.put_along_axis(score, own, weight * picks.probability[cool], axis=1)
        like = (1 - weight) * self._lookalike.probabilities(tokens[cool])
        score[:, self._lookalike.rows] += like
        reason = np.full(score.shape, Reason.SIMILAR_PEOPLE, np.uint8)
        np.put_along_axis(
            reason, own, np.where(weight > 0, picks.reason[cool], Reason.SIMILAR_PEOPLE), axis=1
        )
        position = np.full(n, -1)
        position[cool] = np.arange(len(cool))
        mine = position[known.owner] >= 0
        score[position[known.owner[mine]], known.row[mine]] = 0
        score[:, :model][:, ~usable] = 0
        score[:, model] = 0
        return _put(picks, cool, score, reason)

    def _slates(self, picks: _Picks, items: npt.NDArray[np.int64], k: int) -> Slates:
        n, width = picks.row.shape
        keep = min(k, width)
        score = np.where(picks.row >= 0, picks.probability, -1)
        if keep < width:
            part = np.argpartition(-score, keep - 1, axis=1)[:, :keep]
        else:
            part = np.tile(np.arange(width), (n, 1))
        taken = np.take_along_axis(score, part, axis=1)
        row = np.take_along_axis(picks.row, part, axis=1)
        # Equal scores are ordered by row, so that equal inputs give equal bytes.
        order = np.lexsort((row, -taken), axis=1)
        best, row = np.take_along_axis(part, order, axis=1), np.take_along_axis(row, order, axis=1)
        there = row >= 0
        out = Slates.empty(n, k)
        out.items[:, :keep] = np.where(there, self._keys[row], 0)
        out.scores[:, :keep] = np.where(there, np.take_along_axis(score, best, axis=1), 0)
        out.reasons[:, :keep] = np.where(there, np.take_along_axis(picks.reason, best, axis=1), 0)
        rung = np.where(items[:, None] > 0, Rung.LIVE, Rung.LOOKALIKE)
        out.rungs[:, :keep] = np.where(there, rung, 0)
        return out


def _put(
    picks: _Picks, who: npt.NDArray[np.intp], score: Floats, reason: npt.NDArray[np.uint8]
) -> _Picks:
    """Replace the picks of `who` by the best of dense scores [who, items + 1]."""
    width = min(picks.row.shape[1], score.shape[1])
    best = np.argsort(-score, axis=1, kind="stable")[:, :width]
    value = np.take_along_axis(score, best, axis=1)
    row, probability, why = picks.row.copy(), picks.probability.copy(), picks.reason.copy()
    row[who], probability[who] = -1, -1
    at = who[:, None], np.arange(width)[None, :]
    row[at] = np.where(value > 0, best, -1)
    probability[at] = value
    why[at] = np.take_along_axis(reason, best, axis=1)
    return _Picks(row, probability, why)


def _head(artifact: Artifact, name: str, features: int) -> Head:
    head = Head(features, len(artifact.heads[f"{name}.deep.0.bias"]))
    head.load_state_dict(
        {
            key.removeprefix(f"{name}."): torch.from_numpy(a)
            for key, a in artifact.heads.items()
            if key.startswith(f"{name}.")
        }
    )
    return head.eval()
