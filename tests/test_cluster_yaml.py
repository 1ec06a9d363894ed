import re
from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from reco.settings import Settings
from tests.conftest import ROOT

FILES = [ROOT / "cluster.yaml", ROOT / "configs" / "cluster.local.yaml"]


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


each_cluster = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


@each_cluster
def test_ray_accepts_the_cluster(path):
    validate_config(prepare_config(load(path)))


@each_cluster
def test_a_misspelt_key_would_not_pass(path):
    config = load(path) | {"setup_comands": []}

    with pytest.raises(ValidationError):
        validate_config(prepare_config(config))


def test_there_are_workers_with_and_without_a_gpu():
    config = prepare_config(deepcopy(load(ROOT / "cluster.yaml")))
    workers = {
        name: kind["resources"]
        for name, kind in config["available_node_types"].items()
        if name != config["head_node_type"]
    }

    assert {0, 1} == {resources.get("GPU", 0) for resources in workers.values()}
    assert all(resources["CPU"] > 0 for resources in workers.values())


@each_cluster
def test_nodes_run_the_pinned_project_and_keep_the_dashboard_to_themselves(path):
    config = load(path)
    (head_start,) = (c for c in config["head_start_ray_commands"] if "ray start --head" in c)

    assert any("constraints.txt -e" in command for command in config["setup_commands"])
    assert "--dashboard-host=127.0.0.1" in head_start
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert any("reco.env" in command for command in config[commands])


def test_the_image_holds_the_ray_that_is_pinned():
    (pinned,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    images = re.findall(
        r"rayproject/ray:(\S+?)-py311-(?:cpu|gpu)", (ROOT / "cluster.yaml").read_text()
    )

    assert [pinned, pinned] == images


def test_the_example_environment_names_settings_that_exist():
    names = re.findall(
        r"^(?:# )?RECO_(\w+)=", (ROOT / "configs" / "reco.env.example").read_text(), re.MULTILINE
    )

    assert {name.lower() for name in names} == set(Settings.model_fields) - {"home"}
