"""The stores and servers of one installation, opened for a process.

Takes Settings. What has no address runs as an embedded server under the home folder: every process
that uses them holds a shared lock on `embedded.lock`, and the last one out stops them. A holder
that was killed leaves them running, and the next process adopts them from `services.json`.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Final

from pydantic import SecretStr

from reco.addresses import check_answers, check_form, connect_redis
from reco.errors import ConfigError, ServiceUnavailable
from reco.processes import Running, free_port, stop, write_secret
from reco.servers import (
    Outbox,
    Postgres,
    Server,
    Valkey,
    await_ready,
    postgres_binaries,
    valkey_binary,
)
from reco.settings import Settings, read_settings

EMBEDDABLE: Final = ("redis_url", "database_url", "smtp_url")

__all__ = ["Services", "connect_redis", "open_services"]


@dataclass(frozen=True, slots=True)
class Services:
    """Where everything is. All addresses are set and absolute; logins do not show in `repr`."""

    home: Path
    lake: str  # root of the lake: a path or a URI
    redis_url: str = field(repr=False)
    bus_url: str = field(repr=False)
    database_url: str = field(repr=False)
    mlflow_uri: str = field(repr=False)
    smtp_url: str = field(repr=False)
    outbox: Path | None  # Maildir of the embedded sink; None with a real relay
    public_url: str
    api_key: str = field(repr=False)
    link_key: bytes = field(repr=False)
    verifier_url: str | None = field(default=None, repr=False)
    dkim_key: bytes | None = field(default=None, repr=False)  # PEM; None: the relay signs
    dkim_selector: str = "reco"

    @property
    def artifact_root(self) -> str | None:
        """Where runs of the embedded MLflow keep files; None leaves it to the MLflow server."""
        embedded = self.mlflow_uri == _embedded_mlflow(self.home)
        return str(self.home / "mlartifacts") if embedded else None

    def pointers(self) -> dict[str, str]:
        """RECO_* without a secret in it: fit for what a cluster writes into its logs."""
        return {
            "RECO_HOME": str(self.home),
            "RECO_LAKE": self.lake,
            "RECO_PUBLIC_URL": self.public_url,
        }

    def environment(self) -> dict[str, str]:
        """RECO_* for child processes and Ray workers: there `open_services` starts nothing."""
        values = {
            "home": str(self.home),
            "lake": self.lake,
            "redis_url": self.redis_url,
            "bus_url": self.bus_url,
            "database_url": self.database_url,
            "mlflow_uri": self.mlflow_uri,
            "smtp_url": self.smtp_url,
            "public_url": self.public_url,
            "api_key": self.api_key,
            "link_key": self.link_key.hex(),
            "dkim_selector": self.dkim_selector,
        }
        if self.verifier_url is not None:
            values["verifier_url"] = self.verifier_url
        if self.dkim_key is not None:
            values["dkim_key"] = self.dkim_key.decode()
        return {f"RECO_{name.upper()}": value for name, value in values.items()}


@contextmanager
def open_services(settings: Settings | None = None, *, check: bool = True) -> Iterator[Services]:
    """Use the services of `settings` (by default: of the environment) until the block ends.

    Starts or joins an embedded server for each address that is missing. May be nested, and used by
    several processes at once. With `check` every configured address must answer; a replica that
    ought to come up while a server is away passes False.

    Raises ConfigError for malformed settings, ServiceUnavailable for a server that is not there.
    """
    settings = read_settings() if settings is None else settings
    check_form(settings)
    if check:
        check_answers(settings)
    home = settings.home.expanduser().absolute()
    missing = [name for name in EMBEDDABLE if getattr(settings, name) is None]
    servers = {name: _server(home, name) for name in missing}
    if not servers:
        yield _services(settings, home, {})
        return
    with _attached(home, servers) as running:
        yield _services(settings, home, {n: servers[n].url(running[n]) for n in servers})


def _server(home: Path, name: str) -> Server:
    """The embedded server behind the setting `name`."""
    if name == "redis_url":
        return Valkey(home / "valkey", _key(home, "valkey"), valkey_binary())
    if name == "database_url":
        return Postgres(home / "postgres", _key(home, "postgres"), postgres_binaries())
    return Outbox(home / "outbox")


def _services(settings: Settings, home: Path, embedded: Mapping[str, str]) -> Services:
    def address(name: str, configured: SecretStr | None) -> str:
        return embedded[name] if configured is None else configured.get_secret_value()

    lake = settings.lake or str(home / "lake")
    redis_url = address("redis_url", settings.redis_url)
    return Services(
        home=home,
        lake=lake if "://" in lake else str(Path(lake).expanduser().absolute()),
        redis_url=redis_url,
        bus_url=settings.bus_url.get_secret_value() if settings.bus_url else redis_url,
        database_url=address("database_url", settings.database_url),
        mlflow_uri=settings.mlflow_uri or _embedded_mlflow(home),
        smtp_url=address("smtp_url", settings.smtp_url),
        outbox=home / "outbox" if settings.smtp_url is None else None,
        public_url=settings.public_url.rstrip("/"),
        api_key=settings.api_key.get_secret_value() if settings.api_key else _key(home, "api"),
        link_key=bytes.fromhex(
            settings.link_key.get_secret_value() if settings.link_key else _key(home, "link")
        ),
        verifier_url=settings.verifier_url.get_secret_value() if settings.verifier_url else None,
        dkim_key=_pem(settings.dkim_key),
        dkim_selector=settings.dkim_selector,
    )


def _pem(configured: SecretStr | None) -> bytes | None:
    """The key itself; the setting holds it, or the path of its file."""
    if configured is None:
        return None
    value = configured.get_secret_value()
    if "-----BEGIN" in value:
        return value.encode()
    try:
        return Path(value).expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(
            "The DKIM key cannot be read.",
            error.strerror or str(error),
            "Set RECO_DKIM_KEY to a PEM file that this user may read, or to the PEM itself.",
        ) from error


def _embedded_mlflow(home: Path) -> str:
    return f"sqlite:///{home / 'mlflow.db'}"


@contextmanager
def _attached(home: Path, servers: Mapping[str, Server]) -> Iterator[dict[str, Running]]:
    """Hold the servers up: start those that do not run, and stop all when nobody is left."""
    with (home / "embedded.lock").open("ab") as users:
        try:
            with _alone(home):
                fcntl.flock(users, fcntl.LOCK_SH)
                running = _ensure(home, servers)
            yield running
        finally:
            with _alone(home):
                _leave(home, users)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One process at a time starts and stops servers."""
    with (home / "embedded.start").open("ab") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def _ensure(home: Path, servers: Mapping[str, Server]) -> dict[str, Running]:
    """Adopt the servers that run, start the others, and wait until all answer."""
    known = _read_record(home)
    for name, server in servers.items():
        before = known.get(name)
        if before is None or before.process is None:
            try:
                known[name] = server.start(free_port(before.port if before else 0))
            except ServiceUnavailable:  # an OSError too, but one that says more
                raise
            except OSError as error:
                raise _cannot_be_used(home, error) from error
            # Written down before it is ready: if we are killed now, the next process adopts it.
            _write_record(home, known)
    for name, server in servers.items():
        await_ready(server, known[name])
    return known


