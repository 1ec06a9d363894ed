"""Third stage: the picks that are shown. Candidates -> ladder -> rules -> caps -> ladder.

Takes the FeatureChunk and its ScoredChunk, gives a PickedChunk. The ladder climbs first so that the
rules have enough to choose from, and further, by the same rules and caps, for those whom these left
an empty place. What is empty even then is filled bound by blocklist and stock only, because an
empty block is worse than a third apple.
Runs without Ray.
"""

import time
from dataclasses import replace
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import structlog

from reco.catalogue import Catalogue
from reco.errors import RecoError
from reco.features.history import day_of
from reco.features.online import OnlineStore
from reco.models.slates import Reason, Slates
from reco.rules.caps import Caps, Showing, category_keys, first
from reco.rules.exploring import drawn
from reco.rules.fates import followed, settled
from reco.rules.interests import asked_first
from reco.rules.ladder import Keys, Pools, editorial_slates, fill, seeds_of
from reco.rules.promoted import promoted_into
from reco.rules.rules import (
    Bools,
    Bought,
    RuleContext,
    apply,
    blocked_by,
    blocked_rows,
    cut,
    trace,
)
from reco.tables import item_keys
from serve.chunks import (
    LEAST_CANDIDATES,
    MOST_CANDIDATES,
    Choice,
    FeatureChunk,
    Mode,
    PickedChunk,
    ScoredChunk,
    candidates,
)
from serve.popular import Popular
from serve.rows import beside, lines, placed
from serve.shelf import Shelf

log = structlog.get_logger()

POPULAR_BLOCK: Final = 4  # places in the block of favourites, beside the picks
CAPS_DOWN: Final = "caps_unavailable"


