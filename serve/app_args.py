"""Arguments of the application: what a command knows of it that uses one which runs already."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class AppArgs(BaseModel):
    """Arguments of the application: `args:` of configs/serve.yaml, or key=value after serve run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path | None = Field(None, description="embedded state; default RECO_HOME, else .reco")
    model: str | None = Field(None, description="directory of an artifact; default the champion")
    device: Literal["cpu", "cuda"] = Field("cpu", description="where the Scorer computes")
    scorer_budget_s: float = Field(15.0, gt=0, description="then a chunk goes on without a model")
    door_budget_s: float = Field(1.0, gt=0, description="the same, of single sends and questions")