def _leave(home: Path, users: IO[bytes]) -> None:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # somebody else still uses them
        fcntl.flock(users, fcntl.LOCK_UN)
        return
    for name, running in _read_record(home).items():
        stop(running, _server(home, name).stop_signal)
    (home / "services.json").unlink(missing_ok=True)


def _read_record(home: Path) -> dict[str, Running]:
    try:
        record = json.loads((home / "services.json").read_bytes())
    except FileNotFoundError:
        return {}
    return {name: Running(**entry) for name, entry in record.items()}


def _write_record(home: Path, running: Mapping[str, Running]) -> None:
    record = {name: asdict(server) for name, server in running.items()}
    half = home / "services.json.tmp"
    half.write_text(json.dumps(record, indent=1))
    half.replace(home / "services.json")


def _key(home: Path, name: str) -> str:
    """The secret `name` of this home, made on first use: 32 random bytes in hexadecimal."""
    path = home / "keys" / name
    try:
        for folder in (home, path.parent):  # what we know of people is nobody else's business
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            mine = path.with_name(f".{name}.{os.getpid()}.{secrets.token_hex(4)}")
            write_secret(mine, secrets.token_bytes(32).hex())
            try:
                os.link(mine, path)  # unlike rename it never replaces one that was just made
            except FileExistsError:
                pass
            finally:
                mine.unlink()
        return path.read_text().strip()
    except OSError as error:
        raise _cannot_be_used(home, error) from error


def _cannot_be_used(home: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"The home folder {home} cannot be used.",
        f"{error.strerror}: {error.filename}",
        "Set RECO_HOME to a folder that can be written.",
    )
