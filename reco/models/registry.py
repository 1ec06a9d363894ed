"""Which model serves.

Versions and aliases in MLflow for people, one small key in Redis for replicas.

A replica reads CHAMPION_KEY and the directory that it names; it never imports mlflow.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import redis

from reco.errors import NotFound
from reco.models.artifact import check_model
from reco.tables import CHAMPION_KEY

MODEL: Final = "reco"
ALIAS: Final = "champion"


@dataclass(frozen=True, slots=True)
class Champion:
    """The model that serves: its version and the directory of its artifact."""

    version: str
    directory: str


def champion(client: redis.Redis) -> Champion | None:
    """The model that serves, None before the first promotion."""
    value = client.get(CHAMPION_KEY)
    return Champion(**json.loads(value)) if value else None


def require_champion(client: redis.Redis) -> Champion:
    """The model that serves, loadable by this program. Raises NotFound, ModelMismatch."""
    found = champion(client)
    if found is None:
        raise NotFound(
            "There is no champion.",
            "No model was trained yet, or the gate let none through; `reco train` says why.",
            "Run `reco train`, or set `promote: always` in its configuration.",
        )
    check_model(found.directory)
    return found


def register(
    directory: str, uri: str, metrics: Mapping[str, float], run_id: str, tags: Mapping[str, str]
) -> str:
    """A new version of the registered model, with its metrics on the run; its number in MLflow."""
    from mlflow.exceptions import MlflowException  # 3 s to import: only where a model is registered
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    for name, value in metrics.items():
        client.log_metric(run_id, name, value)
    try:
        client.create_registered_model(MODEL)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(MODEL, source=directory, run_id=run_id, tags=dict(tags))
    return str(made.version)


def promote(client: redis.Redis, uri: str, number: str, model: Champion) -> None:
    """Let a version serve: alias in MLflow first, then the key that replicas read."""
    from mlflow.tracking import MlflowClient

    MlflowClient(tracking_uri=uri, registry_uri=uri).set_registered_model_alias(
        MODEL, ALIAS, number
    )
    client.set(CHAMPION_KEY, json.dumps({"version": model.version, "directory": model.directory}))
