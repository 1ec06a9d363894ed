"""The Ray cluster of a run: the one we are told of or run inside, else a local one until the end.

Takes Services, whose addresses every worker gets as its environment.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import ray
import ray.data

from reco.embedded import Services
from reco.errors import ServiceUnavailable

OBJECT_STORE_BYTES: Final = 1_000_000_000  # Ray's own choice, a third of the memory, is too greedy
LOOPBACK: Final = "127.0.0.1"
# Nothing calls home, and a new registry is made without a line for each of its tables.
QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


@contextmanager
def connect(services: Services, *, verbose: bool = False, bars: bool = False) -> Iterator[None]:
    """Use a cluster until the block ends; one that this process uses already is left as it is.

    RAY_ADDRESS names a cluster, and `ray job submit` sets it; without it a local cluster starts,
    with its dashboard on the loopback. A local cluster asks for a token, kept in
    ~/.ray/auth_token, unless RAY_AUTH_MODE says otherwise.
    A cluster that is there has the secrets in the environment of its nodes (cluster.yaml); a local
    one inherits those of this process.
    `verbose` shows the workers' logs, `bars` the progress bars of Ray Data.

    Raises ServiceUnavailable when the cluster does not answer.
    """
    if ray.is_initialized():
        quieten(bars=bars)
        yield
        return
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS")
    # Ray writes what it is given for its workers into its logs: secrets must not be among it.
    try:
        if address:
            env_vars = workers_environment(QUIET | services.pointers())
            _init(address=address, runtime_env={"env_vars": env_vars}, log_to_driver=verbose)
            quieten(bars=bars)
            yield
            return
        with _inherited(services.environment()):
            _init(
                address="local",
                log_to_driver=verbose,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=True,
                dashboard_host=LOOPBACK,
            )
            quieten(bars=bars)
            yield
    finally:
        ray.shutdown()


@contextmanager
def _inherited(environment: dict[str, str]) -> Iterator[None]:
    """What the processes of a local cluster find in their environment, until the block ends."""
    # `uv run` would make Ray build an environment for its workers; ours is complete.
    # Ray's core says "E" of an actor pool that cannot be restored, which nobody here does.
    quiet = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    ours = quiet | environment
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _init(**arguments: Any) -> None:
    # That a local cluster asks for a token is said above, not at each command.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        ray.init(logging_level=logging.WARNING, **arguments)
    except (ConnectionError, TimeoutError, RuntimeError) as error:
        raise ServiceUnavailable(
            f"There is no Ray cluster: {arguments['address']} does not answer.",
            str(error).strip().splitlines()[0],
            "Check RAY_ADDRESS, or unset it to start a local cluster.",
        ) from error


def workers_environment(environment: dict[str, str]) -> dict[str, str]:
    """What the submitted job does not set itself: Ray refuses a name that both set."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    theirs = (job.get("runtime_env") or {}).get("env_vars", {})
    return {name: value for name, value in environment.items() if name not in theirs}


def quieten(*, bars: bool) -> None:
    """Let Ray Data say nothing but warnings; `bars` shows its progress."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = bars
    context.print_on_execution_start = False
