"""The scorer: histories of a chunk of subscribers in, ranked slates out. Knows nothing of Ray.

Stage 1 finds candidates that are new to each subscriber by the towers; stage 2 ranks what they had
by the repeat head and what is new by the explore head; both give calibrated probabilities, so one
sort merges them. A subscriber with little history leans on those with a like profile. Where mails
have taught what shown items earn (models.response), the sort is by that. Where the gate chose a
simple recommender (models.plain), its items stand in the place of both heads'.
"""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from reco.catalogue import Catalogue, KeyIndex
from reco.features.history import NO_PROFILING, Histories, cutoff_day
from reco.features.pairs import Pairs, pairs
from reco.features.touches import touched
from reco.models.artifact import TOUCHED, Artifact
from reco.models.because import because
from reco.models.explore import EXPLORE_FEATURES, Candidates, explore_matrix
from reco.models.picks import NO, Mask, Picks
from reco.models.ranker import Head
from reco.models.repeat import REPEAT_FEATURES, debiased, repeat_matrix
from reco.models.response import shortlist
from reco.models.retrieval import Retrieval
from reco.models.slates import Reason, Rung, Slates
from reco.models.taste import Known, Taste
from reco.models.towers import bag_matrix
from reco.tables import item_keys, type_code

Tokens = npt.NDArray[np.uint32]
WARM_ITEMS: Final = 5  # different items from which on a subscriber stands for themselves
NEAR: Final = 0.35  # cosine to the history from which on a pick "goes with" what was bought
LIKED: Final = 0.03  # share of a category in what a subscriber takes from which on they like it
POPULAR: Final = 100  # items that count as popular in a reason


