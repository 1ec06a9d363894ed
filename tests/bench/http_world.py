"""The application behind HTTP for a benchmark, warm, with a stored campaign for single sends.

Import it when the flags of Ray Serve are in the environment: every process of it inherits them.
"""

import time
from pathlib import Path
from typing import Final

import httpx
import ray
from ray import serve

from reco.campaigns.campaign import Campaign
from reco.embedded import Services
from serve.app import build
from serve.app_args import AppArgs
from serve.graph import APP

ROOT: Final = Path(__file__).resolve().parents[2]


def served(services: Services, port: int) -> None:
    """The application on a port of loopback, in a Ray cluster of its own."""
    env = services.environment() | {"PYTHONPATH": str(ROOT)}
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=500_000_000,
        log_to_driver=False,
        runtime_env={"env_vars": env},
    )
    serve.start(
        http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "WARNING"}
    )
    serve.run(build(AppArgs(home=services.home)), name=APP, route_prefix="/")


def stored(services: Services, port: int, campaign: Campaign) -> None:
    """Send a first mail of a campaign, so that its id is enough from now on.

    Raises RuntimeError when that does not work within a minute or so.
    """
    body = {"campaign": campaign.model_dump(mode="json"), "user_id": "u000000"}
    said = ""
    for _ in range(60):
        try:
            answer = ask(services, port, "/v1/send", body)
        except httpx.TransportError as error:  # the proxy is not there yet
            said = str(error)
        else:
            said = answer.text
            if answer.status_code == 200 and answer.json()["state"] == "accepted":
                return
        time.sleep(1)
    raise RuntimeError(f"The first mail cannot be sent: {said}")


def ask(services: Services, port: int, path: str, body: dict[str, object]) -> httpx.Response:
    """One request with the key."""
    headers = {"X-API-Key": services.api_key}
    return httpx.post(f"http://127.0.0.1:{port}{path}", json=body, headers=headers, timeout=60)
