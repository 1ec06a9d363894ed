"""The state behind every feature: a subscriber's events, compacted by (type, item, day).

Takes events, gives packed rows; training and serving read features from the same bytes.
Merging two histories adds the counts and money of equal (type, item, day), so events may come
late, out of order or in any grouping, and the result is the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash

from reco.errors import ModelMismatch
from reco.tables import item_keys, type_code

# One compacted fact, 16 bytes. `day` counts from 1970-01-01 UTC, 0 where the shop has no times.
# Money is whole hundredths: integers add up to the same sum in any order, floats do not.
# Counts stop at 255, money at 21.4 million a (type, item, day).
RECORD: Final = np.dtype(
    [("item", "<u8"), ("cents", "<i4"), ("day", "<u2"), ("count", "u1"), ("type", "u1")]
)
MOST_COUNT: Final = 255
MOST_CENTS: Final = 2**31 - 1
LAST_DAY: Final = 2**16 - 1
ONE_KEY: Final = 2**63 - 1  # a sort key up to here fits one integer
# Head of a packed row: version, number of profile tokens, flags, hash of the layout, time of the
# last update (s).
HEADER: Final = np.dtype(
    [("version", "u1"), ("tokens", "u1"), ("flags", "<u2"), ("layout", "<u4"), ("updated", "<i8")]
)
VERSION: Final = 1
LAYOUT: Final = xxhash.xxh32_intdigest(f"{VERSION}{RECORD}{HEADER}".encode())
NO_PROFILING: Final = 1  # flag: no consent to profiling; the history is empty and stays unread
DAY_US: Final = 86_400_000_000

Records = npt.NDArray[np.void]


def day_of(when: datetime) -> int:
    """Days since 1970-01-01 of the UTC day in which `when` lies."""
    return int(when.astimezone(UTC).timestamp() // 86_400)


def cutoff_day(as_of: datetime) -> int:
    """First day whose records do not count for `as_of`; records of earlier days all do.

    At midnight UTC that is the day that begins: exactly what happened before `as_of` counts. Later
    in a day it is the next one: records hold no hours, so "now" counts what today has brought so
    far, and a past moment within a day needs a history made from the events before it.
    """
    return -int(-as_of.astimezone(UTC).timestamp() // 86_400)


@dataclass(frozen=True, slots=True)
class Histories:
    """Histories of a chunk of n subscribers, one after the other.

    records  RECORD [r]       sorted by (type, item, day) within a subscriber
    offsets  int64 [n + 1]    records of subscriber i are records[offsets[i]:offsets[i + 1]]
    tokens   uint32 [n, t]    hashes of the profile's "field=value", 0 where there is none
    flags    uint16 [n]       NO_PROFILING
    """

    records: Records
    offsets: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.uint32]
    flags: npt.NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def owner(self) -> npt.NDArray[np.int64]:
        """Subscriber (position in the chunk) of each record."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def money(self) -> npt.NDArray[np.float64]:
        """Money of each record, in units of the currency."""
        return np.asarray(self.records["cents"] / 100.0)

    @classmethod
    def of(
        cls,
        owner: npt.NDArray[np.int64],
        records: Records,
        n: int,
        tokens: npt.NDArray[np.uint32] | None = None,
        flags: npt.NDArray[np.uint16] | None = None,
    ) -> "Histories":
        """Compact records in any order: equal (owner, type, item, day) become one.

        Subscribers flagged NO_PROFILING keep no record.
        """
        tokens = np.zeros((n, 0), np.uint32) if tokens is None else tokens
        flags = np.zeros(n, np.uint16) if flags is None else flags
        allowed = (flags & NO_PROFILING == 0)[owner]
        owner, records = _compact(owner[allowed], records[allowed])
        return cls(records, _offsets(owner, n), tokens, flags)

    def merge(self, other: "Histories") -> "Histories":
        """Both histories of the same chunk of subscribers as one; the newer profile wins."""
        owner = np.concatenate([self.owner, other.owner])
        records = np.concatenate([self.records, other.records])
        tokens = other.tokens if other.tokens.shape[1] else self.tokens
        return Histories.of(owner, records, len(self), tokens, self.flags | other.flags)

    def before(self, day: int) -> "Histories":
        """Only what happened before the UTC day `day`."""
        keep = np.flatnonzero(self.records["day"] < day)
        if len(keep) == len(self.records):
            return self
        offsets = _offsets(self.owner[keep], len(self))
        return Histories(self.records[keep], offsets, self.tokens, self.flags)

    def take(self, start: int, stop: int) -> "Histories":
        """The histories of subscribers start..stop of the chunk."""
        offsets = self.offsets[start : stop + 1]
        return Histories(
            self.records[offsets[0] : offsets[-1]],
            offsets - offsets[0],
            self.tokens[start:stop],
            self.flags[start:stop],
        )

    def pack(self, updated: int = 0) -> list[bytes]:
        """One value a subscriber: HEADER, tokens, records."""
        head = np.zeros(len(self), HEADER)
        head["version"], head["layout"], head["updated"] = VERSION, LAYOUT, updated
        head["tokens"], head["flags"] = self.tokens.shape[1], self.flags
        heads, tokens, body = head.tobytes(), self.tokens.tobytes(), self.records.tobytes()
        h, t, r = HEADER.itemsize, 4 * self.tokens.shape[1], RECORD.itemsize
        ends = (self.offsets * r).tolist()
        return [
            heads[i * h : (i + 1) * h] + tokens[i * t : (i + 1) * t] + body[ends[i] : ends[i + 1]]
            for i in range(len(self))
        ]

    @classmethod
    def unpack(cls, rows: Sequence[bytes | None]) -> "Histories":
        """The chunk behind packed rows; a missing row is a subscriber without history.

        Raises ModelMismatch when a row was written by another layout.
        """
        h = HEADER.itemsize
        empty = cls.of(np.zeros(0, np.int64), np.zeros(0, RECORD), 1).pack()[0]
        filled = [row or empty for row in rows]
        head = np.frombuffer(b"".join([row[:h] for row in filled]), HEADER)
        if len(head) and (head["layout"] != LAYOUT).any():
            raise ModelMismatch(
                "Online features have another layout than this program.",
                "They were written by another version of reco.",
                "Run `reco features` with this version, then try again.",
            )
        profiles = [4 * count for count in head["tokens"].tolist()]  # bytes of tokens of each row
        width = max(profiles, default=0)
        parts = list(zip(filled, profiles, strict=True))
        tokens = b"".join([row[h : h + size].ljust(width, b"\0") for row, size in parts])
        body = b"".join([row[h + size :] for row, size in parts])
        sizes = [(len(row) - h - size) // RECORD.itemsize for row, size in parts]
        return cls(
            np.frombuffer(body, RECORD),
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            np.frombuffer(tokens, np.uint32).reshape(len(filled), width // 4),
            head["flags"].copy(),
        )


def from_events(
    events: pl.DataFrame,
    users: Sequence[str],
    tokens: npt.NDArray[np.uint32] | None = None,
    flags: npt.NDArray[np.uint16] | None = None,
) -> Histories:
    """Histories of `users` (in this order) from rows of tables.EVENTS; other users are left out.

    Money is `value`, or price x quantity where there is none, to the nearest hundredth.
    """
    position = pl.DataFrame(
        {"user_id": pl.Series(users, dtype=pl.String), "owner": np.arange(len(users))}
    )
    codes = {name: type_code(name) for name in events["type"].unique()}
    day = pl.col("timestamp").dt.timestamp("us") // DAY_US
    paid = pl.coalesce("value", pl.col("price") * pl.col("quantity").fill_null(1.0), 0.0)
    facts = (
        events.lazy()
        .join(position.lazy(), on="user_id", how="inner")
        .join(_keys_of(events["item_id"]).lazy(), on="item_id", how="left")
        .select(
            "owner",
            pl.col("type").replace_strict(codes, return_dtype=pl.UInt8),
            pl.col("item").fill_null(0),
            day.clip(0, LAST_DAY).fill_null(0).alias("day"),
            (paid * 100).round().clip(-MOST_CENTS, MOST_CENTS).fill_nan(0.0).alias("cents"),
        )
        .collect()
    )
    records = np.ones(len(facts), RECORD)
    for name in ("item", "type", "day", "cents"):
        records[name] = facts[name].to_numpy()
    return Histories.of(facts["owner"].to_numpy(), records, len(users), tokens, flags)


def _keys_of(item_ids: pl.Series) -> pl.DataFrame:
    """Columns item_id, item (its key): each distinct id is hashed once."""
    names = item_ids.drop_nulls().unique()
    return pl.DataFrame({"item_id": names, "item": item_keys(names.to_list())})


def _offsets(owner: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    return np.searchsorted(owner, np.arange(n + 1)).astype(np.int64)


def _compact(
    owner: npt.NDArray[np.int64], records: Records
) -> tuple[npt.NDArray[np.int64], Records]:
    """Sort by (owner, type, item, day) and add up what is equal."""
    if not len(records):
        return owner, records
    high, low = _sort_keys(owner, records)
    order = np.lexsort((low, high)) if high.any() else np.argsort(low)
    owner, records, high, low = owner[order], records[order], high[order], low[order]
    first = np.ones(len(records), bool)
    first[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    starts = np.flatnonzero(first)
    fact = np.cumsum(first) - 1  # of each record; sums of whole numbers are exact in any order
    out = records[starts]
    out["count"] = np.minimum(np.bincount(fact, records["count"]), MOST_COUNT)
    out["cents"] = np.clip(np.bincount(fact, records["cents"]), -MOST_CENTS, MOST_CENTS)
    return owner[starts], out


def _sort_keys(
    owner: npt.NDArray[np.int64], records: Records
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(owner, type, item, day) as two integers, high then low; high is 0 where one holds it all.

    Sorting one integer is ten times as fast as sorting four columns.
    """
    items, rank = np.unique(records["item"], return_inverse=True)
    day, kind = records["day"].astype(np.int64), records["type"].astype(np.int64)
    first_day, days = int(day.min()), int(day.max() - day.min()) + 1
    low = rank.astype(np.int64) * days + (day - first_day)
    high = owner * 256 + kind
    size = len(items) * days
    fits = (int(high.max()) + 1) * size <= ONE_KEY
    return (np.zeros_like(low), high * size + low) if fits else (high, low)
