import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest
from pydantic import SecretStr

from reco.embedded import Services, connect_redis, open_services
from reco.errors import ConfigError, ServiceUnavailable
from reco.processes import Running, free_port
from reco.settings import Settings
from tests.conftest import DEBIAN_POSTGRES, DEBIAN_REDIS, ROOT

# A process that opens the services of a home, says so, and leaves when its stdin ends.
HOLDER = """
import sys
from pathlib import Path
from reco.embedded import open_services
from reco.settings import Settings
with open_services(Settings(home=Path(sys.argv[1]))):
    print("open", flush=True)
    sys.stdin.read()
"""
NOBODY = "127.0.0.1:1"  # a port that only root could listen on, and nobody does
# Below what Linux and macOS hand out: no test beside this one is given such a port by chance.
OURS_ALONE = range(20_000, 30_000)


@pytest.fixture
def only_valkey(services: Services, home: Path) -> Callable[[], Settings]:
    """Settings under which nothing but Valkey is embedded; it starts in a tenth of a second."""

    def make() -> Settings:
        return Settings(
            home=home,
            database_url=SecretStr(services.database_url),
            smtp_url=SecretStr(services.smtp_url),
        )

    return make


@pytest.fixture
def hold(services: Services, home: Path) -> Callable[[], subprocess.Popen[bytes]]:
    """Start a HOLDER on `home` with nothing but Valkey embedded."""

    def start() -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "RECO_DATABASE_URL": services.database_url,
            "RECO_SMTP_URL": services.smtp_url,
            "PYTHONPATH": str(ROOT),
        }
        return subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )

    return start


def running(home: Path) -> dict[str, Running]:
    record = json.loads((home / "services.json").read_text())
    return {name: Running(**entry) for name, entry in record.items()}


def test_every_embedded_service_answers(services):
    connect_redis(services.redis_url).close()
    with psycopg.connect(services.database_url) as connection:
        version = connection.info.server_version // 10_000
    assert 18 == version
    assert {"redis_url", "database_url", "smtp_url"} == set(running(services.home))
    assert services.outbox == services.home / "outbox"


def test_what_is_written_is_there_when_the_services_open_again(home):
    settings = Settings(home=home)
    with open_services(settings) as first:
        with connect_redis(first.redis_url) as client:
            client.set("kept", b"\x00\xff")
        with psycopg.connect(first.database_url) as connection:
            connection.execute("create table kept as select 7 as number")

    with open_services(settings) as second:
        with connect_redis(second.redis_url) as client:
            assert b"\x00\xff" == client.get("kept")
        with psycopg.connect(second.database_url) as connection:
            assert (7,) == connection.execute("select number from kept").fetchone()
    assert (first.api_key, first.link_key) == (second.api_key, second.link_key)


def test_the_inner_of_two_nested_uses_stops_nothing(only_valkey, home):
    with open_services(only_valkey()) as outer:
        with open_services(only_valkey()) as inner:
            assert outer == inner
        connect_redis(outer.redis_url).close()
        (server,) = running(home).values()

    assert server.process is None
    assert not (home / "services.json").exists()


def test_processes_that_start_at_once_share_one_server_and_the_last_one_stops_it(hold, home):
    holders = [hold() for _ in range(3)]
    for holder in holders:
        assert holder.stdout is not None
        assert b"open\n" == holder.stdout.readline()
    (server,) = running(home).values()

    for holder in holders:
        assert server.process is not None
        holder.communicate()
        assert 0 == holder.returncode

    assert server.process is None


def test_a_killed_process_leaves_its_server_to_the_next_one(hold, only_valkey, home):
    holder = hold()
    assert holder.stdout is not None
    holder.stdout.readline()
    (left,) = running(home).values()
    holder.kill()
    holder.communicate()

    assert left.process is not None
    with open_services(only_valkey()):
        assert [left] == list(running(home).values())

    assert left.process is None


def died_on(port: int) -> dict[str, float]:
    """The entry of a server that ran on this port and is gone."""
    return {"pid": os.getpid(), "started_at": 1.0, "port": port}


def test_a_server_that_died_is_started_again_where_it_was(only_valkey, home):
    home.mkdir(parents=True, exist_ok=True)
    port = next(n for n in random.sample(OURS_ALONE, len(OURS_ALONE)) if free_port(n) == n)
    (home / "services.json").write_text(json.dumps({"redis_url": died_on(port)}))
    with open_services(only_valkey()) as services:
        with connect_redis(services.redis_url) as client:
            client.set("kept", 1)
        (first,) = running(home).values()
        assert first.process is not None
        first.process.send_signal(signal.SIGKILL)
        while first.process is not None:
            time.sleep(0.01)

        with open_services(only_valkey()) as again:
            (second,) = running(home).values()
            assert first.pid != second.pid
            assert services == again
            with connect_redis(again.redis_url) as client:
                assert b"1" == client.get("kept")


def test_a_process_that_inherited_the_pid_of_a_server_is_left_alone(only_valkey, home):
    with open_services(only_valkey()):
        pass
    sleeper = psutil.Popen(["sleep", "60"])
    stale = died_on(1) | {"pid": sleeper.pid, "started_at": sleeper.create_time() - 1000}
    (home / "services.json").write_text(json.dumps({"redis_url": stale}))

    with open_services(only_valkey()):
        (server,) = running(home).values()
        assert sleeper.pid != server.pid

    assert sleeper.is_running()
    sleeper.kill()
    sleeper.wait()


