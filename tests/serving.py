"""The application in a real Ray Serve, with the tiny shop behind it."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx
from ray import serve

from reco.embedded import Services
from serve.app import AppArgs, build
from serve.graph import APP


def free_port() -> int:
    """A port that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running_app(services: Services, grpc_port: int | None = None) -> Iterator[httpx.Client]:
    """A client of the gateway, with the API key; needs a Ray cluster. By gRPC too, when asked."""
    port = free_port()
    grpc = {"port": grpc_port, "grpc_servicer_functions": ["serve.grpc_door.add_service"]}
    serve.start(
        http_options={"host": "127.0.0.1", "port": port},
        grpc_options=grpc if grpc_port else None,
    )
    try:
        args = AppArgs(home=services.home, scorer_budget_s=20)
        serve.run(build(args), name=APP, route_prefix="/")
        headers = {"Authorization": f"Bearer {services.api_key}"}
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60
        ) as client:
            yield client
    finally:
        serve.shutdown()
