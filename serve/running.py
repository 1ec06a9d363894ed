"""The application for the time of a command: the one in this cluster, else one of its own."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel
from ray import serve
from ray.serve.context import _get_global_client as get_global_client
from ray.serve.exceptions import RayServeException
from ray.serve.schema import (
    ApplicationStatus,
    DeploymentSchema,
    HTTPOptionsSchema,
    ServeApplicationSchema,
    ServeDeploySchema,
    gRPCOptionsSchema,
)

from reco.embedded import Services
from reco.errors import ConfigError
from serve.app_args import AppArgs
from serve.graph import APP

LOOPBACK: Final = "127.0.0.1"


@contextmanager
def application(args: AppArgs) -> Iterator[None]:
    """Use the application until the block ends; one that was there before is left as it is.

    Needs a connection to a Ray cluster.
    """
    if _runs():
        yield
        return
    # Only here: torch and the gateway take seconds to import, and who joins needs neither.
    from serve.app import build

    # Commands talk by handle; what goes well needs no line.
    serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING"})
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.run(build(args), name=APP, route_prefix=None)
    try:
        yield
    finally:
        # Not serve.shutdown: Ray then tells everybody that the controller's last call failed.
        serve.delete(APP)


def _runs() -> bool:
    try:
        return serve.status().applications[APP].status == ApplicationStatus.RUNNING
    except (KeyError, RayServeException):
        return False


def run_config(path: Path, services: Services) -> None:
    """Run the applications of a Serve configuration file until Ctrl-C or SIGTERM.

    Raises ConfigError when Ray does not understand it, or would ignore a part of it.
    """
    config = read_config(path)
    for app in config["applications"]:
        app["args"] = {"home": str(services.home)} | (app.get("args") or {})
        app["runtime_env"] = {"env_vars": services.pointers()} | (app.get("runtime_env") or {})
    http = config.get("http_options") or {}
    grpc = config.get("grpc_options") or {}
    serve.start(http_options={"host": LOOPBACK} | http, grpc_options=grpc)
    client = get_global_client()
    assert client is not None  # serve.start made it
    asked_to_stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked_to_stop.set())
    client.deploy_apps(ServeDeploySchema.model_validate(config), _blocking=True)
    # In short waits: one that never ends is begun again by the lock, and no handler would run.
    while not asked_to_stop.wait(0.5):
        pass
    for app in config["applications"]:
        serve.delete(app["name"])


def http_root(path: Path) -> str:
    """Where the applications of a configuration file will answer. Raises ConfigError."""
    options = {"host": LOOPBACK} | (read_config(path).get("http_options") or {})
    http = HTTPOptionsSchema.model_validate(options)
    return f"http://{http.host}:{http.port}"


def read_config(path: Path) -> dict[str, Any]:
    """The file, checked key by key, since Ray ignores what it does not know. Raises ConfigError."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        ServeDeploySchema.model_validate(config)
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is no configuration of Ray Serve.", str(error)) from error
    unknown = [*_unknown(config, ServeDeploySchema)]
    unknown += _unknown(config.get("http_options") or {}, HTTPOptionsSchema)
    unknown += _unknown(config.get("grpc_options") or {}, gRPCOptionsSchema)
    for app in config["applications"]:
        unknown += _unknown(app, ServeApplicationSchema)
        for deployment in app.get("deployments") or []:
            unknown += _unknown(deployment, DeploymentSchema)
    if unknown:
        raise ConfigError(f"{path} has unknown keys: {', '.join(unknown)}.", "Ray ignores them.")
    return dict(config)


def _unknown(section: dict[str, Any], schema: type[BaseModel]) -> list[str]:
    return sorted(section.keys() - schema.model_fields.keys())
