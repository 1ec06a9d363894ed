"""Online against offline: what is served, and what the lake says should be served.

Takes the lake and the online store, gives every difference; also while a stream runs, since only
users whose events are all in the rows, by the mark of their bucket, are compared.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from reco.catalogue import Catalogue
from reco.events.lake import Lake
from reco.features.definitions import USER_FEATURES, read_users
from reco.features.history import Histories, cutoff_day, from_events
from reco.features.items import ItemFacts
from reco.features.live import COLUMNS
from reco.features.online import OnlineStore
from reco.features.profile import read_profiles
from reco.features.targets import strongest
from reco.features.view import Context, Floats
from reco.subscribers.store import SubscriberStore
from reco.tables import type_code
from reco.terminal import Report

TOLERANCE: Final = 1e-6  # of a feature, relative above 1
EXAMPLES: Final = 20
EXAMPLES_EACH: Final = 2  # of one user
CHUNK: Final = 4_096  # users compared at once
ATTEMPTS: Final = 5  # to find a bucket at rest
PROFILE: Final = "profile"


@dataclass(frozen=True, slots=True)
class Difference:
    """A value of a user that is not what it should be; NaN is unknown."""

    user_id: str
    feature: str
    online: float
    offline: float


@dataclass(slots=True)
class Verification:
    """What a comparison found."""

    compared: int = 0  # users
    pending: int = 0  # users whose events are on their way into the rows
    differing: int = 0  # users with a difference
    largest: float = 0.0  # difference of any feature
    features: Counter[str] = field(default_factory=Counter)  # users that differ, by feature
    examples: list[Difference] = field(default_factory=list)

    def add(self, users: Sequence[str], online: Floats, offline: Floats) -> None:
        """Compare [n, f] values of users; two that are unknown are equal."""
        both = np.isnan(online) & np.isnan(offline)
        gap = np.where(both, 0.0, np.abs(online.astype(np.float64) - offline))
        wrong = ~(gap <= TOLERANCE * np.maximum(np.abs(offline), 1.0)) & ~both
        self.compared += len(users)
        self.differing += int(wrong.any(axis=1).sum())
        self.largest = max(self.largest, float(np.nanmax(gap, initial=0.0)))
        for i in np.flatnonzero(wrong.any(axis=1)).tolist():
            columns = np.flatnonzero(wrong[i]).tolist()
            self.features.update(USER_FEATURES[j].name for j in columns)
            for j in columns[: min(EXAMPLES_EACH, EXAMPLES - len(self.examples))]:
                values = (float(online[i, j]), float(offline[i, j]))
                self.examples.append(Difference(users[i], USER_FEATURES[j].name, *values))


def verify(
    lake: Lake,
    online: OnlineStore,
    store: SubscriberStore | None,
    as_of: datetime,
    *,
    sample: int | None = None,
    progress: Report | None = None,
    buckets: Sequence[int] | None = None,
) -> Verification:
    """Recompute features of all users, or of about `sample` random ones, and compare.

    With `store` the profiles are compared too. Raises ServiceUnavailable, ModelMismatch.
    """
    found = Verification()
    target = type_code(strongest(lake.manifest().types()))
    context = Context(cutoff_day(as_of), ItemFacts.of(Catalogue.of(lake.items())), target)
    chosen = range(lake.buckets) if buckets is None else buckets
    share = None if sample is None else -(-sample // len(chosen))
    for done, bucket in enumerate(chosen, start=1):
        users, held, offline = _at_rest(lake, online, bucket, share, found)
        for start in range(0, len(users), CHUNK):
            stop = min(start + CHUNK, len(users))
            ours = read_users(held.take(start, stop), context)
            found.add(users[start:stop], ours, read_users(offline.take(start, stop), context))
        if store is not None:
            _compare_profiles(found, users, held, store)
        if progress is not None:
            progress("verify", done, len(chosen))
    return found


def _at_rest(
    lake: Lake, online: OnlineStore, bucket: int, share: int | None, found: Verification
) -> tuple[list[str], Histories, Histories]:
    """Users of a bucket, their rows, and what the rows should be, as of one mark."""
    for _ in range(ATTEMPTS):
        mark = online.mark(bucket)
        live = lake.manifest()
        if mark is None or mark.loading:
            continue
        events = lake.read_bucket(bucket, before=mark.before, columns=COLUMNS, live=live)
        moving = lake.users_since(live, bucket, mark.version)
        users = sorted(set(events["user_id"].unique()).difference(moving))
        if share is not None and len(users) > share:
            picked = np.random.default_rng().choice(len(users), share, replace=False)
            users = [users[i] for i in np.sort(picked).tolist()]
        held, _known = online.held(users)
        if online.mark(bucket) == mark:
            found.pending += len(moving)
            return users, held, from_events(events, users, held.tokens, held.flags)
    found.pending += len(lake.users_since(lake.manifest(), bucket, -1))
    none = Histories.unpack([])
    return [], none, none


def _compare_profiles(
    found: Verification, users: Sequence[str], held: Histories, store: SubscriberStore
) -> None:
    tokens, flags = read_profiles(store, users)
    width = max(tokens.shape[1], held.tokens.shape[1])
    ours, theirs = (_widened(t, width) for t in (held.tokens, tokens))
    for i in np.flatnonzero((ours != theirs).any(axis=1) | (held.flags != flags)).tolist():
        found.features[PROFILE] += 1
        if len(found.examples) < EXAMPLES:
            found.examples.append(
                Difference(users[i], PROFILE, float(held.flags[i]), float(flags[i]))
            )


def _widened(tokens: npt.NDArray[np.uint32], width: int) -> npt.NDArray[np.uint32]:
    return np.pad(tokens, ((0, 0), (0, width - tokens.shape[1])))
