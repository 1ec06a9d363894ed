"""How to train: configs/train.yaml, checked strictly. Every default is the stock setting."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reco.errors import ConfigError


class Strict(BaseModel):
    """Settings of which none may be misspelt."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TowerConfig(Strict):
    """Stage 1: candidates that are new to a subscriber."""

    dim: int = Field(128, ge=8, le=512, description="length of the vectors")
    learning_rate: float = Field(1e-4, gt=0, description="of the corrections to the spectral start")
    batch: int = Field(256, ge=16, description="subscribers a step")
    dates: int = Field(
        2, ge=0, description="reference dates learned from, one pass each; 0 keeps the start"
    )
    history_dropout: float = Field(
        0.5, ge=0, lt=1, description="share of the bag that is hidden a step"
    )
    id_dropout: float = Field(
        0.1, ge=0, lt=1, description="share of items known by their content alone"
    )
    recent_days: int = Field(
        56, ge=1, description="an item is the sum of its buyers in so many days"
    )
    loss: Literal["auto", "full", "sampled"] = Field(
        "auto", description="auto: full up to full_softmax_items"
    )
    full_softmax_items: int = Field(50_000, ge=1)
    negatives: Literal["mixed", "uniform", "in_batch"] = Field(
        "mixed", description="of the sampled softmax"
    )
    sampled: int = Field(1024, ge=1, description="negatives a step of the sampled softmax")
    logq: Literal["none", "classic", "corrected"] = Field(
        "corrected", description="sampling bias correction"
    )


class RankerConfig(Strict):
    """Stage 2: one head for what a subscriber had, one for what is new."""

    hidden: int = Field(64, ge=4)
    learning_rate: float = Field(3e-3, gt=0, description="peak of a one-cycle schedule")
    weight_decay: float = Field(1e-3, ge=0)
    batch: int = Field(4096, ge=64, description="rows a step")
    epochs: int = Field(3, ge=1)
    popularity_penalty: float = Field(0.04, ge=0, le=1, description="off the logits of repeats")
    repeat_dates: int = Field(4, ge=1, description="reference dates, step_days apart")
    explore_dates: int = Field(4, ge=1, description="reference dates, horizon_days apart")
    step_days: int = Field(21, ge=1)
    candidates: int = Field(200, ge=20, description="new items that stage 1 hands over")
    users_a_date: int = Field(
        10_000, ge=100, description="subscribers sampled for a reference date"
    )


class ResponseConfig(Strict):
    """What shown items earn, learned from mails when there are enough of them."""

    days: int = Field(
        180,
        ge=1,
        description="mails of the last so many days are learned from; at most 8 days that had any",
    )
    clicks_from: int = Field(50, ge=1, description="clicks of people from which on it is learned")
    prior: float = Field(20.0, gt=0, description="clicks that weigh as much as the ranker's word")
    later: float = Field(
        0.25, gt=0, lt=1, description="share of the mails, the latest, that it is calibrated on"
    )
    margin: Literal["price", "same"] = Field(
        "price", description="what a purchase earns: in proportion to the price, or all the same"
    )
    leave_cost: float = Field(5.0, ge=0, description="of a lost reader, in average purchases")


class TrainConfig(Strict):
    """What to learn, from what, and when the result may serve."""

    target: str = Field(
        "auto", description="event type to predict; auto: purchase, else the strongest"
    )
    horizon_days: int = Field(28, ge=1, description="scores are probabilities within so many days")
    repeats: Literal["auto", "keep", "drop"] = Field(
        "auto", description="recommend again what they had?"
    )
    repeats_from: float = Field(
        0.05, ge=0, le=1, description="auto keeps from this share of repeats on"
    )
    touches: Literal["auto", "count", "ignore"] = Field(
        "auto", description="do views and carts count as evidence?"
    )
    touches_from: float = Field(
        0.05, ge=0, le=1, description="auto counts them from this share of looked-at takings on"
    )
    min_item_events: int = Field(
        5, ge=1, description="items with fewer events of the target are left out"
    )
    rating_from: float = Field(4.0, description="a rating counts as liked from here on")
    tower: TowerConfig = TowerConfig()
    ranker: RankerConfig = RankerConfig()
    response: ResponseConfig = ResponseConfig()
    k: int = Field(20, ge=1, description="places that the gate judges")
    workers: int = Field(1, ge=1, description="Ray Train workers")
    max_failures: int = Field(3, ge=0, description="times that a dead worker is replaced")
    seed: int = 0
    promote: Literal["gate", "always", "never"] = "gate"
    simple_below: int = Field(
        50_000, ge=0, description="subscribers below which a simple recommender may serve instead"
    )
    data_floor: int = Field(
        1_000, ge=0, description="events of the target below which no model is trusted"
    )


def load_config(path: Path | None) -> TrainConfig:
    """The settings in a YAML file; the stock ones without it.

    Raises ConfigError with all mistakes.
    """
    if path is None:
        return TrainConfig()
    try:
        return TrainConfig.model_validate(yaml.safe_load(path.read_text()) or {})
    except FileNotFoundError as error:
        raise ConfigError(
            f"There is no file {path}.", "", "Name an existing file, or leave it out."
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML.", str(error), "Correct the file.") from error
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(
            f"{path} does not describe a training run.", mistakes, "Correct these lines."
        ) from error
