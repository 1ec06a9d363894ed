"""Copy that a campaign tries: subject lines and values of template variables, arms of a bandit.

Takes the `variants:` of a campaign and the weights learned so far, gives each recipient an arm of
each slot, with its propensity. The same recipient always gets the same copy of a campaign.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from reco.experiments.assignment import arms

SUBJECT: Final = "subject"  # the slot that is the subject line; any other is a template variable
PLACE: Final = "place/"  # and its number: the slot of an item that was drawn
MOST: Final = 24  # combinations of one campaign; each is compiled once

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=500)]
Weights = dict[str, float]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The arm of one slot in one mail, and how likely it was."""

    slot: str
    arm: str
    propensity: float
    segment: str


def in_places(items: Sequence[str], chance: float, segment: str) -> tuple[Chosen, ...]:
    """Items that were drawn for the places of a mail; no slot of copy has such a name."""
    return tuple(
        Chosen(f"{PLACE}{number}", item, chance, segment) for number, item in enumerate(items)
    )


class Variants(BaseModel):
    """`variants:` of a campaign. `weights` are filled in by the run, from what was learned."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: Name | None = Field(None, description="campaigns of one key learn together; default id")
    floor: float = Field(0.05, ge=0, lt=0.5, description="least share of any arm")
    window_hours: float = Field(72, gt=0, description="a click counts for so long, no longer")
    slots: dict[Name, dict[Name, Text]] = Field(
        min_length=1, description="subject, or a variable of the template: arm -> text"
    )
    weights: dict[Name, dict[str, Weights]] = Field(
        {}, description="by slot and segment; made by the run, equal where it knows nothing"
    )

    @model_validator(mode="after")
    def _can_be_tried(self) -> Self:
        combinations = 1
        for slot, texts in self.slots.items():
            if len(texts) < 2:
                raise ValueError(f"variants.{slot} needs at least two arms to choose from")
            if self.floor * len(texts) >= 1:
                raise ValueError(
                    f"variants.{slot}: the floors of {len(texts)} arms leave no choice"
                )
            combinations *= len(texts)
        if combinations > MOST:
            raise ValueError(f"variants have {combinations} combinations, more than {MOST}")
        return self

    @property
    def window(self) -> timedelta:
        """How long a click counts."""
        return timedelta(hours=self.window_hours)

    def choose(self, salt: str, user_id: str, segment: str) -> tuple[Chosen, ...]:
        """The copy of one recipient; slots are drawn independently of each other."""
        chosen = []
        for slot, texts in self.slots.items():
            weights = self.weights.get(slot, {}).get(segment) or dict.fromkeys(texts, 1.0)
            (arm,) = arms(f"{salt}/copy/{slot}", [user_id], weights)
            chosen.append(Chosen(slot, arm, weights[arm] / sum(weights.values()), segment))
        return tuple(chosen)

    def texts(self, chosen: tuple[Chosen, ...]) -> dict[str, str]:
        """Text of each slot."""
        return {one.slot: self.slots[one.slot][one.arm] for one in chosen}
