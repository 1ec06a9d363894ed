"""The state of the data behind the mails: what there is, and how old."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import polars as pl

from reco.models.registry import champion
from reco.subscribers.store import SubscriberStore
from serve.stores import Stores

OLD_DAYS: Final = 7  # after so many days features count as old


@dataclass(frozen=True, slots=True)
class Events:
    """Events of one type."""

    type: str
    count: int
    users: int
    last_at: datetime | None


@dataclass(frozen=True, slots=True)
class Health:
    """Data of one installation; `warnings` say what mails suffer from."""

    events: tuple[Events, ...]
    items: int
    in_stock: int
    subscribers: int
    features_of: datetime | None
    featured: int  # subscribers with an online row at the last load
    model: str
    quarantined: dict[str, int]  # rows put aside, by file
    warnings: tuple[str, ...]


def data_health(stores: Stores) -> Health:
    """Look at every store. Raises ServiceUnavailable when one does not answer."""
    events = _events(stores)
    meta, model = stores.online.meta(), champion(stores.redis)
    items = stores.lake.items()
    stocked = int(((items["stock"] > 0) | items["stock"].is_null()).sum())
    folder = stores.services.home / "quarantine"
    return Health(
        events=events,
        items=items.height,
        in_stock=stocked,
        subscribers=SubscriberStore(stores.engine).count(),
        features_of=meta.as_of if meta else None,
        featured=meta.subscribers if meta else 0,
        model=model.version if model else "",
        quarantined={p.name: _rows(p) for p in sorted(folder.glob("*.parquet"))},
        warnings=_warnings(events, meta.as_of if meta else None, model is not None, stocked),
    )


def _events(stores: Stores) -> tuple[Events, ...]:
    found = (
        stores.lake.events(columns=["type", "user_id", "timestamp"])
        .group_by("type")
        .agg(pl.len(), pl.col("user_id").n_unique().alias("users"), pl.col("timestamp").max())
        .sort("len", descending=True)
        .collect()
    )
    return tuple(Events(*row) for row in found.iter_rows())


def _rows(path: object) -> int:
    rows: int = pl.scan_parquet(str(path)).select(pl.len()).collect().item()
    return rows


def _warnings(
    events: tuple[Events, ...], features_of: datetime | None, modelled: bool, stocked: int
) -> tuple[str, ...]:
    found = []
    if not events:
        found.append("There are no events: run `reco import events FILE`.")
    if not stocked:
        found.append("No item is in stock, so there is nothing to show: run `reco import items`.")
    if not modelled:
        found.append("No model was promoted, so mails show what is popular: run `reco train`.")
    if features_of is None:
        found.append("Nobody has features online: run `reco features`.")
    elif (datetime.now(UTC) - features_of).days > OLD_DAYS:
        found.append(f"Features are as of {features_of:%Y-%m-%d}: run `reco features`.")
    return tuple(found)
