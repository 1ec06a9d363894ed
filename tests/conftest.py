"""Real servers for the tests. Each starts when a test asks for it, and ends with the run."""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis as redis_client
from hypothesis import settings
from sqlalchemy import Engine

from reco.database import METADATA, open_database
from reco.embedded import Services, connect_redis, open_services
from reco.events.lake import Lake
from reco.processes import free_port, stop
from reco.servers import Postgres, Server, Valkey, await_ready
from reco.settings import Settings
from tests.smtpd import SmtpSink, running_sink

ROOT = Path(__file__).parent.parent
DEBIAN_REDIS = Path(shutil.which("redis-server") or "/usr/bin/redis-server")
DEBIAN_POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nowhere"))


def pytest_configure() -> None:
    """No setting of the developer reaches a test; Ray and MLflow neither ask nor call home."""
    for name in [name for name in os.environ if name.startswith("RECO_")]:
        del os.environ[name]
    # A first call may import scipy or wait for a busy machine: no example has a deadline.
    settings.register_profile("reco", deadline=None)
    settings.load_profile("reco")
    os.environ |= {
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what touches a store against the embedded server and against Debian's, where it is."""
    if "redis_url" in metafunc.fixturenames:
        kinds = ["valkey", *(["redis"] if DEBIAN_REDIS.exists() else [])]
        metafunc.parametrize("redis_url", kinds, indirect=True, scope="session")
    if "database_url" in metafunc.fixturenames:
        kinds = ["embedded", *(["debian"] if DEBIAN_POSTGRES.exists() else [])]
        metafunc.parametrize("database_url", kinds, indirect=True, scope="session")


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder for PostgreSQL. That of root runs as another user, from whom every run of pytest
    takes the right to pass through the folders of all other runs."""
    with TemporaryDirectory(prefix="reco-test-") as folder:
        yield Path(folder)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home folder that does not exist yet."""
    with open_folder() as folder:
        yield folder / "home"


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """The embedded services on a home of their own."""
    with open_folder() as folder:
        settings = Settings(home=folder / "home")
        with open_services(settings) as services:
            yield services
        _await_nobody(settings)


def _await_nobody(settings: Settings) -> None:
    """Ray's workers may be killed a moment after we leave, and then nobody stops the servers."""
    for _ in range(40):
        if not (settings.home / "services.json").exists():
            return
        time.sleep(0.5)
        with open_services(settings):
            pass


@contextmanager
def _running(server: Server) -> Iterator[str]:
    process = server.start(free_port())
    try:
        await_ready(server, process)
        yield server.url(process)
    finally:
        stop(process, server.stop_signal)


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Address of the embedded Valkey, or of Debian's Redis."""
    if request.param == "valkey":
        yield request.getfixturevalue("services").redis_url
        return
    with open_folder() as folder:
        server = Valkey(folder / "redis", secrets.token_hex(16), DEBIAN_REDIS)
        with _running(server) as url:
            yield url


@pytest.fixture
def redis(redis_url: str) -> Iterator[redis_client.Redis]:
    """Client of an empty store."""
    client = connect_redis(redis_url)
    client.flushdb()
    yield client
    client.close()


@pytest.fixture(scope="session")
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Address of the embedded PostgreSQL, or of Debian's."""
    if request.param == "embedded":
        yield request.getfixturevalue("services").database_url
        return
    with open_folder() as folder:
        server = Postgres(folder / "postgres", secrets.token_hex(16), DEBIAN_POSTGRES)
        with _running(server) as url:
            yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Engine on a database with all tables, empty."""
    engine = open_database(database_url)
    tables = ", ".join(table.name for table in METADATA.sorted_tables)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"truncate {tables}")
    yield engine
    engine.dispose()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(str(tmp_path / "lake"))


@pytest.fixture(scope="session")
def ray_cluster(services: Services) -> Iterator[None]:
    """A local Ray cluster of two CPUs whose workers know the services."""
    import ray

    environment = services.environment() | {"PYTHONPATH": str(ROOT)}
    environment |= {"RECO_REDIS_TIMEOUT_S": "3"}  # a busy machine is no fault
    # Without the dashboard Ray Train complains without end that it cannot be asked.
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=500_000_000,
        include_dashboard=True,
        log_to_driver=False,
        runtime_env={"env_vars": environment},
    )
    yield
    ray.shutdown()


@pytest.fixture
def smtp_sink(request: pytest.FixtureRequest) -> Iterator[SmtpSink]:
    """A recording SMTP server; @pytest.mark.smtp_fault(name, ...) switches a fault on."""
    with running_sink() as sink:
        for marker in request.node.iter_markers("smtp_fault"):
            sink.fault(*marker.args, **marker.kwargs)
        yield sink


@pytest.fixture(scope="session")
def corpora() -> Path:
    """Other people's addresses and bounces, which are not ours to give away: TEST_DATA names them.

    email_addresses and bounces, as their READMEs describe; without them those tests are skipped.
    """
    if not (folder := os.environ.get("TEST_DATA")):
        pytest.skip("TEST_DATA names no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def slice_dir() -> Path:
    """The committed slice of the demo shop."""
    return ROOT / "tests" / "data" / "completejourney_slice"
