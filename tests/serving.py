"""The application in a real Ray Serve, with the tiny shop behind it."""

import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import httpx
from ray import serve
from ray.serve.context import _get_global_client as get_global_client
from ray.serve.schema import ServeDeploySchema

from reco.embedded import Services
from serve.app import build
from serve.app_args import AppArgs
from serve.graph import APP

PATIENT: Final = {"scorer_budget_s": 20, "door_budget_s": 20}  # a busy machine is no fault


def free_port() -> int:
    """A port that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running_app(
    services: Services, grpc_port: int | None = None, *, declared: bool = False
) -> Iterator[httpx.Client]:
    """A client of the gateway, with the API key; needs a Ray cluster.

    By gRPC too, when asked; `declared` as `reco serve` deploys it, so that `declare` changes it.
    """
    port = free_port()
    grpc = {"port": grpc_port, "grpc_servicer_functions": ["serve.grpc_door.add_service"]}
    serve.start(
        http_options={"host": "127.0.0.1", "port": port},
        grpc_options=grpc if grpc_port else None,
    )
    try:
        if declared:
            declare(services)
        else:
            args = AppArgs.model_validate({"home": services.home} | PATIENT)
            serve.run(build(args), name=APP, route_prefix="/")
        headers = {"Authorization": f"Bearer {services.api_key}"}
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60
        ) as client:
            yield client
    finally:
        serve.shutdown()


def declare(services: Services, model: Path | None = None) -> None:
    """Deploy the application by configuration, with a model of its own or the champion."""
    scorer = {"name": "Scorer", "user_config": {"model": model and str(model), "device": "cpu"}}
    environment = services.environment() | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    environment |= {"RECO_REDIS_TIMEOUT_S": "3"}
    app = {
        "name": APP,
        "import_path": "serve.app:build",
        "args": {"home": str(services.home)} | PATIENT,
        "runtime_env": {"env_vars": environment},
        "deployments": [scorer],
    }
    schema = ServeDeploySchema.model_validate({"applications": [app]})
    client = get_global_client()
    assert client is not None  # serve.start made it
    client.deploy_apps(schema, _blocking=False)
    until = time.monotonic() + 300  # Ray's own wait is too short for a busy machine
    while (now := serve.status().applications.get(APP)) is None or now.status != "RUNNING":
        if time.monotonic() > until or (now and now.status == "DEPLOY_FAILED"):
            raise RuntimeError(str(now))
        time.sleep(0.2)
