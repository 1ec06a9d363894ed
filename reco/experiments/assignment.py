"""Who gets what: subscribers to arms by a salted hash; no state, no database, no random generator.

Takes subscriber ids, gives arm names. The same id gets the same arm in every process and for ever.
Holdout, inclusion and variant hash with separate salts, so changing one never moves another.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from reco.errors import ConfigError

HOLDOUT: Final = "holdout"  # kept out of every experiment, to measure personalization as a whole
OUTSIDE: Final = "outside"  # not in this experiment


@dataclass(frozen=True, slots=True)
class Experiment:
    """Arms with their weights in declared order, and the share of subscribers that takes part.

    Raises ConfigError when no arm has weight, a weight or the share is out of range,
    or an arm has a reserved name.
    """

    salt: str
    weights: Mapping[str, float]
    share: float = 1.0  # 0..1 of those outside the holdout

    def __post_init__(self) -> None:
        _check_salt(self.salt)
        _check_share(f"Experiment {self.salt!r}", self.share)
        edges(self.weights)
        reserved = sorted({HOLDOUT, OUTSIDE} & self.weights.keys())
        if reserved:
            raise ConfigError(
                f"Experiment {self.salt!r} has an arm named {reserved[0]!r}.",
                "The name is kept for subscribers outside the experiment.",
                "Rename the arm.",
            )


@dataclass(frozen=True, slots=True)
class Holdout:
    """The global holdout: one salt for all experiments, changed once a quarter.

    Raises ConfigError when the share is not within 0..1.
    """

    salt: str
    share: float = 0.05

    def __post_init__(self) -> None:
        _check_salt(self.salt)
        _check_share(f"Holdout {self.salt!r}", self.share)


def assign(
    experiment: Experiment, user_ids: Sequence[str], *, holdout: Holdout | None = None
) -> list[str]:
    """Arm of each subscriber, or HOLDOUT, or OUTSIDE.

    A larger share only moves subscribers from OUTSIDE into an arm; a smaller one only back.
    """
    out = np.array(arms(experiment.salt, user_ids, experiment.weights), dtype=object)
    out[positions(f"{experiment.salt}/inclusion", user_ids) >= experiment.share] = OUTSIDE
    if holdout is not None:
        out[positions(f"{holdout.salt}/holdout", user_ids) < holdout.share] = HOLDOUT
    return [str(arm) for arm in out]


def arms(salt: str, user_ids: Sequence[str], weights: Mapping[str, float]) -> list[str]:
    """Arm of each subscriber: the weights are cumulative ranges of [0, 1) in declared order.

    Weights need not add up to 1. Raises ConfigError when none is above 0 or one is negative.
    """
    _check_salt(salt)
    names, bounds = list(weights), edges(weights)
    chosen = np.searchsorted(bounds[:-1], positions(salt, user_ids), side="right")
    return [names[i] for i in chosen.tolist()]


def positions(salt: str, user_ids: Sequence[str]) -> npt.NDArray[np.float64]:
    """Position of each subscriber in [0, 1): the first 53 of 64 bits of BLAKE2b("salt:user_id")."""
    # A copy of the hashed prefix per subscriber is about twice as fast as formatting the whole key.
    prefix = hashlib.blake2b(f"{salt}:".encode())
    heads = bytearray()
    for user_id in user_ids:
        hashed = prefix.copy()
        hashed.update(user_id.encode())
        heads += hashed.digest()[:8]
    # 53 bits are exact in a float64; all 64 could round up to 1.0, which no range holds.
    kept = np.frombuffer(heads, ">u8") >> np.uint64(11)
    return np.ldexp(kept.astype(np.float64), -53)


def edges(weights: Mapping[str, float]) -> npt.NDArray[np.float64]:
    """Upper end of the range of each arm; the last is exactly 1. Raises ConfigError."""
    bad = {arm: w for arm, w in weights.items() if not math.isfinite(w) or w < 0}
    total = math.fsum(weights.values()) if not bad else 0.0
    if bad or total <= 0:
        why = f"These are not: {bad}." if bad else f"They are {dict(weights)}."
        raise ConfigError(
            "Arm weights must be finite, not negative, and one must be above 0.",
            why,
            "Give every arm a weight, for example {control: 0.1, personal: 0.9}.",
        )
    sums = np.cumsum(list(weights.values()), dtype=np.float64)
    bounds: npt.NDArray[np.float64] = sums / sums[-1]
    return bounds


def _check_salt(salt: str) -> None:
    if not salt:
        raise ConfigError(
            "The salt of an assignment is empty.",
            "Every experiment without a salt would draw the same groups.",
            "Use the campaign's or the experiment's id as its salt.",
        )


def _check_share(owner: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ConfigError(f"{owner} has a share of {share}.", "It must lie in 0..1.", "Correct it.")
