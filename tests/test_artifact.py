import json
from pathlib import Path

import numpy as np
import pytest

from reco.errors import ModelMismatch, NotFound
from reco.models.artifact import Artifact, check_model
from reco.models.scorer import Scorer
from tests.model_world import artifact_of, catalogue_of

CATALOGUE = catalogue_of(300)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    directory = tmp_path / "models" / "v1"
    artifact_of(CATALOGUE).save(str(directory))
    return directory


def test_a_model_comes_back_as_it_was(saved: Path) -> None:
    written, read = artifact_of(CATALOGUE), Artifact.load(str(saved))

    assert read.config == written.config
    assert read.item_ids == written.item_ids
    assert (read.towers.item == written.towers.item).all()
    assert (read.statistics.features == written.statistics.features).all()
    assert (read.lookalike.lift == written.lookalike.lift).all()
    assert {name: array.shape for name, array in read.heads.items()} == {
        name: array.shape for name, array in written.heads.items()
    }


def test_there_are_no_pickles(saved: Path) -> None:
    suffixes = {path.suffix for path in saved.iterdir()}

    assert suffixes == {".json", ".safetensors", ".npy"}
    for path in saved.glob("*.npy"):
        np.load(path, allow_pickle=False)


def test_saving_leaves_nothing_else_behind(saved: Path) -> None:
    artifact_of(CATALOGUE, candidates=33).save(str(saved))  # over an older one

    assert [path.name for path in saved.parent.iterdir()] == ["v1"]
    assert Artifact.load(str(saved)).config.candidates == 33


def test_a_missing_model_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model"):
        Scorer.load(str(tmp_path / "nowhere"), CATALOGUE)


def test_a_model_of_other_features_is_refused(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["features"] = "0" * 16
    (saved / "config.json").write_text(json.dumps(config))

    with pytest.raises(ModelMismatch, match="other features"):
        check_model(str(saved))


@pytest.mark.parametrize("name", ["heads.safetensors", "tower_item.npy", "items.json"])
def test_a_damaged_file_is_refused(saved: Path, name: str) -> None:
    content = bytearray((saved / name).read_bytes())
    content[-1] ^= 1
    (saved / name).write_bytes(content)

    with pytest.raises(ModelMismatch, match=name):
        Artifact.load(str(saved))


def test_the_version_is_the_name_of_the_directory(saved: Path) -> None:
    assert Scorer.load(str(saved), CATALOGUE).version == "v1"
