"""What a subscriber said they want to see more of: their own word, kept with their profile."""

import json
from collections.abc import Sequence
from typing import Final

from sqlalchemy import text
from sqlalchemy.engine import Engine

from reco.subscribers.store import Subscriber

ATTRIBUTE: Final = "interests"  # of the profile, so that segments and features see it too
_WRITE: Final = text(
    "UPDATE subscribers SET attributes = attributes || cast(:value AS jsonb), updated_at = now() "
    "WHERE user_id = :user_id"
)


def interests_of(person: Subscriber) -> tuple[str, ...]:
    """Names of categories, in alphabetical order; empty for who said nothing."""
    said = person.attributes.get(ATTRIBUTE)
    return tuple(str(name) for name in said) if isinstance(said, list) else ()


def write_interests(engine: Engine, user_id: str, interests: Sequence[str]) -> bool:
    """Set what somebody asked for, instead of what they said before; whether we know them."""
    value = json.dumps({ATTRIBUTE: sorted(set(interests))})
    with engine.begin() as connection:
        return connection.execute(_WRITE, {"value": value, "user_id": user_id}).rowcount == 1
