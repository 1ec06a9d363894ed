"""Profile of a subscriber as hashed tokens, the form in which it travels beside the history."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

from reco.features.history import NO_PROFILING
from reco.subscribers.store import Subscriber, SubscriberStore

PROFILE_FIELDS: Final = ("region", "language", "device", "plan", "signup_source")
PAGE: Final = 5_000  # subscribers a query
WIDTH: Final = 16  # tokens a subscriber: the fields above, attributes by name, words of the source
# Where somebody came from often says what they want: /landing/cheese, utm_campaign=cheese-week.
SOURCES: Final = ("signup_source", "landing_page", "referrer", "utm_campaign", "utm_content")
SHORTEST: Final = 4  # letters of a word that says something
WORDS: Final = 4  # of a source


def tokens_of(profiles: Sequence[Mapping[str, object]]) -> npt.NDArray[np.uint32]:
    """Tokens [n, WIDTH] of profiles: hash of "field=value", 0 where there is none.

    A profile holds PROFILE_FIELDS and a mapping `attributes`; a list has a token for each value,
    a source one for each of its words. Those beyond the width are left out.
    """
    out = np.zeros((len(profiles), WIDTH), np.uint32)
    for i, profile in enumerate(profiles):
        for j, (name, value) in zip(range(WIDTH), _said(profile), strict=False):
            if value is not None:
                out[i, j] = token(name, value)
    return out


def token(name: str, value: object) -> int:
    """Hash of a field's value, never 0."""
    return xxhash.xxh32_intdigest(f"{name}={value}".encode()) or 1


def words_of(text: str) -> list[str]:
    """Different words of a text that say something, in lower case; a host's name says nothing."""
    said = re.sub(r"\w+://[^/\s]*", " ", text).lower()
    words = "".join(c if c.isalpha() else " " for c in said).split()
    return list(dict.fromkeys(w for w in words if len(w) >= SHORTEST))


def _said(profile: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Field and value of all that a profile says."""
    given = profile.get("attributes")
    attributes: Mapping[str, object] = given if isinstance(given, Mapping) else {}
    yield from ((name, profile.get(name)) for name in PROFILE_FIELDS)
    for name in sorted(attributes):
        value = attributes[name]
        for one in value if isinstance(value, list) else [value]:
            yield f"attributes.{name}", one
    sources = [profile.get(name) or attributes.get(name) for name in SOURCES]
    words = words_of(" ".join(str(source) for source in sources if source))
    yield from (("source_word", word) for word in words[:WORDS])


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
