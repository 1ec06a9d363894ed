"""Frequency caps: a subscriber sees an item, or a category, at most N times in K days, over all
campaigns.

One Lua call a chunk checks and reserves together, so that two campaigns at once cannot both use the
last showing; what was not sent is released. One hash a subscriber under tables.cap_key: item key
(8 bytes) -> entries of 6 bytes, the UTC day (u16) and the hash of the delivery that showed it
(u32). A mail that is made again counts once; another mail of the same campaign counts like any.
Only campaigns with a cap count their showings; these are forgotten after KEPT_DAYS, or after the
longest window that has been asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import redis
import xxhash
from redis.commands.core import Script

from reco.campaigns.delivery import recipient_of
from reco.errors import ServiceUnavailable
from reco.tables import cap_key, item_keys

Keys = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
Argument = bytes | int

DAY_S: Final = 86_400
KEPT_DAYS: Final = 92  # so that a campaign with a short window keeps what a longer one asks for

# KEYS cap keys; ARGV times, last day that no longer counts, last day that is forgotten, today,
# picks, ttl (0 = look only), then for each key the hash of its delivery (4 bytes) and the
# candidates (8 bytes an item, zeros = none). Gives a bit mask a key, low bit first.
RESERVE: Final = """
local times, past, gone = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local today, picks, ttl = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local none, out = string.rep('\\0', 8), {}
for i, key in ipairs(KEYS) do
  local mine, fields = string.sub(ARGV[6 + i], 1, 4), {}
  for p = 5, #ARGV[6 + i], 8 do fields[#fields + 1] = string.sub(ARGV[6 + i], p, p + 7) end
  local shown = redis.call('HMGET', key, unpack(fields))
  local bits, left, writes = 0, picks, {}
  for j, field in ipairs(fields) do
    if left == 0 then break end
    if field ~= none then
      local old, live, count, known = shown[j] or '', '', 0, false
      for p = 1, #old, 6 do
        local low, high = string.byte(old, p, p + 1)
        local day = low + 256 * high
        if day > gone then live = live .. string.sub(old, p, p + 5) end
        if day > past then
          if string.sub(old, p + 2, p + 5) == mine then known = true else count = count + 1 end
        end
      end
      if known or count < times then
        bits, left = bits + 2 ^ (j - 1), left - 1
        if not known then
          writes[#writes + 1], writes[#writes + 2] = field, live .. today .. mine
        end
      end
    end
  end
  if ttl > 0 and #writes > 0 then
    redis.call('HSET', key, unpack(writes))
    if redis.call('TTL', key) < ttl then redis.call('EXPIRE', key, ttl) end
    if redis.call('HLEN', key) > 256 then
      local all = redis.call('HGETALL', key)
      for a = 1, #all, 2 do
        local low, high = string.byte(all[a + 1], -6, -5)
        if low + 256 * high <= gone then redis.call('HDEL', key, all[a]) end
      end
    end
  end
  out[i] = bits
end
return out
"""

# KEYS cap keys; ARGV the hash of each delivery. Gives back every item and category of it.
FORGET: Final = """
for i, key in ipairs(KEYS) do
  local all = redis.call('HGETALL', key)
  for a = 1, #all, 2 do
    local rest = ''
    for e = 1, #all[a + 1], 6 do
      if string.sub(all[a + 1], e + 2, e + 5) ~= ARGV[i] then
        rest = rest .. string.sub(all[a + 1], e, e + 5)
      end
    end
    if rest == '' then redis.call('HDEL', key, all[a])
    elseif rest ~= all[a + 1] then redis.call('HSET', key, all[a], rest) end
  end
end
return {}
"""


@dataclass(frozen=True, slots=True)
class Showing:
    """Who shows items when, and how often an item may be shown.

    by     id of the campaign
    day    today, UTC, in days since 1970
    times  showings allowed in `days` days
    """

    by: str
    day: int
    times: int
    days: int

    def tag(self, delivery: str) -> bytes:
        """Four bytes that stand for a mail of `by` in an entry."""
        return xxhash.xxh32_digest(f"{self.by}\0{delivery}".encode())


class Caps:
    """Reserves showings in Redis. Holds nothing but the connection, so threads may share it."""

    def __init__(self, client: redis.Redis) -> None:
        self._reserve = client.register_script(RESERVE)
        self._forget = client.register_script(FORGET)

    def choose(
        self, showing: Showing, deliveries: Sequence[str], items: Keys, picks: int, *, reserve: bool
    ) -> Bools:
        """Mask [n, w] of the first `picks` candidates of items [n, w <= 52] that are below the cap.

        `deliveries` [n] are ids in the ledger, of which one recipient may have several. Picks are
        counted as shown with `reserve`; without it nothing changes: for previews.
        Raises ServiceUnavailable when Redis does not answer.
        """
        n, width = items.shape
        if not n or not width:
            return np.zeros((n, width), np.bool_)
        kept_days = max(showing.days, KEPT_DAYS)
        head: list[Argument] = [
            showing.times,
            showing.day - showing.days,
            showing.day - kept_days,
            showing.day.to_bytes(2, "little"),
            picks,
            kept_days * DAY_S if reserve else 0,
        ]
        rows: list[Argument] = [
            showing.tag(delivery) + row.tobytes()
            for delivery, row in zip(deliveries, np.ascontiguousarray(items), strict=True)
        ]
        bits = _call(self._reserve, deliveries, head + rows)
        masks: npt.NDArray[np.int64] = np.array(bits, np.int64)[:, None] >> np.arange(width)
        return np.asarray(masks & 1).astype(np.bool_)

    def forget(self, showing: Showing, deliveries: Sequence[str]) -> None:
        """Give back all that was reserved for these mails: items, and categories.

        Raises ServiceUnavailable when Redis does not answer.
        """
        if deliveries:
            _call(self._forget, deliveries, [showing.tag(delivery) for delivery in deliveries])


def category_keys(names: Sequence[str]) -> Keys:
    """Keys of categories beside those of items, in the same hash."""
    return item_keys(f"category\0{name}" for name in names)


def first(items: Keys, picks: int) -> Bools:
    """The mask of a campaign without a cap: the first `picks` candidates of items [n, w]."""
    filled: Bools = items != 0
    return np.asarray(filled & (np.cumsum(filled, axis=1) <= picks), np.bool_)


def _call(script: Script, deliveries: Sequence[str], args: Sequence[Argument]) -> list[int]:
    try:
        return list(script(keys=[cap_key(recipient_of(d)) for d in deliveries], args=args))
    except redis.RedisError as error:  # no answer, or no writes: out of memory, no replica, no disk
        raise ServiceUnavailable(
            "Redis does not answer, so item frequency caps are not checked.",
            str(error),
            "Check RECO_REDIS_URL and that the server runs.",
        ) from error
