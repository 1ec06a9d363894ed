"""Profile of a subscriber as hashed tokens, the form in which it travels beside the history."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

from reco.features.history import NO_PROFILING
from reco.subscribers.store import Subscriber, SubscriberStore

PROFILE_FIELDS: Final = ("region", "language", "device", "plan", "signup_source")
PAGE: Final = 5_000  # subscribers a query
WIDTH: Final = 16  # tokens a subscriber: the fields above, then attributes by name


def tokens_of(profiles: Sequence[Mapping[str, object]]) -> npt.NDArray[np.uint32]:
    """Tokens [n, WIDTH] of profiles: hash of "field=value", 0 where there is none.

    A profile holds PROFILE_FIELDS and a mapping `attributes`; those beyond the width are left out.
    """
    out = np.zeros((len(profiles), WIDTH), np.uint32)
    for i, profile in enumerate(profiles):
        attributes = profile.get("attributes") or {}
        pairs = [(f, profile.get(f)) for f in PROFILE_FIELDS]
        if isinstance(attributes, Mapping):
            pairs += [(f"attributes.{name}", attributes[name]) for name in sorted(attributes)]
        for j, (name, value) in enumerate(pairs[:WIDTH]):
            if value is not None:
                out[i, j] = xxhash.xxh32_intdigest(f"{name}={value}".encode()) or 1
    return out


def profiles_of(
    subscribers: Sequence[Subscriber | None],
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint16]]:
    """Tokens [n, WIDTH] and flags [n] of subscribers; None, and who refuses profiling, has none."""
    refused = [s is not None and not s.consent_profiling for s in subscribers]
    profiles = [
        {}
        if s is None or no
        else {f: getattr(s, f) for f in PROFILE_FIELDS} | {"attributes": s.attributes}
        for s, no in zip(subscribers, refused, strict=True)
    ]
    return tokens_of(profiles), np.where(refused, NO_PROFILING, 0).astype(np.uint16)


def read_profiles(
    store: SubscriberStore | None, users: Sequence[str]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint16]]:
    """Tokens [n, WIDTH] and flags [n] of users, from the database where there is one.

    Raises ServiceUnavailable.
    """
    if store is None:
        return profiles_of([None] * len(users))
    pages = [store.get(users[start : start + PAGE]) for start in range(0, len(users), PAGE)]
    return profiles_of([subscriber for page in pages for subscriber in page])
