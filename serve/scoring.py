"""Second stage: candidates for every recipient who gets picks of their own.

Takes a FeatureChunk, gives a ScoredChunk: fresh precomputed slates where the same model made them
and enough of them may be shown, else the model's, joined with what the moment adds
(serve.occasions). Without a model the slates stay empty and say why; the ladder fills them. Runs
without Ray.
"""

import time
from functools import lru_cache
from typing import Final

import numpy as np
import structlog

from reco.catalogue import Catalogue
from reco.features.history import cutoff_day
from reco.models.scorer import Scorer
from reco.models.slates import Slates
from reco.rules.rules import Bools, Bought, RuleContext, among, blocked_by, cut
from serve.chunks import Choice, FeatureChunk, ScoredChunk, candidates
from serve.occasions import Occasions
from serve.rows import placed, some
from serve.shelf import Shelf

log = structlog.get_logger()

NO_MODEL: Final = "no_model"
MODEL_FAILED: Final = "model_failed"
MODEL_LATER: Final = "model_of_later"  # it has learned from what a replay may not know


class Scoring:
    """Holds the current model; `swap` replaces it between two chunks."""

    def __init__(
        self,
        catalogue: Catalogue,
        scorer: Scorer | None = None,
        occasions: Occasions | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._shelf = shelf
        self._scorer = scorer
        self._occasions = occasions
        self._blocked = lru_cache(maxsize=64)(self._blocked_rows)

    @property
    def version(self) -> str:
        """Version of the current model, "" without one."""
        return self._scorer.version if self._scorer else ""

    def swap(self, scorer: Scorer | None) -> None:
        """Use another model from the next chunk on; chunks under way keep theirs."""
        self._scorer = scorer

    def score(self, chunk: FeatureChunk) -> ScoredChunk:
        """Candidates of each recipient; never raises for what the model does."""
        started = time.perf_counter()
        scorer = self._scorer
        width = candidates(chunk.request.choice, chunk.request.mode)
        novel = _novel(scorer, chunk.request.choice)
        slates, fallback = cut(self._fresh(chunk, scorer), width), chunk.fallback
        wanted = chunk.personal & ~self._enough(chunk, slates, bool(novel))
        if wanted.any() and not fallback:
            if scorer is None:
                fallback = NO_MODEL
            elif _learned_later(scorer, chunk.request.choice):
                fallback = MODEL_LATER
            else:
                slates, fallback = self._live(scorer, chunk, wanted, slates)
        if self._occasions is not None:
            zones = chunk.recipients.timezones or [""] * len(chunk.recipients)
            slates = self._occasions.joined(slates, chunk.now, zones)
        return ScoredChunk(
            slates=slates,
            model_version=scorer.version if scorer else chunk.fresh_version,
            novel=novel,
            fallback=fallback,
            took_ms={"scorer": (time.perf_counter() - started) * 1e3},
        )

    def _live(
        self, scorer: Scorer, chunk: FeatureChunk, wanted: Bools, slates: Slates
    ) -> tuple[Slates, str]:
        """Slates with the wanted rows scored now; unchanged, and why, when the model fails."""
        choice = chunk.request.choice
        try:
            scored = scorer.score(
                some(chunk.histories, wanted),
                chunk.now,
                slates.items.shape[1],
                allowed=self._allowed(choice),
                novel_only=bool(_novel(scorer, choice)),
            )
        except Exception as error:
            # Whatever a model does, the mail goes out.
            log.exception("the model failed", error=str(error))
            return slates, MODEL_FAILED
        return placed(slates, wanted, scored), ""

    def _fresh(self, chunk: FeatureChunk, scorer: Scorer | None) -> Slates:
        """Precomputed slates, unless another model than ours made them."""
        if scorer is None or scorer.version == chunk.fresh_version:
            return chunk.fresh
        return Slates.empty(len(chunk.fresh), 0)

    def _enough(self, chunk: FeatureChunk, slates: Slates, novel: bool) -> Bools:
        """Whose slates [n, w] have as many picks as are shown, without those that may not be."""
        choice = chunk.request.choice
        left = among(self._catalogue, self._allowed(choice), slates.items)
        if novel:
            left &= ~Bought.of(chunk.histories, 0).has(slates.items)
        return np.asarray(left.sum(axis=1) >= choice.picks, np.bool_)

    def _allowed(self, choice: Choice) -> Bools:
        stocked = self._shelf.in_stock() if self._shelf else None
        return RuleContext(self._catalogue, self._blocked(choice), stocked=stocked).allowed

    def _blocked_rows(self, choice: Choice) -> Bools:
        return blocked_by(self._catalogue, choice.rules)


def _learned_later(scorer: Scorer, choice: Choice) -> bool:
    """Whether the model has seen days that lie after the time of a replay."""
    return choice.as_of is not None and scorer.config.as_of_day > cutoff_day(choice.as_of)


def _novel(scorer: Scorer | None, choice: Choice) -> bool | None:
    """Whether items bought before are left out; "auto" asks what kind of shop the model learnt.

    None where that is not known.
    """
    if choice.rules.seen != "auto":
        return choice.rules.seen == "drop"
    return None if scorer is None else not scorer.config.repeats
