"""What a simple recommender has learned, as arrays: enough to serve from an artifact.

popular, frequency, collaborative and content (NAMES) over the n items of a model. The gate lets one
of them serve where there is too little to be sure of more (train.choice).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from safetensors.numpy import load_file, save_file

from reco.catalogue import Catalogue
from reco.models.calibration import Calibration
from reco.models.collaborative import Collaborative
from reco.models.content import Content
from reco.models.picks import NO, Mask, Picks
from reco.models.slates import Reason

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int32]
Arrays = dict[str, npt.NDArray[Any]]
NAMES: Final = ("popular", "frequency", "content", "collaborative")  # simplest first
REASONS: Final = {
    "popular": Reason.POPULAR, "frequency": Reason.POPULAR,
    "collaborative": Reason.BOUGHT_TOGETHER, "content": Reason.BOUGHT_TOGETHER,
}  # fmt: skip
ARRAYS, FACTS, POPULAR = "simple.safetensors", "simple.json", "recent_takers"  # in an artifact
FAINT: Final = np.float32(1e-6)  # of popularity, which fills up below a recommender's own scores


@dataclass(frozen=True, slots=True)
class Plain:
    """A simple recommender.

    popular  float64 [n] recent takers; arrays: what it learned, by name
    """

    name: str
    popular: npt.NDArray[np.float64]
    arrays: Arrays

    @classmethod
    def fit(
        cls, name: str, bags: sp.csr_matrix, popular: npt.NDArray[np.float64],
        catalogue: Catalogue, rows: npt.NDArray[np.int32],
    ) -> "Plain":  # fmt: skip
        """From decayed bags [users, n] of everybody, and the catalogue's `rows` [n]."""
        if name == "collaborative":
            return cls(name, popular, Collaborative.fit(bags).arrays())
        if name == "content":
            return cls(name, popular, Content.of(catalogue, rows, popular).arrays())
        return cls(name, popular, {})

    def scores(self, bags: sp.csr_matrix) -> Floats:
        """Scores [users, n] of all items; 0 for those that nothing speaks for."""
        share = (self.popular / max(self.popular.max(initial=1), 1)).astype(np.float32)
        if self.name == "popular":
            everybody: Floats = np.tile(share, (bags.shape[0], 1))
            return everybody
        if self.name == "frequency":
            own = np.asarray(bags.todense(), np.float32)
        elif self.name == "content":
            own = Content.from_arrays(self.arrays).scores(bags)
        else:
            own = np.maximum(Collaborative.from_arrays(self.arrays).scores(bags), 0)
        found: Floats = own + FAINT * share
        return found

    def likeness(self, taken: Rows, weight: Floats, picks: Rows) -> Floats:
        """How much each taken item speaks for each pick [taken, picks] (models.because)."""
        if self.name == "content":
            return Content.from_arrays(self.arrays).likeness(taken, weight, picks)
        if self.name == "collaborative":
            return Collaborative.from_arrays(self.arrays).likeness(taken, weight, picks)
        return np.zeros((len(taken), len(picks)), np.float32)


def logits(scores: Floats) -> Floats:
    """Scores as a calibration takes them; their order stays."""
    out: Floats = np.log(np.maximum(scores, np.float32(1e-12))).astype(np.float32)
    return out


@dataclass(frozen=True, slots=True)
class Chosen:
    """A simple recommender that serves: how its scores become probabilities, and why it does."""

    plain: Plain
    calibration: Calibration
    why: str

    def picks(self, bags: sp.csr_matrix, usable: Mask, count: int, *, drop_seen: bool) -> Picks:
        """Best `count` of the `usable` [n] items for decayed bags [users, n]."""
        scores = self.plain.scores(bags)
        owner = np.repeat(np.arange(bags.shape[0]), np.diff(bags.indptr))
        reason = np.full(scores.shape, REASONS[self.plain.name], np.uint8)
        reason[owner, bags.indices] = Reason.REPEAT
        if drop_seen:
            scores[owner, bags.indices] = 0
        scores[:, ~usable] = 0
        row = np.argpartition(-scores, min(count, scores.shape[1] - 1), axis=1)[:, :count]
        value = np.take_along_axis(scores, row, axis=1)
        chance = self.calibration.probability(logits(value), np.zeros(0, np.float32))
        return Picks(
            np.where(value > 0, row, -1).astype(np.int32),
            np.where(value > 0, chance, np.float32(NO)),
            np.take_along_axis(reason, row, axis=1),
        )

    def save(self, folder: Path) -> None:
        """Write its two files."""
        arrays = {**self.plain.arrays, POPULAR: self.plain.popular}
        save_file({k: np.ascontiguousarray(a) for k, a in arrays.items()}, folder / ARRAYS)
        said = {"name": self.plain.name, "why": self.why, "calibration": asdict(self.calibration)}
        (folder / FACTS).write_text(json.dumps(said, indent=1, sort_keys=True))

    @classmethod
    def load(cls, folder: Path) -> "Chosen | None":
        """The reverse of `save`; None where a model serves."""
        if not (folder / FACTS).is_file():
            return None
        said, arrays = json.loads((folder / FACTS).read_text()), load_file(folder / ARRAYS)
        plain = Plain(said["name"], arrays.pop(POPULAR), arrays)
        calibration = Calibration(said["calibration"]["slope"], said["calibration"]["intercept"])
        return cls(plain, calibration, said["why"])
