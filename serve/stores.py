"""Connections of one replica or actor, attached to the services for as long as it lives."""

from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import redis
import structlog
from sqlalchemy.engine import Engine

from reco.catalogue import Catalogue
from reco.database import open_database
from reco.embedded import Services, connect_redis, open_services
from reco.errors import ServiceUnavailable
from reco.events.lake import Lake
from reco.features.online import OnlineStore
from reco.impatient import ImpatientRedis
from reco.log import configure
from reco.memory import keep_memory
from reco.settings import read_settings
from serve.late_bus import LateBus

log = structlog.get_logger()


class Stores:
    """Everything a process of the graph reads from; each is opened when first used."""

    def __init__(self, home: str, *, patient: bool = False) -> None:
        """Attach; `patient` is who waits for Redis however long it takes.

        Raises ServiceUnavailable or ConfigError when a service cannot be reached.
        """
        self._patient = patient
        keep_memory()
        self._stack = ExitStack()
        configure(json=True)
        # Unchecked: a replica comes up while the relay is away, and serves what it can.
        settings = read_settings(Path(home))
        self._redis_timeout_s = settings.redis_timeout_s
        opened = open_services(settings, check=False)
        self.services: Services = self._stack.enter_context(opened)

    def close(self) -> None:
        """Detach; the last process out stops the embedded services."""
        self._stack.close()

    @cached_property
    def redis(self) -> redis.Redis:
        """Client of the online store, safe to share between threads.

        It gives up soon and need not answer yet: mails go out without it. Raises ServiceUnavailable
        when it refuses the login, and a patient one also when it does not answer.
        """
        url = self.services.redis_url
        if self._patient:
            return connect_redis(url)
        client = ImpatientRedis.of(url, self._redis_timeout_s)
        try:
            client.ping()
        except redis.AuthenticationError as error:
            raise ServiceUnavailable(
                "Redis refuses the login.", str(error), "Check RECO_REDIS_URL on this node."
            ) from error
        except redis.RedisError as error:
            log.warning("Redis does not answer; check RECO_REDIS_URL", why=str(error))
        return client

    @cached_property
    def online(self) -> OnlineStore:
        """Histories of subscribers."""
        return OnlineStore(self.redis)

    @cached_property
    def bus(self) -> LateBus:
        """Where events of readers and receivers go."""
        bus = LateBus(self.services.bus_url, self.lake.buckets)
        self._stack.callback(bus.close)
        return bus

    @cached_property
    def engine(self) -> Engine:
        """Subscribers, campaigns and the ledger."""
        engine = open_database(self.services.database_url)
        self._stack.callback(engine.dispose)
        return engine

    @cached_property
    def reading(self) -> Engine:
        """The same database, for single statements that read: no transaction around each."""
        return self.engine.execution_options(isolation_level="AUTOCOMMIT")

    @cached_property
    def lake(self) -> Lake:
        """Events, items and tables."""
        return Lake(self.services.lake)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The items of the lake, as they were when this was first asked."""
        return Catalogue.of(self.lake.items())