class Picker:
    """Chooses what each recipient is shown. Threads may share it."""

    def __init__(
        self, catalogue: Catalogue, online: OnlineStore, caps: Caps, shelf: Shelf | None = None
    ) -> None:
        self._catalogue = catalogue
        self._caps = caps
        self._shelf = shelf
        self._popular = Popular(online)
        self._novel = False
        self._blocked = lru_cache(maxsize=64)(self._blocked_rows)

    def pick(self, chunk: FeatureChunk, scored: ScoredChunk) -> PickedChunk:
        """Slates [n, picks] with no empty place while anything is allowed and in stock."""
        started = time.perf_counter()
        choice, mode = chunk.request.choice, chunk.request.mode
        context = self._context(chunk, scored)
        pools = Pools.of(
            self._catalogue,
            context.allowed,
            self._popular.keys(choice.as_of),
            item_keys(choice.editorial),
        )
        seeds = seeds_of(chunk.recipients.user_ids, choice.by)
        static = _in(chunk, choice.static)
        width = candidates(choice, mode)
        slates = cut(scored.slates, width)
        slates = placed(slates, static, editorial_slates(pools, int(static.sum()), width))
        slates = fill(slates, width, pools, seeds)
        slates = asked_first(
            slates, chunk.recipients.interests, pools, self._catalogue, choice.picks
        )
        explores = chunk.personal & _in(chunk, choice.explore)
        slates = self._promoted(choice, slates, chunk.personal & ~explores, seeds)
        removed = self._removed(slates, context) if mode is Mode.CHECK and len(slates) == 1 else {}
        considered = slates
        slates, fates = followed(slates, context)
        slates, chances = drawn(slates, explores, seeds)
        chosen, fallback = self._capped(chunk, slates)
        ruled, left = slates, cut(slates.keep(chosen), choice.picks)
        if (left.items == 0).any():
            more = _beyond(considered, left, pools, seeds)
            # No diversity: what is chosen keeps its place.
            more = apply(more, replace(context, diversity=0.0))
            mask, late = self._capped(chunk, more)
            left, fallback = more.keep(mask), fallback or late
        slates = self._filled(left, context, choice.picks, pools, seeds)
        fates = settled(fates, considered, ruled, chosen, choice.picks, slates)
        # A mail with a place that was not drawn says nothing of chances.
        chances = np.where((slates.reasons == Reason.EXPLORE).all(axis=1), chances, 0.0)
        return PickedChunk(
            slates=slates,
            candidates=considered,
            fates=fates,
            popular=pools.popular[: choice.picks + POPULAR_BLOCK],
            chances=chances,
            model_version=scored.model_version,
            features_version=self._popular.version,
            fallback=scored.fallback or fallback,
            removed=removed,
            took_ms=scored.took_ms | {"rules": (time.perf_counter() - started) * 1e3},
        )

    def _context(self, chunk: FeatureChunk, scored: ScoredChunk) -> RuleContext:
        choice = chunk.request.choice
        return RuleContext(
            catalogue=self._catalogue,
            blocked=self._blocked(choice),
            bought=Bought.of(chunk.histories, 0) if self._is_novel(choice, scored) else None,
            max_per_category=choice.rules.max_per_category,
            diversity=choice.rules.diversity,
            refused={
                i: blocked_rows(self._catalogue, refused.items, refused.categories, refused.brands)
                for i, refused in chunk.recipients.refused.items()
            },
            stocked=self._shelf.in_stock() if self._shelf else None,
        )

    def _is_novel(self, choice: Choice, scored: ScoredChunk) -> bool:
        """Whether items bought before are left out; without a scorer as the last one said it."""
        if scored.novel is None:
            return self._novel
        if choice.rules.seen == "auto":
            self._novel = scored.novel
        return scored.novel

    def _capped(self, chunk: FeatureChunk, slates: Slates) -> tuple[Bools, str]:
        """Mask of the first picks below the cap, reserved when the mails are for sending."""
        choice, mode = chunk.request.choice, chunk.request.mode
        showing = showing_of(choice, day_of(chunk.now))
        if showing is None or mode is Mode.RECOMMEND:
            return first(slates.items, choice.picks), ""
        try:
            mask = self._chosen(chunk, slates, showing)
        except RecoError as error:
            log.warning("caps are not checked", why=str(error))
            return first(slates.items, choice.picks), CAPS_DOWN
        return mask, ""

    def _chosen(self, chunk: FeatureChunk, slates: Slates, showing: Showing) -> Bools:
        """The caps' mask, reserved when the mails are for sending."""
        choice, mails = chunk.request.choice, chunk.recipients.deliveries
        reserve = chunk.request.mode is Mode.SEND
        cap, items, width = choice.rules.category_cap, slates.items, slates.items.shape[1]
        if cap is not None:
            of_category = Showing(showing.by, showing.day, cap.times, cap.days)
            keys = self._category_keys(items)
            below = self._caps.choose(of_category, mails, keys, width, reserve=False)
            items = np.where(below | (keys == 0), items, 0)
        mask = first(items, choice.picks)
        if choice.rules.frequency_cap is not None:
            mask = self._caps.choose(showing, mails, items, choice.picks, reserve=reserve)
        if cap is not None and reserve:
            # Another campaign may have been faster since the look above.
            shown = np.where(mask, keys, 0)
            granted = self._caps.choose(of_category, mails, shown, width, reserve=True)
            mask &= granted | (keys == 0)
        return mask

    def _filled(
        self,
        left: Slates,
        context: RuleContext,
        picks: int,
        pools: Pools,
        seeds: npt.NDArray[np.uint64],
    ) -> Slates:
        """No place empty while anything is allowed, in stock, and not refused by the subscriber."""
        slates = fill(left, picks, pools, seeds)
        for i, refused in context.refused.items():
            mine = pools.without(refused, self._catalogue)
            slates = placed(
                slates,
                np.arange(len(slates)) == i,
                fill(lines(left, [i]), picks, mine, seeds[[i]]),
            )
        return slates

    def _category_keys(self, items: Keys) -> Keys:
        """Key of the category of each item, 0 for none; in any shape."""
        keys = np.append(category_keys(self._catalogue.category_names), np.uint64(0))
        rows = self._catalogue.index.rows(items)
        codes = np.append(self._catalogue.category, np.int32(-1))[rows]
        return np.asarray(keys[codes], np.uint64)

    def _promoted(
        self, choice: Choice, slates: Slates, who: Bools, seeds: npt.NDArray[np.uint64]
    ) -> Slates:
        promotion = choice.rules.promoted
        if promotion is None:
            return slates
        slots = min(promotion.slots, choice.picks)
        where = choice.picks - slots
        return promoted_into(slates, who, promotion.items, where, slots, promotion.share, seeds)

    def _removed(self, slates: Slates, context: RuleContext) -> dict[str, list[str]]:
        """Item ids that each rule takes from a single slate."""
        out: dict[str, list[str]] = {}
        before = slates.items[0]
        for name, after in trace(slates, context):
            gone = np.setdiff1d(before[before != 0], after.items[0])
            rows = self._catalogue.index.rows(gone)
            if len(gone):
                out[name] = [str(self._catalogue.item_ids[row]) for row in rows if row >= 0]
            before = after.items[0]
        return out

    def _blocked_rows(self, choice: Choice) -> Bools:
        return blocked_by(self._catalogue, choice.rules)


def _in(chunk: FeatureChunk, arms: frozenset[str]) -> Bools:
    """Who is in one of these arms."""
    return np.array([arm in arms for arm in chunk.recipients.arms], np.bool_)


def _beyond(
    considered: Slates, left: Slates, pools: Pools, seeds: npt.NDArray[np.uint64]
) -> Slates:
    """Slates `left` [n, picks], and behind those with an empty place what was no candidate yet."""
    picks, width = left.items.shape[1], considered.items.shape[1]
    short = (left.items == 0).any(axis=1)
    rows = np.flatnonzero(short).tolist()
    more = max(MOST_CANDIDATES - picks, LEAST_CANDIDATES)
    wide = fill(lines(considered, rows), width + more, pools, seeds[rows])
    new = wide.take(np.tile(np.arange(width, width + more), (len(rows), 1)))
    return beside(left, placed(Slates.empty(len(left), more), short, new))


def showing_of(choice: Choice, day: int) -> Showing | None:
    """How showings of a mail are counted; None without a cap."""
    cap = choice.rules.frequency_cap or choice.rules.category_cap
    return Showing(choice.by, day, cap.times, cap.days) if cap else None


def unscored(chunk: FeatureChunk, reason: str) -> ScoredChunk:
    """What is left of a chunk when no scorer answers: the fresh slates, the rest is empty."""
    choice = chunk.request.choice
    slates = cut(chunk.fresh, candidates(choice, chunk.request.mode))
    novel = None if choice.rules.seen == "auto" else choice.rules.seen == "drop"
    return ScoredChunk(slates, chunk.fresh_version, novel, chunk.fallback or reason)
