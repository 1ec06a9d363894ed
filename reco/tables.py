"""The contract between stages: every Arrow schema, every Redis key, every stable hash."""

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")

EVENTS: Final = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("timestamp", TIMESTAMP),  # null where a shop has none: time features are then off
        pa.field("item_id", pa.string()),
        pa.field("value", pa.float64()),  # money of a purchase, stars of a rating
        pa.field("price", pa.float64()),  # of one unit
        pa.field("currency", pa.string()),
        pa.field("quantity", pa.float64()),
        pa.field("basket_id", pa.string()),
        pa.field("campaign_id", pa.string()),
        pa.field("delivery_id", pa.string()),
        pa.field("slot", pa.int32()),
        pa.field("attributes", pa.string()),  # JSON object of every further column
    ]
)

ITEMS: Final = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("category", pa.string()),
        pa.field("brand", pa.string()),
        pa.field("price", pa.float64()),
        pa.field("currency", pa.string()),
        pa.field("margin", pa.float64()),  # share of the price, 0..1
        pa.field("stock", pa.float64()),  # units; null is "not tracked", which counts as in stock
        pa.field("url", pa.string()),
        pa.field("image_url", pa.string()),
        pa.field("published_at", TIMESTAMP),
        pa.field("attributes", pa.string()),
    ]
)

SUBSCRIBERS: Final = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("email", pa.string()),  # without one: recommended to, never mailed
        pa.field("first_name", pa.string()),
        pa.field("language", pa.string()),
        pa.field("region", pa.string()),
        pa.field("timezone", pa.string()),
        pa.field("device", pa.string()),
        pa.field("plan", pa.string()),
        pa.field("signup_at", TIMESTAMP),
        pa.field("signup_source", pa.string()),
        pa.field("consent", pa.bool_()),  # to marketing mail and profiling; null counts as given
        pa.field("attributes", pa.string()),
    ]
)

RECOMMENDATIONS: Final = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),  # from 1
        pa.field("score", pa.float32()),  # calibrated probability, 0..1
        pa.field("reason", pa.string()),
    ]
)

TABLES: Final = {"events": EVENTS, "items": ITEMS, "subscribers": SUBSCRIBERS}
REQUIRED: Final = {
    "events": ("user_id", "type", "timestamp"),
    "items": ("item_id",),
    "subscribers": ("user_id",),
}

# Event types are an open vocabulary. The known ones have a fixed code; any other gets one by hash.
KNOWN_TYPES: Final = (
    "purchase", "click", "open", "view", "cart", "checkin", "rating", "redemption", "preference",
    "unsubscribe", "complaint", "bounce", "signup", "like", "delivery",
)  # fmt: skip


def type_code(event_type: str) -> int:
    """Code of an event type in a packed history, 1..255; the known types keep theirs for ever."""
    if event_type in KNOWN_TYPES:
        return KNOWN_TYPES.index(event_type) + 1
    return 16 + xxhash.xxh32_intdigest(event_type.encode()) % 240


def item_key(item_id: str) -> int:
    """Stable 64-bit key of an item id; 0 is kept for "no item"."""
    return xxhash.xxh3_64_intdigest(item_id.encode()) or 1


def item_keys(item_ids: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Keys of many item ids, in their order."""
    return np.fromiter((item_key(i) for i in item_ids), dtype=np.uint64)


def user_bucket(user_id: str, buckets: int) -> int:
    """Bucket of the lake in which all of a user's events lie."""
    return xxhash.xxh3_64_intdigest(user_id.encode()) % buckets


def latency_table(campaign_id: str) -> str:
    """Table of the lake with how long a campaign's chunks took in each stage (serve.latency)."""
    return f"campaigns/{campaign_id}/latency"


# Redis keys. One packed value a subscriber, read by MGET in chunks.
def history_key(user_id: str) -> str:
    """Packed profile and event history (reco.features.history)."""
    return f"reco:h:{user_id}"


def rows_key(bucket: int) -> str:
    """How far the histories of a bucket of the lake are (reco.features.online.Mark)."""
    return f"reco:meta:rows:{bucket:02d}"


def topk_key(user_id: str) -> str:
    """Precomputed slate (reco.models.slates), with a TTL."""
    return f"reco:k:{user_id}"


def cap_key(user_id: str) -> str:
    """Items shown lately: a hash of item key -> count, per window (reco.rules.caps)."""
    return f"reco:c:{user_id}"


def contact_key(user_id: str) -> str:
    """Mails written to a subscriber lately: minute and delivery of each (reco.rules.contact)."""
    return f"reco:m:{user_id}"


FEATURES_META_KEY: Final = "reco:meta:features"  # JSON: as_of, schema hash, subscribers
CHAMPION_KEY: Final = "reco:meta:champion"  # JSON: version, directory of the artifact
PROFILES_KEY: Final = "reco:meta:profiles"  # until when changed profiles are in the rows, ISO 8601
