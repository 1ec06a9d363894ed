"""How often somebody is written to: at most N mails in K days, from all campaigns together.

One Lua call a chunk counts and reserves, so two campaigns at once cannot both take the last place.
Every campaign counts its mails here, also one without a cap, since they count for those that have
one; what was not sent is given back. One string a subscriber under tables.contact_key: entries of 8
bytes, the minute (u32) and the hash of the delivery (u32). A mail that is made again counts once.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import redis
import xxhash

from reco.errors import ServiceUnavailable
from reco.tables import contact_key

KEPT_DAYS: Final = 92  # so that a campaign with a short window keeps what a longer one asks for
DAY_MINUTES: Final = 1_440
NO_CAP: Final = 1 << 30

# KEYS contact keys; ARGV times, last minute that no longer counts, last minute that is forgotten,
# now, ttl in s (0 = look only), then the hash of each delivery. Gives 1 for those who may be
# written to.
RESERVE: Final = """
local times, past, gone = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now, ttl, out = ARGV[4], tonumber(ARGV[5]), {}
for i, key in ipairs(KEYS) do
  local mine, old = ARGV[5 + i], redis.call('GET', key) or ''
  local live, count, known = '', 0, false
  for p = 1, #old, 8 do
    local minute = struct.unpack('<I4', string.sub(old, p, p + 3))
    if minute > gone then live = live .. string.sub(old, p, p + 7) end
    if string.sub(old, p + 4, p + 7) == mine then known = true
    elseif minute > past then count = count + 1 end
  end
  local may = known or count < times
  if may and not known and ttl > 0 then redis.call('SET', key, live .. now .. mine, 'EX', ttl) end
  out[i] = may and 1 or 0
end
return out
"""

# KEYS contact keys; ARGV the hash of each delivery.
RELEASE: Final = """
for i, key in ipairs(KEYS) do
  local old, rest = redis.call('GET', key) or '', ''
  for p = 1, #old, 8 do
    if string.sub(old, p + 4, p + 7) ~= ARGV[i] then rest = rest .. string.sub(old, p, p + 7) end
  end
  if rest == '' then redis.call('DEL', key)
  elseif rest ~= old then redis.call('SET', key, rest, 'KEEPTTL') end
end
return {}
"""


class Contacts:
    """Counts mails in Redis. Holds nothing but the connection, so threads may share it."""

    def __init__(self, client: redis.Redis) -> None:
        self._reserve = client.register_script(RESERVE)
        self._release = client.register_script(RELEASE)

    def may_write(
        self,
        campaign_id: str,
        user_ids: Sequence[str],
        deliveries: Sequence[str],
        now: datetime,
        cap: tuple[int, int] | None,
        *,
        reserve: bool,
    ) -> list[bool]:
        """Who is below the cap (times, days; None: none); with `reserve` their mail is counted.

        Raises ServiceUnavailable when Redis does not answer.
        """
        if not user_ids:
            return []
        times, days = cap or (NO_CAP, 0)
        minute, kept = int(now.timestamp()) // 60, max(days, KEPT_DAYS)
        head: list[bytes | int] = [
            times,
            minute - days * DAY_MINUTES,
            minute - kept * DAY_MINUTES,
            minute.to_bytes(4, "little"),
            kept * DAY_MINUTES * 60 if reserve else 0,
        ]
        tags = [_tag(campaign_id, delivery) for delivery in deliveries]
        try:
            found = self._reserve(keys=[contact_key(u) for u in user_ids], args=[*head, *tags])
        except redis.RedisError as error:
            raise _unavailable(error) from error
        return [bool(may) for may in found]

    def release(self, campaign_id: str, user_ids: Sequence[str], deliveries: Sequence[str]) -> None:
        """Give back what was counted for mails that were not sent. Raises ServiceUnavailable."""
        tags = [_tag(campaign_id, delivery) for delivery in deliveries]
        if not tags:
            return
        try:
            self._release(keys=[contact_key(user) for user in user_ids], args=tags)
        except redis.RedisError as error:
            raise _unavailable(error) from error


def _tag(campaign_id: str, delivery: str) -> bytes:
    return xxhash.xxh32_digest(f"{campaign_id}\0{delivery}".encode())


def _unavailable(error: redis.RedisError) -> ServiceUnavailable:
    return ServiceUnavailable(
        "Redis does not answer, so nobody counts how often somebody is written to.",
        str(error),
        "Check RECO_REDIS_URL and that the server runs.",
    )
