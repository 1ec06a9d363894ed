"""The last stage: heads for click, purchase after a click, and leaving, over what mails showed.

ESMM (Ma and others, 2018): click and click-and-purchase are both learned on all shown items, so
the chance of a purchase after a click is not that of the few who clicked. The heads start as the
ranker and are drawn towards it, so few mails change little. Later mails, which the weights have
not seen, calibrate them, and refuse them unless they surely foretell these better than the ranker
alone.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import structlog
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reco.models.artifact import Artifact
from reco.models.calibration import Calibration
from reco.models.response import HEADS, RESPONSE_FEATURES, Response, margins
from train.config import ResponseConfig
from train.impressions import Rows

log = structlog.get_logger()

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
ORGANIC: Final = RESPONSE_FEATURES.index("organic")
CLICK, PURCHASE, LEAVE = range(len(HEADS))
SURELY: Final = 1.96  # standard errors by which they must foretell better
STEPS: Final = 50  # of an epoch, each over all rows


class Heads(nn.Module):
    """Logits [r, 3] = z @ weight + bias of standardised features z; `start` is the ranker's word.

    start [f, 3]: the logit of a click is at first that of taking the item without a mail, shifted.
    """

    def __init__(self, x: Tensor, rates: Tensor) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.start: Tensor
        scale = x.std(dim=0, correction=0)
        self.register_buffer("mean", x.mean(dim=0))
        self.register_buffer("scale", torch.where(scale > 1e-6, scale, torch.ones_like(scale)))
        start = torch.zeros(x.shape[1], len(HEADS))
        start[ORGANIC, CLICK] = self.scale[ORGANIC]
        self.register_buffer("start", start)
        self.weight = nn.Parameter(start.clone())
        self.bias = nn.Parameter(torch.logit(rates))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of rows x [r, f] of features as they are."""
        out: Tensor = ((x - self.mean) / self.scale) @ self.weight + self.bias
        return out

    def plain(self) -> tuple[Floats, Floats]:
        """Weights [f, 3] and bias [3] of features as they are."""
        weight = (self.weight / self.scale[:, None]).detach()
        bias = self.bias.detach() - self.mean @ weight
        return weight.numpy(), bias.numpy()


class ResponseStage:
    """Heads over rows that every worker has: all take the same steps."""

    name, epochs, passes, rate, weight_decay = "response", 3, 3, 0.1, 0.0

    def __init__(self, rows: Rows, prior: float) -> None:
        self._x = torch.from_numpy(rows.x)
        self._prior = prior
        clicked, bought, left = (_known(y) for y in (rows.clicked, rows.bought, rows.left))
        trust = torch.from_numpy(rows.trust)
        self._click = clicked[0], clicked[1] * trust
        # An item that nobody clicked was not bought through the mail.
        closed = bought[1] + clicked[1] * (1 - clicked[0])
        self._both = bought[0], closed * trust
        slots = torch.from_numpy(1 / np.bincount(rows.mail)[rows.mail].astype(np.float32))
        self._left = left[0], left[1] * slots
        of_clicked = bought[0], bought[1] * trust
        self._heads = Heads(
            self._x, torch.stack([_rate(*y) for y in (self._click, of_clicked, self._left)])
        )

    @property
    def module(self) -> nn.Module:
        """The heads."""
        return self._heads

    @property
    def heads(self) -> Heads:
        """The heads."""
        return self._heads

    def steps(self) -> int:
        """Steps of an epoch, the same on every worker."""
        return STEPS

    def losses(self, epoch: int) -> Iterator[tuple[Tensor, int]]:
        """Each step is over all rows."""
        for _ in range(STEPS):
            yield self._loss(), len(self._x)

    def _loss(self) -> Tensor:
        """Mean negative log likelihood of the labels, and the pull of the prior."""
        z = self._heads(self._x)
        click, both = (
            F.logsigmoid(z[:, CLICK]),
            F.logsigmoid(z[:, CLICK]) + F.logsigmoid(z[:, PURCHASE]),
        )
        total = _negative_log_likelihood(click, *self._click)
        total = total + _negative_log_likelihood(both, *self._both)
        total = total + _negative_log_likelihood(F.logsigmoid(z[:, LEAVE]), *self._left)
        away = (self._heads.weight - self._heads.start).square().sum()
        return (total + self._prior / 2 * away) / max(len(self._x), 1)