class Scorer:
    """Scores chunks by one artifact; safe to share between threads, since nothing changes."""

    def __init__(
        self, artifact: Artifact, catalogue: Catalogue, version: str, device: str = "cpu"
    ) -> None:
        self.version, self.artifact, self.config = version, artifact, artifact.config
        self._catalogue, self._device = catalogue, device
        self._keys = item_keys(artifact.item_ids)
        self._index = KeyIndex(self._keys)
        self._catalogue_row = catalogue.index.rows(self._keys)
        self._type = type_code(self.config.target)
        self._touches = bool(self.config.settings.get(TOUCHED))
        self._towers, self._stats = artifact.towers, artifact.statistics
        self._lookalike = artifact.lookalike
        self._retrieval = Retrieval.of(self._towers, artifact.graph, device)
        self._scale = float(np.linalg.norm(self._towers.item, axis=1).max(initial=1e-9))
        self._repeat = _head(artifact, "repeat", len(REPEAT_FEATURES))
        self._explore = _head(artifact, "explore", len(EXPLORE_FEATURES))

    @classmethod
    def load(cls, directory: str, catalogue: Catalogue, device: str = "cpu") -> "Scorer":
        """Scorer of the artifact in `directory`, whose name is the version.

        Raises NotFound without one, ModelMismatch when it was made by other definitions.
        """
        return cls(Artifact.load(directory), catalogue, Path(directory).name, device)

    def score(
        self, histories: Histories, as_of: datetime, k: int, *,
        allowed: Mask | None = None, novel_only: bool = False,
    ) -> Slates:  # fmt: skip
        """Best k items of each of n subscribers by what they did before `as_of`.

        `allowed` masks rows of the catalogue. `novel_only` leaves out what a subscriber had.
        Places for which nothing is left stay empty. Without any history the rung is LOOKALIKE.
        The best are the most probable, or those that earn most where mails have taught it.
        """
        picks, taste, bags = self.candidates(
            histories, as_of, k, allowed=allowed, novel_only=novel_only
        )
        seen = np.diff(bags.indptr) > 0
        rungs = np.where(seen, Rung.LIVE, Rung.LOOKALIKE).astype(np.uint8)
        value = None
        if self.artifact.response is not None and self.artifact.chosen is None:
            picks = shortlist(picks, k)  # what mails taught is about the ranker's chances
            value = self.artifact.response.value(picks, taste, self._stats)
        return self._explained(picks.best(k, self._keys, rungs, value), bags)

    def _explained(self, slates: Slates, bags: sp.csr_matrix) -> Slates:
        """With the taken item that each pick goes with, by what chose it."""
        by = self.artifact.chosen.plain if self.artifact.chosen else self._towers
        row = because(slates, self._index.rows(slates.items), bags, by.likeness)
        key = np.where(row >= 0, self._keys[row], 0).astype(np.uint64)
        return replace(slates, because=key)

    def by_probability(self) -> "Scorer":
        """The same model, which ranks by what subscribers take by themselves."""
        if self.artifact.response is None:
            return self
        plain = replace(self.artifact, response=None)
        return Scorer(plain, self._catalogue, self.version, self._device)

    def candidates(
        self, histories: Histories, as_of: datetime, k: int, *,
        allowed: Mask | None = None, novel_only: bool = False,
    ) -> tuple[Picks, Taste, sp.csr_matrix]:  # fmt: skip
        """All that may be shown to each of n subscribers, their taste, and what they took.

        The last is their decayed bags [n, items].
        """
        day = cutoff_day(as_of)
        taken = histories.before(day)
        touches = self._touches and self.artifact.chosen is None
        histories = touched(taken, self._type) if touches else taken
        p = pairs(histories, day, self._type)
        known = Known.of(p, self._index.rows(p.item), day)
        taste = Taste.of(p, known, len(histories), self._stats)
        refused = (histories.flags & NO_PROFILING)[:, None] > 0
        tokens = np.where(refused, 0, histories.tokens).astype(np.uint32)
        usable = self._usable(allowed)
        bags = bag_matrix(p, known, len(histories), len(self._keys))
        count, repeats = max(self.config.candidates, k), self.config.repeats and not novel_only
        if self.artifact.chosen is not None:
            picks = self.artifact.chosen.picks(bags, usable, count, drop_seen=not repeats)
            return self._warmed(picks, known, tokens, usable), taste, bags
        picks = self._novel(bags, known, taste, tokens, usable, count)
        picks = self._warmed(picks, known, tokens, usable)
        if repeats or touches:
            had = self._had(taken, day, known) if touches else np.ones(len(known.row), bool)
            there = usable[known.row] & (repeats | ~had)
            picks = self._repeats(p, known, taste, there, had).beside(picks)
        return picks, taste, bags

    def _usable(self, allowed: Mask | None) -> Mask:
        """Rows of the model that may be shown: in the catalogue, and allowed."""
        there = self._catalogue_row >= 0
        return there if allowed is None else there & allowed[np.maximum(self._catalogue_row, 0)]

    def _novel(
        self, bags: sp.csr_matrix, known: Known, taste: Taste, tokens: Tokens, usable: Mask,
        count: int,
    ) -> Picks:  # fmt: skip
        """Candidates that are new to each subscriber, by the explore head."""
        found = self._retrieval.find(bags, known, taste, tokens, count, usable)
        owner = np.repeat(np.arange(len(found.row)), found.row.shape[1])
        features = explore_matrix(found, taste, self._stats)
        calibration = self.config.explore_calibration
        chances = calibration.probability(self._explore.logits(features), taste.user[owner])
        chances = np.where(found.valid, chances.reshape(found.row.shape), np.float32(NO))
        rows = np.where(found.valid, found.row, -1).astype(np.int32)
        return Picks(rows, chances, self._why(found, taste))

    def _had(self, taken: Histories, day: int, known: Known) -> Mask:
        """Which of the known pairs were taken, not only looked at."""
        p = pairs(taken, day, self._type)
        bought, width = Known.of(p, self._index.rows(p.item), day), len(self._keys)
        return np.isin(known.owner * width + known.row, bought.owner * width + bought.row)

    def _repeats(self, p: Pairs, known: Known, taste: Taste, usable: Mask, had: Mask) -> Picks:
        """What each subscriber had, or looked at, by the repeat head; masks of the pairs."""
        features = repeat_matrix(p, known, taste, self._stats)
        penalty = self.config.popularity_penalty
        logits = debiased(self._repeat.logits(features), known.row, self._stats, penalty)
        chances = self.config.repeat_calibration.probability(logits, taste.user[known.owner])
        row = np.where(usable, known.row, -1).astype(np.int32)
        reason = np.where(had, np.uint8(Reason.REPEAT), np.uint8(Reason.LOOKED_AT))
        return Picks.of_rows(known.owner, row, chances, len(taste.user), reason)

    def _why(self, found: Candidates, taste: Taste) -> npt.NDArray[np.uint8]:
        """Main reason of each candidate.

        Near the history, a liked category, popular, to explore.
        """
        owner = np.arange(len(found.row))[:, None]
        liked = taste.category[owner, self._stats.category[found.row]] >= LIKED
        popular = np.zeros(len(self._keys), bool)
        popular[self._lookalike.rows[:POPULAR]] = True
        reason = np.where(popular[found.row], np.uint8(Reason.POPULAR), np.uint8(Reason.EXPLORE))
        reason[liked] = Reason.CATEGORY
        reason[found.tower >= NEAR * self._scale] = Reason.BOUGHT_TOGETHER
        return reason

    def _warmed(self, picks: Picks, known: Known, tokens: Tokens, usable: Mask) -> Picks:
        """Picks of those with little history.

        Mixed with what subscribers of a like profile take.
        """
        items = np.bincount(known.owner, minlength=len(tokens))
        cool = np.flatnonzero(items < WARM_ITEMS)
        if not len(cool):
            return picks
        rows = self._lookalike.rows
        chances = self._lookalike.probabilities(tokens[cool]) * usable[rows]
        position = np.full(len(self._keys), -1)
        position[rows] = np.arange(len(rows))
        place = np.full(len(tokens), -1)
        place[cool] = np.arange(len(cool))
        had = (place[known.owner] >= 0) & (position[known.row] >= 0)
        chances[place[known.owner[had]], position[known.row[had]]] = 0
        weight = (items[cool] / WARM_ITEMS).astype(np.float32)[:, None]
        return picks.mixed(cool, weight, rows, chances)


def _head(artifact: Artifact, name: str, features: int) -> Head:
    prefix = f"{name}."
    weights = {
        key.removeprefix(prefix): torch.from_numpy(value)
        for key, value in artifact.heads.items()
        if key.startswith(prefix)
    }
    head = Head(features, len(weights["deep.0.bias"]))
    head.load_state_dict(weights)
    return head.eval()