def test_a_home_may_lie_deeper_than_a_unix_socket_can(home):
    deep = home / ("d" * 60) / ("e" * 60) / "home with a space"

    with open_services(Settings(home=deep)) as services:
        psycopg.connect(services.database_url).close()
        connect_redis(services.redis_url).close()


def test_a_relative_home_is_made_absolute(only_valkey, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = only_valkey().model_copy(update={"home": Path("home"), "lake": "other/lake"})

    with open_services(settings) as services:
        assert tmp_path / "home" == services.home
        assert str(tmp_path / "other" / "lake") == services.lake
        assert f"sqlite:///{tmp_path}/home/mlflow.db" == services.mlflow_uri
        assert str(tmp_path / "home" / "mlartifacts") == services.artifact_root


def test_what_is_secret_is_for_the_owner_only_and_never_shown(services):
    for key in (services.home / "keys").iterdir():
        assert 0o600 == key.stat().st_mode & 0o777
        assert key.read_text() not in repr(services)
    assert 0 == services.home.stat().st_mode & 0o066


def test_a_child_process_given_the_environment_starts_nothing(services, tmp_path, monkeypatch):
    for name, value in services.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RECO_HOME", str(tmp_path / "elsewhere"))

    with open_services() as child:
        same = ("lake", "redis_url", "database_url", "mlflow_uri", "smtp_url", "public_url")
        for name in (*same, "api_key", "link_key"):
            assert getattr(services, name) == getattr(child, name)
        assert child.outbox is None
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.ray
def test_a_ray_worker_reaches_the_services_of_its_driver(ray_cluster, services):
    import ray

    @ray.remote
    def read() -> bytes | None:
        with open_services() as mine, connect_redis(mine.redis_url) as client:
            answer: bytes | None = client.get("from-driver")
            return answer

    with connect_redis(services.redis_url) as client:
        client.set("from-driver", b"hello", ex=60)
    assert b"hello" == ray.get(read.remote())


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("redis_url", f"redis://:geheim@{NOBODY}/0"),
        ("database_url", f"postgresql://ann:geheim@{NOBODY}/shop"),
        ("smtp_url", f"smtp://ann:geheim@{NOBODY}"),
    ],
)
def test_a_server_that_does_not_answer_is_named_without_its_password(tmp_path, name, url):
    settings = Settings(home=tmp_path / "home").model_copy(update={name: SecretStr(url)})

    with pytest.raises(ServiceUnavailable) as caught, open_services(settings):
        pytest.fail("opened")

    assert NOBODY in caught.value.what
    assert f"RECO_{name.upper()}" in caught.value.todo
    assert "geheim" not in str(caught.value)
    assert not (tmp_path / "home").exists()


def test_a_wrong_password_is_told_from_a_dead_server(services, tmp_path):
    wrong = services.redis_url.replace(":", ":wrong", 2).replace("redis:wrong", "redis:")
    with pytest.raises(ServiceUnavailable, match=r"(?i)password|auth|denied"):
        connect_redis(wrong)


def test_a_server_that_speaks_no_smtp_is_refused(services, tmp_path):
    address = services.redis_url.rpartition("@")[2].removesuffix("/0")
    settings = Settings(home=tmp_path / "home", smtp_url=SecretStr(f"smtp://{address}"))

    with pytest.raises(ServiceUnavailable, match="SMTP server"), open_services(settings):
        pytest.fail("opened")


def test_all_malformed_addresses_are_told_at_once(tmp_path):
    settings = Settings(
        home=tmp_path / "home",
        redis_url=SecretStr("localhost:6379"),
        database_url=SecretStr("postgresql://"),
        smtp_url=SecretStr("smtp://relay:post"),
    )

    with pytest.raises(ConfigError) as caught, open_services(settings):
        pytest.fail("opened")

    for name in ("RECO_REDIS_URL", "RECO_DATABASE_URL", "RECO_SMTP_URL"):
        assert name in caught.value.why


def test_a_home_that_cannot_be_a_folder_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")

    with (
        pytest.raises(ConfigError, match="RECO_HOME"),
        open_services(Settings(home=tmp_path / "file" / "home")),
    ):
        pytest.fail("opened")


def test_a_data_folder_that_cannot_be_made_is_a_clear_error(only_valkey, home):
    home.mkdir()
    (home / "valkey").write_text("in the way")

    with pytest.raises(ConfigError, match="RECO_HOME"), open_services(only_valkey()):
        pytest.fail("opened")


def test_a_server_that_refuses_its_data_says_why(only_valkey, home):
    with open_services(only_valkey()):
        pass
    (manifest,) = (home / "valkey").glob("appendonlydir/*.manifest")
    manifest.write_text("nonsense")

    with (
        pytest.raises(ServiceUnavailable, match=r"Valkey did not start(.|\n)*why: .*manifest"),
        open_services(only_valkey()),
    ):
        pytest.fail("opened")
    assert not (home / "services.json").exists()


@pytest.mark.skipif(not DEBIAN_REDIS.exists(), reason="no redis-server: only Valkey is tested")
def test_redis_itself_stands_in_for_valkey(redis, redis_url, services):
    assert redis_url == services.redis_url or "valkey_version" not in redis.info("server")


@pytest.mark.skipif(not DEBIAN_POSTGRES.exists(), reason="no postgresql: only the embedded one")
def test_another_postgresql_stands_in_for_the_embedded_one(engine, database_url, services):
    with engine.connect() as connection:
        version = connection.exec_driver_sql("show server_version_num").scalar_one()

    assert (database_url == services.database_url) == version.startswith("18")
