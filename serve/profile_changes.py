"""Profiles and consents that change in PostgreSQL, brought into the online rows within seconds.

Triggers of the table stamp each change and name the subscriber (LISTEN/NOTIFY), whoever wrote: an
import, the preference page, or the shop's own SQL. What changed while nobody listened is found by
its stamp, which is later than the moment up to which Redis says all has been followed.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, Final

import psycopg
import redis
import structlog

from reco.database import PROFILE_CHANNEL, open_database
from reco.embedded import Services, connect_redis
from reco.errors import RecoError
from reco.events.lake import Lake
from reco.features.live import LiveRows
from reco.features.online import OnlineStore
from reco.features.profile import read_profiles
from reco.subscribers.store import SubscriberStore
from reco.tables import PROFILES_KEY

NAME: Final = "reco profiles"  # in pg_stat_activity
HEAR_S: Final = 0.1  # for what is on its way
MOST: Final = 10_000  # subscribers a call: about a second
# A stamp is the time at which a transaction began, and others may have ended before it did.
LONGEST: Final = timedelta(minutes=10)
NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
CHANGED: Final = """
    select user_id from subscribers where updated_at > %(since)s
    union select user_id from departures where left_at > %(since)s
"""

log = structlog.get_logger()


class ProfileChanges:
    """Listens from when it is made. Raises ServiceUnavailable when there is no database."""

    def __init__(self, services: Services) -> None:
        self._engine = open_database(services.database_url)
        self._url = services.database_url
        self._redis = connect_redis(services.redis_url)
        profiles = partial(read_profiles, SubscriberStore(self._engine))
        self._rows = LiveRows(Lake(services.lake), OnlineStore(self._redis), profiles)
        self._connection: psycopg.Connection | None = None
        self._waiting: dict[str, None] = {}  # in the order of their changes

    def follow(self) -> int:
        """Bring what changed since the last call into the rows; how many of them changed.

        A store that is away is asked again with the next call, and nothing is lost.
        """
        try:
            for user in self._heard():
                self._waiting[user] = None
            now = datetime.now(UTC)
            some = list(islice(self._waiting, MOST))
            changed = self._rows.refresh(some)
            for user in some:
                del self._waiting[user]
            if not self._waiting:
                self._redis.set(PROFILES_KEY, now.isoformat())
        except (psycopg.Error, redis.RedisError, RecoError) as error:
            self._hang_up()
            log.warning("changed profiles wait", why=str(error))
            return 0
        return changed

    @property
    def is_behind(self) -> bool:
        """Whether changes that were heard of still wait."""
        return bool(self._waiting)

    def close(self) -> None:
        """Stop listening."""
        self._hang_up()
        self._redis.close()
        self._engine.dispose()

    def _heard(self) -> Iterator[str]:
        """Who changed; at first, and after a silence, everybody who may have."""
        if self._connection is None:
            self._connection = psycopg.connect(self._url, autocommit=True, application_name=NAME)
            self._connection.execute(f"listen {PROFILE_CHANNEL}")
            followed: Any = self._redis.get(PROFILES_KEY)
            since = datetime.fromisoformat(followed.decode()) - LONGEST if followed else NEVER
            for (user,) in self._connection.execute(CHANGED, {"since": since}):
                yield user
        for note in self._connection.notifies(timeout=HEAR_S):
            yield note.payload

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
