"""What a table lacks, said once, with what gets weaker for it."""

from collections.abc import Collection
from typing import Final

WEAKER: Final = {
    "events": {
        "item_id": "no item_id: nothing can be learnt about items from these events",
        "value": "no value: features of money are off for these events",
        "basket_id": "no basket_id: what goes together is learnt by the day",
    },
    "items": {
        "title": "no title: made from category and id",
        "category": "no category: diversity, preferred categories and lookalikes are weaker",
        "brand": "no brand: new items are harder to place",
        "price": "no price: mails show none, the price band is off",
        "url": "no url: links in mails lead to the public address",
        "image_url": "no image_url: mails show no picture of the item",
    },
    "subscribers": {
        "email": "no email: they are recommended to, never mailed",
        "first_name": "no first_name: mails greet without a name",
        "timezone": "no timezone: hours are those of UTC",
        "consent": "no consent: new subscribers count as having given it",
    },
}


def what_is_missing(table: str, columns: Collection[str]) -> list[str]:
    """A sentence for each column that the source lacks and that somebody will miss."""
    return [note for name, note in WEAKER[table].items() if name not in columns]
