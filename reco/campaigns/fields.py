"""Names that the conditions of a campaign may ask for; a misspelt one would fit nobody."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Final, TypeVar

from reco.features.definitions import USER_FEATURES
from reco.subscribers.store import Subscriber

ATTRIBUTE: Final = "attributes."  # and the name that the shop gave
PROFILE: Final = frozenset(f.name for f in fields(Subscriber)) - {"attributes"}
FEATURES: Final = frozenset(f.name for f in USER_FEATURES)
V = TypeVar("V")


def of_profile(when: Mapping[str, V]) -> Mapping[str, V]:
    """`when`; raises ValueError when it asks for what is no field of a profile."""
    return _known(when, PROFILE, "no field of a profile")


def of_profile_or_feature(when: Mapping[str, V]) -> Mapping[str, V]:
    """`when`; raises ValueError when it asks for what is no field and no feature either."""
    return _known(when, PROFILE | FEATURES, "neither a field of a profile nor a feature")


def _known(when: Mapping[str, V], names: Collection[str], fault: str) -> Mapping[str, V]:
    mistakes = [
        f"{name} is {fault}{_meant(name, names)}"
        for name in when
        if name not in names and not (name.startswith(ATTRIBUTE) and name != ATTRIBUTE)
    ]
    if mistakes:
        raise ValueError(f"{'; '.join(mistakes)}; a column of the shop's own is attributes.<name>")
    return when


def _meant(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, sorted(names), 1)
    return f" (did you mean {near[0]}?)" if near else ""
