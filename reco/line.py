"""The opened line: what every command of the composition root works on."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import redis
from sqlalchemy.engine import Engine

from reco.database import open_database
from reco.embedded import Services, connect_redis, open_services
from reco.events.lake import Lake
from reco.settings import Settings, read_settings


@dataclass(frozen=True, slots=True)
class Line:
    """Services and the stores on them."""

    services: Services
    lake: Lake
    engine: Engine
    redis: redis.Redis


@contextmanager
def open_line(settings: Settings | None = None, *, ray: bool = False) -> Iterator[Line]:
    """The stores of this home, embedded where no address is configured, and Ray where asked.

    Raises ConfigError, ServiceUnavailable.
    """
    with ExitStack() as stack:
        services = stack.enter_context(open_services(settings or read_settings()))
        if ray:
            from train.cluster import connect

            stack.enter_context(connect(services))
        engine = open_database(services.database_url)
        stack.callback(engine.dispose)
        yield Line(services, Lake(services.lake), engine, connect_redis(services.redis_url))
