"""Detached processes that listen on loopback: start, find again, ask, and end them.

They outlive the process that started them. Used by reco.servers and reco.embedded alone.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

import psutil

from reco.errors import ServiceUnavailable

HOST: Final = "127.0.0.1"
STOP_TIMEOUT_S: Final = 20.0
POLL_S: Final = 0.02
CLOCK_SLACK_S: Final = 2.0  # the clock may be set while a server runs


class Identity(TypedDict):
    """As whom a process runs, in the words of subprocess; never with the groups of root."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Running:
    """A server process: pid and start time name it for certain; it listens on `port`."""

    pid: int
    started_at: float
    port: int

    @property
    def process(self) -> psutil.Process | None:
        """The process while it lives; None once it has ended, or when another has its pid."""
        try:
            process = psutil.Process(self.pid)
            alive = process.status() != psutil.STATUS_ZOMBIE
            same = abs(process.create_time() - self.started_at) < CLOCK_SLACK_S
        except psutil.NoSuchProcess:
            return None
        return process if alive and same else None


def log_of(folder: Path) -> Path:
    """Where the server that lives in `folder` writes what it has to say."""
    return folder.with_name(f"{folder.name}.log")


def launch(
    command: Sequence[str],
    folder: Path,
    port: int,
    *,
    identity: Identity | None = None,
    pass_fds: Sequence[int] = (),
) -> Running:
    """Start a process that outlives this one."""
    # PG… variables would change what PostgreSQL does; a checkout need not be installed.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    with log_of(folder).open("wb") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C of our terminal is not meant for it
            pass_fds=pass_fds,
            **(identity or {}),
            env=environment,
            cwd="/",
        )
    child.returncode = 0  # it is not ours to wait for, and the garbage collector shall not complain
    return Running(child.pid, psutil.Process(child.pid).create_time(), port)


def ask(port: int, said: bytes, *, enough: bytes) -> bytes:
    """What a server answers until the answer holds `enough`; empty when nobody listens."""
    heard = b""
    with suppress(OSError), socket.create_connection((HOST, port), timeout=1.0) as connection:
        connection.sendall(said)
        while enough not in heard and (more := connection.recv(4096)):
            heard += more
            if heard.count(b"\r\n") >= said.count(b"\r\n"):
                break
    return heard


def stop(running: Running, stop_signal: signal.Signals) -> None:
    """End a server in good order; kill it when it does not listen."""
    for signum in (stop_signal, signal.SIGKILL):
        deadline = time.monotonic() + STOP_TIMEOUT_S
        if process := running.process:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signum)
        while running.process is not None and time.monotonic() < deadline:
            time.sleep(POLL_S)
    with suppress(ChildProcessError):  # reap it when it is a child of ours
        os.waitpid(running.pid, os.WNOHANG)


def free_port(wanted: int = 0) -> int:
    """`wanted` when it is free, so that clients of a restarted server find it; else any port."""
    for port in (wanted, 0):
        with suppress(OSError), socket.create_server((HOST, port)) as listener:
            found: int = listener.getsockname()[1]
            return found
    raise ServiceUnavailable(
        "No port of the loopback interface can be bound.",
        f"The operating system refused {HOST}:0.",
        f"Check that {HOST} exists, or set RECO_… addresses of servers of your own.",
    )


def write_secret(path: Path, text: str) -> None:
    """Write a file that nobody else can read at any moment."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
