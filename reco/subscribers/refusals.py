"""What a subscriber does not want to be shown: lists in their profile, whoever wrote them there.

`refused_items`, `refused_categories` and `refused_brands` are attributes of the profile.
"""

from dataclasses import dataclass

from reco.subscribers.store import Subscriber


@dataclass(frozen=True, slots=True)
class Refusals:
    """Names of items, categories and brands."""

    items: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    brands: tuple[str, ...] = ()


def refusals_of(person: Subscriber) -> Refusals | None:
    """None for who refuses nothing, as most do."""
    if not any(name.startswith("refused_") for name in person.attributes):
        return None
    lists = (_named(person, f"refused_{kind}") for kind in ("items", "categories", "brands"))
    found = Refusals(*lists)
    return found if found != Refusals() else None


def _named(person: Subscriber, attribute: str) -> tuple[str, ...]:
    said = person.attributes.get(attribute)
    if isinstance(said, str):  # a column of a file: names with commas between them
        said = [name.strip() for name in said.split(",")]
    return tuple(str(name) for name in said if name) if isinstance(said, list) else ()
