"""configs/serve.yaml is what Ray Serve and the application understand, key by key."""

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import (
    DeploymentSchema,
    HTTPOptionsSchema,
    ServeApplicationSchema,
    ServeDeploySchema,
)

from serve.app import build
from serve.app_args import AppArgs
from serve.model import ScorerConfig
from serve.running import http_root

CONFIG = yaml.safe_load((Path(__file__).parent.parent / "configs" / "serve.yaml").read_text())


def unknown(section: dict[str, object], schema: type[BaseModel]) -> set[str]:
    """Keys that Ray would silently ignore."""
    return section.keys() - schema.model_fields.keys()


def test_ray_accepts_it_and_ignores_nothing():
    ServeDeploySchema.model_validate(CONFIG)

    assert not unknown(CONFIG, ServeDeploySchema)
    assert not unknown(CONFIG["http_options"], HTTPOptionsSchema)
    for app in CONFIG["applications"]:
        assert not unknown(app, ServeApplicationSchema)
        for deployment in app["deployments"]:
            assert not unknown(deployment, DeploymentSchema)


def test_it_listens_on_the_loopback_only():
    assert CONFIG["http_options"]["host"] == "127.0.0.1"


def test_it_is_said_where_it_will_answer(tmp_path):
    (tmp_path / "serve.yaml").write_text("applications: [{import_path: serve.app:build}]\n")
    stock = Path(__file__).parent.parent / "configs" / "serve.yaml"

    assert http_root(stock) == http_root(tmp_path / "serve.yaml") == "http://127.0.0.1:8000"


def test_arguments_and_deployments_are_those_of_the_application(tmp_path):
    (app,) = CONFIG["applications"]
    built = build(AppArgs.model_validate(app["args"] | {"home": str(tmp_path)}))
    scorer = next(d for d in app["deployments"] if d["name"] == "Scorer")

    assert app["import_path"] == "serve.app:build"
    assert built._bound_deployment.name == "Gateway"
    assert {d["name"] for d in app["deployments"]} == {
        "Gateway",
        "Features",
        "Scorer",
        "Rules",
        "Renderer",
    }
    assert ScorerConfig.model_validate(scorer["user_config"]) == ScorerConfig()


def test_batches_fit_into_what_a_replica_takes():
    from serve.gateway import GATHERED, GROUPS_AT_ONCE

    (app,) = CONFIG["applications"]
    gateway = next(d for d in app["deployments"] if d["name"] == "Gateway")

    assert gateway["max_ongoing_requests"] >= GATHERED * GROUPS_AT_ONCE


@pytest.mark.parametrize("args", [{"modell": "x"}, {"device": "tpu"}, {"scorer_budget_s": 0}])
def test_wrong_arguments_are_refused(args):
    with pytest.raises(ValidationError):
        AppArgs.model_validate(args)
