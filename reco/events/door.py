"""The door of the event bus: a request with events becomes messages, once they are safely there.

Takes the bytes of a request, gives the ids of its events. What is wrong with a single event is
found by the stream processor, which keeps it among the dead letters with the reason.
"""

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from pydantic_core import from_json

from reco.errors import InputError
from reco.events.bus import Bus
from reco.events.payloads import event_id_of
from reco.tables import user_bucket

MOST_EVENTS: Final = 1_000  # of a request
MOST_BYTES: Final = 5_000_000  # of a request
SIGNED: Final = "sha256="


def accept(body: bytes, bus: Bus, now: datetime, source: str = "") -> list[str]:
    """Put the events of a request on the bus; their ids, in order, once the bus has them all.

    `body` is JSON: an event, a list of events, or {"events": [...]}. An event without a timestamp
    happened now; one without event_id gets a hash of what it says, so that only events with an
    event_id, or with a timestamp, are sure to count once when they are sent again.
    Raises InputError for a body that is no such thing, ServiceUnavailable.
    """
    seen: Counter[str] = Counter()
    messages, ids = [], []
    for event in _events(body):
        if not isinstance(event, dict):
            ids.append("")
            messages.append((0, json.dumps(event).encode()))
            continue
        if not event.get("timestamp"):
            event["timestamp"] = now.isoformat()
        if source:
            event.setdefault("source", source)
        if not event.get("event_id"):
            event["event_id"] = _id_of(event, seen)
        ids.append(str(event["event_id"]))
        messages.append((_shard(event, bus.shards), json.dumps(event).encode()))
    bus.append(messages)
    return ids


def source_key(link_key: bytes, source: str) -> str:
    """Secret with which a source signs its requests."""
    return hmac.new(link_key, b"events/" + source.encode(), hashlib.sha256).hexdigest()


def signature(key: str, body: bytes) -> str:
    """Value of X-Reco-Signature: HMAC-SHA256 of the body in hexadecimal."""
    return SIGNED + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


def is_signed(given: str, key: str, body: bytes) -> bool:
    """Whether a signature is that of the body."""
    return hmac.compare_digest(given.encode(), signature(key, body).encode())


def _events(body: bytes) -> list[Any]:
    try:
        found = from_json(body)
    except ValueError as error:
        raise InputError("The body is no JSON.", str(error), "Send UTF-8 JSON.") from error
    if isinstance(found, dict) and isinstance(found.get("events"), list):
        found = found["events"]
    elif isinstance(found, dict):
        found = [found]
    if not isinstance(found, list) or not 1 <= len(found) <= MOST_EVENTS:
        raise InputError(
            f"The body does not hold 1 to {MOST_EVENTS:,} events.",
            "It is an event, a list of events, or an object with the list under `events`.",
            "Split larger batches.",
        )
    return found


def _id_of(event: Mapping[str, Any], seen: Counter[str]) -> str:
    """Hash of the event; equal ones of a request are told apart by their number."""
    made = event_id_of(json.dumps(event, sort_keys=True).encode())
    seen[made] += 1
    return made if seen[made] == 1 else f"{made}.{seen[made] - 1}"


def _shard(event: Mapping[str, Any], shards: int) -> int:
    user = event.get("user_id")
    return user_bucket(str(user), shards) if user is not None else 0
