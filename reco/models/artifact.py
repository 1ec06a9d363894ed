"""A trained model as files: what training writes, a replica reads, and nothing else.

    config.json            what it was trained for, ordered features, their hash, calibrations
    items.json             item ids, in the order of the rows of every matrix
    heads.safetensors      the two heads of the ranker
    statistics.safetensors what was known of the items as of training; segments of cold subscribers
    tower_*.npy            item vectors in a subscriber's bag and as a candidate, and small tables
    graph.safetensors      which items go together, where that is what retrieves
    response.safetensors   what shown items earn, where there were mails to learn it from
    simple.*               the simple recommender that serves instead, where the gate chose one

No pickles. The directory appears at once, complete, by a rename; every file's hash stands in
config.json.
"""

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash
from safetensors.numpy import load_file, save_file

from reco.errors import ModelMismatch, NotFound
from reco.features.history import LAYOUT
from reco.models.calibration import Calibration
from reco.models.explore import EXPLORE_FEATURES
from reco.models.item_graph import ItemGraph
from reco.models.item_statistics import ItemStatistics
from reco.models.lookalike import Lookalike
from reco.models.plain import Chosen
from reco.models.repeat import REPEAT_FEATURES
from reco.models.response import RESPONSE_FEATURES, Response
from reco.models.taste import USER_COLUMNS
from reco.models.towers import Towers

FORMAT: Final = 1
WAY: Final = "way"  # setting: how stage 1 retrieves (train.tower_stage)
TOUCHED: Final = "touched"  # setting: views and carts count as evidence (features.touches)
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What the model was trained for.

    target        event type that is predicted
    as_of_day     first day that training did not see (features.history.cutoff_day)
    horizon_days  scores are probabilities that the target happens within so many days
    repeats       whether items that a subscriber had are recommended again
    candidates    new items that stage 1 hands to stage 2, a subscriber
    popularity_penalty  taken off the logits of repeats (models.repeat.debiased)
    seed, settings  how it was trained
    """

    target: str
    as_of: str
    as_of_day: int
    horizon_days: int
    repeats: bool
    candidates: int
    popularity_penalty: float
    seed: int
    repeat_calibration: Calibration
    explore_calibration: Calibration
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model in memory: n items, d dimensions.

    item_ids    n ids, in the order of every row
    heads       weights named "repeat.*" and "explore.*"
    graph       None where the towers retrieve
    response    None where too few mails were there to learn from
    chosen      None where the model itself serves
    """

    config: ModelConfig
    item_ids: list[str]
    heads: Arrays
    towers: Towers
    statistics: ItemStatistics
    lookalike: Lookalike
    graph: ItemGraph | None = None
    response: Response | None = None
    chosen: Chosen | None = None

    def save(self, directory: str) -> None:
        """Write all files; readers see the directory complete or not at all.

        An older one is replaced.
        """
        target = Path(directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        save_file(_contiguous(self.heads), work / "heads.safetensors")
        stats = {
            f"items.{f.name}": getattr(self.statistics, f.name) for f in fields(ItemStatistics)
        }
        segments = {
            f"lookalike.{f.name}": getattr(self.lookalike, f.name) for f in fields(Lookalike)
        }
        save_file(_contiguous({**stats, **segments}), work / "statistics.safetensors")
        if self.graph:
            links = {f.name: getattr(self.graph, f.name) for f in fields(ItemGraph)}
            save_file(_contiguous(links), work / "graph.safetensors")
        if self.response:
            parts = {f.name: getattr(self.response, f.name) for f in fields(Response)}
            save_file(_contiguous(parts), work / "response.safetensors")
        if self.chosen:
            self.chosen.save(work)
        for f in fields(Towers):
            np.save(work / f"tower_{f.name}.npy", getattr(self.towers, f.name))
        (work / "items.json").write_text(json.dumps(self.item_ids))
        config = {
            "format": FORMAT,
            "features": feature_hash(),
            "repeat_features": REPEAT_FEATURES,
            "explore_features": EXPLORE_FEATURES,
            **({"response_features": RESPONSE_FEATURES} if self.response else {}),
            "files": {path.name: _digest(path) for path in sorted(work.iterdir())},
            "model": asdict(self.config),
        }
        (work / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True))
        if target.exists():
            shutil.rmtree(target)
        work.replace(target)

    @classmethod
    def load(cls, directory: str) -> "Artifact":
        """Read a model.

        Raises NotFound without one, ModelMismatch when it does not fit this program.
        """
        source, config = Path(directory), read_config(directory)
        arrays = load_file(source / "statistics.safetensors")
        links, response = source / "graph.safetensors", source / "response.safetensors"
        return cls(
            config=config,
            item_ids=json.loads((source / "items.json").read_text()),
            heads=load_file(source / "heads.safetensors"),
            towers=Towers(
                **{f.name: np.load(source / f"tower_{f.name}.npy") for f in fields(Towers)}
            ),
            statistics=ItemStatistics(**_named(arrays, "items.")),
            lookalike=Lookalike(**_named(arrays, "lookalike.")),
            graph=ItemGraph(**load_file(links)) if links.is_file() else None,
            response=Response(**load_file(response)) if response.is_file() else None,
            chosen=Chosen.load(source),
        )


def feature_hash() -> str:
    """Hash of all that program and model must agree on: ordered features, histories, settings."""
    settings = [f.name for f in fields(ModelConfig)]
    agreed = [LAYOUT, REPEAT_FEATURES, EXPLORE_FEATURES, USER_COLUMNS, settings]
    return xxhash.xxh3_64_hexdigest(json.dumps(agreed).encode())


def read_config(directory: str) -> ModelConfig:
    """What the model in a directory was trained for, without its matrices.

    Raises NotFound without one, ModelMismatch when it does not fit this program.
    """
    check_model(directory)
    model = json.loads((Path(directory) / "config.json").read_text())["model"]
    for name in ("repeat_calibration", "explore_calibration"):
        model[name] = Calibration(**model[name] | {"user": tuple(model[name]["user"])})
    return ModelConfig(**model)


def check_model(directory: str) -> None:
    """Raise NotFound or ModelMismatch, as loading would, without reading the matrices."""
    source = Path(directory)
    if not (source / "config.json").is_file():
        raise NotFound(f"There is no model at {directory}.", "", "Run `reco train` first.")
    _check(json.loads((source / "config.json").read_text()), source)


def _check(raw: dict[str, Any], source: Path) -> None:
    answers = raw.get("response_features") in (None, list(RESPONSE_FEATURES))
    if raw.get("format") != FORMAT or raw.get("features") != feature_hash() or not answers:
        raise ModelMismatch(
            f"The model at {source} was trained on other features than this program computes.",
            f"Its features have hash {raw.get('features')}, ours {feature_hash()}.",
            "Train again with this version, or serve with the version that trained it.",
        )
    broken = [name for name, digest in raw["files"].items() if _digest(source / name) != digest]
    if broken:
        raise ModelMismatch(
            f"The model at {source} is damaged.",
            f"Not as written: {', '.join(broken)}.",
            "Copy the directory again, or train again.",
        )


def _digest(path: Path) -> str:
    return xxhash.xxh3_64_hexdigest(path.read_bytes()) if path.is_file() else "missing"


def _contiguous(arrays: Arrays) -> Arrays:
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _named(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