def learned(rows: Rows, config: ResponseConfig) -> tuple[Rows, Rows] | None:
    """Earlier and later mails; None where too few clicks of people are among them."""
    mails = np.unique(rows.mail)
    first = mails[int(len(mails) * (1 - config.later))] if len(mails) else 0
    early, late = rows.take(rows.mail < first), rows.take(rows.mail >= first)
    clicks = np.nansum(early.clicked), np.nansum(late.clicked)
    if sum(clicks) < config.clicks_from or not clicks[1]:
        log.info("mails teach nothing yet", clicks=int(sum(clicks)), needed=config.clicks_from)
        return None
    return early, late


def response(
    heads: Heads, early: Rows, late: Rows, artifact: Artifact, config: ResponseConfig
) -> Response | None:
    """The heads, calibrated on later mails; None unless they surely foretell these better."""
    with torch.no_grad():
        z = heads(torch.from_numpy(late.x)).numpy()
    mail = np.diff(late.mail, prepend=-1) > 0  # one row stands for a mail
    labels = (late.clicked, late.bought, np.where(mail, late.left, np.nan).astype(np.float32))
    platt = [calibrated(z[:, i], label) for i, label in enumerate(labels)]
    known = np.isfinite(late.clicked)
    gain = likelihoods(z[known, CLICK], late.clicked[known])
    gain -= likelihoods(late.x[known, ORGANIC], late.clicked[known])
    chance = float(gain.std()) / max(len(gain), 1) ** 0.5
    kept = bool(gain.mean() > SURELY * chance)
    log.info("mails have taught", shown=len(gain), gain_nats=round(float(gain.mean()), 5),
             by_chance=round(chance, 5), kept=kept)  # fmt: skip
    if not kept:
        return None
    weight, bias = heads.plain()
    by_price = config.margin == "price"
    return Response(
        weight=weight,
        bias=bias,
        low=early.x.min(axis=0),
        high=early.x.max(axis=0),
        platt=np.array([(c.slope, c.intercept) for c in platt], np.float32),
        margin=margins(artifact.statistics.price, by_price),
        leave_cost=np.array([config.leave_cost], np.float32),
    )


def calibrated(logits: Floats, label: Floats) -> Calibration:
    """Platt's map on the rows with a label; the identity where nothing happened."""
    known = np.isfinite(label)
    if not np.nansum(label):
        return Calibration()
    nobody = np.zeros((int(known.sum()), 0), np.float32)
    return Calibration.fit(logits[known], nobody, label[known])


def likelihoods(logits: Floats, happened: Floats) -> Doubles:
    """Log likelihood of each row after Platt's map of all: two numbers to fit, for whoever."""
    c = calibrated(logits, happened)
    z = c.slope * logits.astype(np.float64) + c.intercept
    found: Doubles = happened * z - np.logaddexp(0, z)
    return found


def _known(label: Floats) -> tuple[Tensor, Tensor]:
    """The label with 0 for what is not known, and whether it is."""
    known = np.isfinite(label)
    return torch.from_numpy(np.where(known, label, 0).astype(np.float32)), torch.from_numpy(
        known.astype(np.float32)
    )


def _rate(label: Tensor, weight: Tensor) -> Tensor:
    """Share that happened, with one imagined hit in two."""
    return ((label * weight).sum() + 1) / (weight.sum() + 2)


def _negative_log_likelihood(log_p: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Of labels that happen with probability exp(log_p)."""
    log_not = torch.log1p(-log_p.exp().clamp(max=1 - 1e-6))
    return -(weight * (label * log_p + (1 - label) * log_not)).sum()
