"""Every YAML in the repository loads as strictly as the program that it is for."""

import importlib
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from reco.campaigns.campaign import Campaign
from reco.campaigns.campaign import load as load_campaign
from reco.campaigns.yaml_config import read_config
from reco.errors import ConfigError
from reco.events.mapping import load_mapping
from reco.outcomes.bands import read_bands
from tests.conftest import ROOT
from train.config import TrainConfig

FILES = sorted([*(ROOT / "configs").rglob("*.y*ml"), ROOT / "cluster.yaml"])


def models(annotation: object) -> Iterator[type[BaseModel]]:
    """The pydantic models that an annotation speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from models(argument)


def unknown_keys(data: object, choices: list[type[BaseModel]], at: str = "") -> Iterator[str]:
    """Keys that no model has. Ray Serve itself accepts any."""
    if isinstance(data, list):
        for i, entry in enumerate(data):
            yield from unknown_keys(entry, choices, f"{at}[{i}]")
    elif isinstance(data, dict) and choices:
        fields = {name: f for model in choices for name, f in model.model_fields.items()}
        for key, value in data.items():
            if key not in fields:
                yield f"{at}.{key}"
            else:
                yield from unknown_keys(value, [*models(fields[key].annotation)], f"{at}.{key}")


def load_serve(path: Path) -> None:
    """As `serve run` does, and stricter; the arguments as the builder of the application."""
    config = yaml.safe_load(path.read_text())
    unknown = list(unknown_keys(config, [ServeDeploySchema]))
    if unknown:
        raise ConfigError(f"{path} has unknown keys.", ", ".join(unknown))
    schema = ServeDeploySchema.model_validate(config)
    assert schema.http_options.host == "127.0.0.1"
    for application in schema.applications:
        module, _, name = application.import_path.partition(":")
        builder = getattr(importlib.import_module(module), name)
        (arguments,) = typing.get_type_hints(builder, include_extras=False).keys() - {"return"}
        typing.get_type_hints(builder)[arguments].model_validate(application.args)


def load_cluster(path: Path) -> None:
    validate_config(prepare_config(yaml.safe_load(path.read_text())))


def load_rules(path: Path) -> None:
    """Prometheus itself is asked in test_monitoring, where it is installed."""
    known = {"name", "rules", "alert", "expr", "for", "labels", "annotations"}
    data = yaml.safe_load(path.read_text())
    entries = [*data.get("groups", []), *(r for g in data["groups"] for r in g["rules"])]
    unknown = [*(data.keys() - {"groups"}), *(key for e in entries for key in e.keys() - known)]
    if unknown:
        raise ConfigError(f"{path} has unknown keys.", ", ".join(unknown))


LOADERS: dict[str, Callable[[Path], object]] = {
    r"configs/campaigns/.*": load_campaign,
    r"configs/mappings/.*": load_mapping,
    r"configs/alerts/bands.*": read_bands,
    r"configs/alerts/.*\.rules.*": load_rules,
    r"configs/train.*": lambda path: read_config(path, TrainConfig),
    r"configs/serve.*": load_serve,
    r"(configs/)?cluster.*": load_cluster,
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def loader_of(path: Path) -> Callable[[Path], object]:
    for pattern, loader in LOADERS.items():
        if re.fullmatch(pattern, name_of(path)):
            return loader
    pytest.fail(f"no loader is known for {name_of(path)}: add it to LOADERS")


each_config = pytest.mark.parametrize("path", FILES, ids=name_of)


@each_config
def test_it_loads(path):
    loader_of(path)(path)


@each_config
def test_a_misspelt_key_does_not(path, tmp_path):
    copy = path.with_name(f"{path.stem}.misspelt-copy{path.suffix}")
    copy.write_text(path.read_text() + "\nmisspelt_key: 1\n")
    try:
        with pytest.raises(Exception, match=r"misspelt_key"):
            loader_of(path)(copy)
    finally:
        copy.unlink()


@each_config
def test_its_header_holds_the_command_that_uses_it(path):
    header = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        header.append(line)

    assert re.search(r"\b(reco|ray|serve|python -m reco) [a-z]+ .*\.ya?ml", "\n".join(header), re.S)


def test_a_misspelt_key_deep_in_a_serve_config_is_found():
    deployment = {"name": "Scorer", "max_ongoing_request": 5, "autoscaling_config": {"min": 1}}
    config = {"applications": [{"import_path": "a:b", "deployments": [deployment]}]}

    assert [
        ".applications[0].deployments[0].max_ongoing_request",
        ".applications[0].deployments[0].autoscaling_config.min",
    ] == list(unknown_keys(config, [ServeDeploySchema]))


def parts_of(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A model and those of its fields."""
    yield model
    for field in model.model_fields.values():
        for inner in models(field.annotation):
            yield from parts_of(inner)


def test_one_campaign_explains_every_key():
    path = ROOT / "configs" / "campaigns" / "every_key.yaml"
    text = path.read_text()

    missing = {
        f"{model.__name__}.{name}"
        for model in parts_of(Campaign)
        for name in model.model_fields
        if not re.search(rf"\b{name}:\s", text)
    }
    assert not missing
    assert load_campaign(path).model_fields_set == set(Campaign.model_fields)
