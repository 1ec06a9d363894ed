"""Online rows kept equal to the lake: each event counts once, whoever dies at whatever moment.

The lake decides what happened; a row is nothing but a view of it. The mark of a bucket says up to
which version of the lake its rows go (online.Mark), and is written in one step with them:
  a mark that is live at version v, and new rows that took the lake from v to w  ->  add them
  anything else (a batch that died half way, an import, a load as of a time)     ->  rebuild users
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import structlog

from reco.errors import Conflict
from reco.events.lake import Lake, Landed
from reco.features.history import Histories, from_events
from reco.features.online import Mark, OnlineStore, Swap
from reco.features.profile import WIDTH
from reco.tables import user_bucket

COLUMNS: Final = ("user_id", "type", "timestamp", "item_id", "value", "price", "quantity")
CHUNK: Final = 2_048  # rows a write: about 2 MB and 5 ms in which Redis does nothing else
PATIENCE_S: Final = 5.0  # a load that has not moved for so long is dead, and its work done anew
POLL_S: Final = 0.05
# Events that say nothing of what somebody wants: slates that were made before them stay good.
QUIET_TYPES: Final = ("open", "delivery", "bounce", "complaint", "unsubscribe")
ATTEMPTS: Final = 20  # of a load against a stream that keeps writing

log = structlog.get_logger()

Profiles = Callable[[Sequence[str]], tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint16]]]


class LiveRows:
    """The online rows of a lake. `profiles` gives tokens and flags of users without a row."""

    def __init__(self, lake: Lake, online: OnlineStore, profiles: Profiles) -> None:
        self._lake = lake
        self._online = online
        self._profiles = profiles

    def follow(self, buckets: Sequence[int], landed: Sequence[Landed] = ()) -> None:
        """Bring the rows of buckets to the present version of the lake.

        `landed` are rows that this process has just added to the lake, when there were any.
        Raises ServiceUnavailable, ModelMismatch when the rows have another layout.
        """
        added = self._add(landed)
        live = self._lake.manifest()
        for bucket, mark in zip(buckets, self._online.marks(buckets), strict=True):
            if bucket in added or _is_live_at(mark, live.version(bucket)):
                continue
            while not self._rebuild(bucket):
                log.info("rows changed under our hands; looking again", bucket=bucket)

    def refresh(self, users: Sequence[str]) -> int:
        """Read profiles and consents of users anew, which their rows keep otherwise; who changed.

        Raises ServiceUnavailable, ModelMismatch.
        """
        shares: dict[int, list[str]] = {}
        for user in users:
            shares.setdefault(user_bucket(user, self._lake.buckets), []).append(user)
        changed = 0
        for bucket, mine in shares.items():
            for start in range(0, len(mine), CHUNK):
                some = mine[start : start + CHUNK]
                while (done := self._refresh(bucket, some)) is None:
                    log.info("rows changed under our hands; looking again", bucket=bucket)
                changed += done
        return changed

    def redo_gone(self) -> None:
        """Make rows of who lost events in the last upkeep anew, from the lake.

        Raises ServiceUnavailable, ModelMismatch.
        """
        for bucket, users in self._lake.gone().items():
            if self._online.mark(bucket) is None:
                continue
            while not self._rebuild(bucket, users):
                log.info("rows changed under our hands; looking again", bucket=bucket)

    def _refresh(self, bucket: int, users: Sequence[str]) -> int | None:
        """How many of these users had another profile in their row; None if interrupted."""
        mark = self._settled(bucket)
        if mark is None:
            return 0  # no rows yet: who makes them reads the profiles
        held, _ = self._online.held(users)
        tokens, flags = self._profiles(users)
        other = held.flags != flags  # a consent: the past goes, or comes back
        which = np.flatnonzero(other | (_padded(held.tokens) != _padded(tokens)).any(axis=1))
        if not len(which):
            return 0
        some = [users[i] for i in which.tolist()]
        if mark.loading or other.any():
            return len(some) if self._rebuild(bucket, some) else None
        mine, _ = self._online.held(some)  # older ones than of `mark` are not written
        rows = replace(mine, tokens=tokens[which], flags=flags[which])
        self._online.forget_slates(some)
        anew = Mark(mark.version, mark.before)
        return len(some) if self._online.swap(bucket, mark, anew, some, rows) else None

    def _add(self, landed: Sequence[Landed]) -> set[int]:
        """Add new rows where nothing else is missing; the buckets where that was so."""
        marks = self._online.marks([part.bucket for part in landed])
        fitting = [
            (part, mark, part.rows["user_id"].unique().sort().to_list())
            for part, mark in zip(landed, marks, strict=True)
            if _is_live_at(mark, part.before)
        ]
        if not fitting:
            return set()
        users = [user for _, _, some in fitting for user in some]
        events = pl.concat([part.rows for part, _, _ in fitting])
        held, tokens, flags = self._known(users)
        rows = held.merge(from_events(events, users, tokens, flags))
        # Before the rows: whoever dies in between has forgotten a slate for nothing.
        telling = events.filter(~pl.col("type").is_in(QUIET_TYPES))
        self._online.forget_slates(telling["user_id"].unique().to_list())
        swaps, at = [], 0
        for part, mark, some in fitting:
            mine = rows.take(at, at + len(some))
            swaps.append(Swap(part.bucket, mark, Mark(part.version), some, mine))
            at += len(some)
        done = self._online.swap_many(swaps)
        return {one.bucket for one, is_done in zip(swaps, done, strict=True) if is_done}

    def _settled(self, bucket: int) -> Mark | None:
        """The mark, once no other process is replacing the rows any more."""
        mark, since = self._online.mark(bucket), time.monotonic()
        while mark is not None and mark.loading and time.monotonic() < since + PATIENCE_S:
            time.sleep(POLL_S)
            now = self._online.mark(bucket)
            if now != mark:
                mark, since = now, time.monotonic()
        return mark

    def _rebuild(self, bucket: int, anew: Sequence[str] = ()) -> bool:
        """Rows of everybody whose events are not all in, from the lake; False if interrupted.

        Those of `anew` too, with their profiles as they are now.
        """
        mark = self._settled(bucket)
        live = self._lake.manifest()
        version = live.version(bucket)
        trusted = mark is not None and not mark.loading and mark.version <= version
        since, late = (mark.version, mark.before) if mark and trusted else (-1, None)
        users = sorted({*self._lake.users_since(live, bucket, since, late), *anew})
        if users:
            log.info("rebuilding rows", bucket=bucket, users=len(users), since=since)
        events = self._lake.read_bucket(bucket, columns=COLUMNS, live=live)
        events = events.filter(pl.col("user_id").is_in(users))
        _, tokens, flags = self._known(users, anew)
        rows = from_events(events, users, tokens, flags)
        if trusted:
            self._online.forget_slates(users)
        return _write(self._online, bucket, mark, Mark(version), users, rows)

    def _known(
        self, users: Sequence[str], anew: Sequence[str] = ()
    ) -> tuple[Histories, npt.NDArray[np.uint32], npt.NDArray[np.uint16]]:
        """Rows of users, and their profiles: as the rows have them, or by `profiles`.

        The latter for users without a row, and those of `anew`.
        """
        held, known = self._online.held(users)
        tokens, flags, asked = held.tokens, held.flags.copy(), set(anew)
        new = np.flatnonzero(~known | np.array([user in asked for user in users], bool))
        if len(new):
            fresh, flags[new] = self._profiles([users[i] for i in new.tolist()])
            width = max(tokens.shape[1], fresh.shape[1])
            tokens = np.pad(tokens, ((0, 0), (0, width - tokens.shape[1])))
            tokens[new] = 0
            tokens[new, : fresh.shape[1]] = fresh
        return held, tokens, flags


def load_rows(
    online: OnlineStore, bucket: int, mark: Mark, users: Sequence[str], rows: Histories
) -> None:
    """Replace rows of a bucket by those of a batch run, read from the lake at or after `mark`.

    A stream that runs beside it waits, and then adds what the run has not seen.
    Raises Conflict when another process keeps replacing them, ServiceUnavailable.
    """
    for _ in range(ATTEMPTS):
        if _write(online, bucket, online.mark(bucket), mark, users, rows):
            return
    raise Conflict(
        f"The online rows of bucket {bucket} were not replaced.",
        "Another process keeps writing them.",
        "Run one `reco features` at a time.",
    )


def _write(
    online: OnlineStore,
    bucket: int,
    seen: Mark | None,
    mark: Mark,
    users: Sequence[str],
    rows: Histories,
) -> bool:
    """Write rows in chunks, `mark` with the last; False as soon as another process interferes."""
    starts = range(0, max(len(users), 1), CHUNK)
    for start in starts:
        stop = min(start + CHUNK, len(users))
        last = start == starts[-1]
        step = mark if last else Mark(mark.version, mark.before, loading=True)
        part = rows.take(start, stop)
        if not online.swap(bucket, seen, step, users[start:stop], part):
            return False
        seen = step
    return True


def _padded(tokens: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Tokens [n, t] as [n, WIDTH] or wider, 0 where there is none."""
    return np.pad(tokens, ((0, 0), (0, max(WIDTH - tokens.shape[1], 0))))


def _is_live_at(mark: Mark | None, version: int) -> bool:
    return mark is not None and mark.is_live and mark.version == version
