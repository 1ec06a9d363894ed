"""The report's plots as SVG text: no script, colours by CSS class so that dark mode follows.

Each function takes finished numbers and gives one <svg> to be put into the page as it is.
"""

import math
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from reco.experiments.analysis import ArmEstimate
from reco.models.slates import Rung
from reco.outcomes.delivery import Latency
from reco.outcomes.exposure import Exposure
from reco.outcomes.wording import milliseconds

WIDTH: Final = 600  # units of every viewBox; the page scales it
LABELS: Final = 104  # left margin that holds the names
NAME_LENGTH: Final = 14  # longer names are cut, with the whole one as a tooltip
VALUES: Final = 90  # right margin that holds the numbers
ROW: Final = 30
ARMS: Final = 6  # classes a0 (the control) … a5 of the style sheet
RUNGS: Final = tuple(rung.name.lower() for rung in Rung)  # classes r0 … r6
LINE: Final = "M{:.1f},{:.1f}V{:.1f}"


def intervals(arms: Sequence[ArmEstimate], show: Callable[[float], str]) -> str:
    """A dot with its confidence limits for each arm, on one axis that holds 0."""
    ends = [v for a in arms for v in (a.estimate.value, a.estimate.low, a.estimate.high)]
    known = [v for v in ends if math.isfinite(v)] or [0.0]
    steps = ticks(min(known), max(known))
    x = _linear(steps[0], steps[-1])
    height = ROW * len(arms) + 30
    parts = _grid([(x(t), _short(show(t))) for t in steps], height - 24)
    for i, arm in enumerate(arms):
        y, e = ROW * i + 20, arm.estimate
        parts.append(_name(y + 4, arm.arm))
        if not math.isfinite(e.value):
            continue
        if math.isfinite(e.low):
            low, high = x(e.low), x(e.high)
            parts.append(f'<path class="whisker a{i % ARMS}" d="M{low:.1f},{y}H{high:.1f}"/>')
        parts.append(f'<circle class="dot a{i % ARMS}" cx="{x(e.value):.1f}" cy="{y}" r="5"/>')
        parts.append(_text(WIDTH - VALUES + 12, y + 4, show(e.value), "value"))
    return _svg(height, "Estimates by arm with confidence intervals", parts)


def latency(stages: Sequence[Latency]) -> str:
    """From p50 by p95 to p99 for each stage, milliseconds on a logarithmic axis."""
    floor = 10.0 ** math.floor(math.log10(max(min(s.p50_ms for s in stages), 0.01)))
    roof = 10.0 ** math.ceil(math.log10(max(*(s.p99_ms for s in stages), floor * 10)))
    x = _logarithmic(floor, roof)
    decades = [floor * 10**i for i in range(round(math.log10(roof / floor)) + 1)]
    height = ROW * len(stages) + 30
    parts = _grid([(x(d), milliseconds(d)) for d in decades], height - 24)
    for i, stage in enumerate(stages):
        y = ROW * i + 20
        p50, p95, p99 = (x(max(v, floor)) for v in (stage.p50_ms, stage.p95_ms, stage.p99_ms))
        parts += [
            _name(y + 4, stage.stage),
            f'<path class="whisker a1" d="M{p50:.1f},{y}H{p99:.1f}"/>',
            f'<circle class="dot a1" cx="{p50:.1f}" cy="{y}" r="5"/>',
            f'<path class="tick a1" d="{LINE.format(p95, y - 7, y + 7)}"/>',
            f'<path class="tick a1" d="{LINE.format(p99, y - 4, y + 4)}"/>',
            _text(WIDTH - VALUES + 12, y + 4, f"p95 {milliseconds(stage.p95_ms)}", "value"),
        ]
    return _svg(height, "Latency of each stage: p50, p95, p99", parts)


def rungs(shown: Sequence[Exposure]) -> str:
    """A bar an arm, cut into the shares of its mails by the rung of their weakest pick."""
    names = [name for name in RUNGS if any(name in e.rungs for e in shown)]
    width = WIDTH - LABELS
    parts = []
    for i, exposure in enumerate(shown):
        y, left = ROW * i + 6, float(LABELS)
        parts.append(_name(y + 15, exposure.arm))
        for name, share in exposure.rungs.items():
            size = width * share
            parts.append(_bar(name, (left, y), (max(size - 1, 0.5), 20), f"{name}: {share:.1%}"))
            if share > 0.12:
                parts.append(
                    _text(left + 8, y + 14, f"{share:.0%}", f"inside on{RUNGS.index(name)}")
                )
            left += size
    y, left = ROW * len(shown) + 22, float(LABELS)
    for name in names:
        parts.append(_bar(name, (left, y - 9), (10, 10), name))
        parts.append(_text(left + 15, y, name, "legend"))
        left += 34 + 7 * len(name)
    return _svg(ROW * len(shown) + 34, "Share of mails by rung of the fallback ladder", parts)


def curve(shown: Sequence[Exposure]) -> str:
    """Share of the slots that the n most shown items take: further right means more variety."""
    height, base = 240, 208
    last = max((e.curve[-1][0] for e in shown if e.curve), default=10)
    x = _logarithmic(1.0, 10.0 ** math.ceil(math.log10(max(last, 10))))
    decades = [10**i for i in range(math.ceil(math.log10(max(last, 10))) + 1)]
    parts = _grid([(x(d), f"{d:,}") for d in decades], base)
    for share in (0.0, 0.5, 1.0):
        y = base - share * (base - 12)
        parts.append(f'<path class="grid" d="M{LABELS},{y:.1f}H{WIDTH - VALUES}"/>')
        parts.append(_text(LABELS - 12, y + 4, f"{share:.0%}", "level"))
    for i, exposure in enumerate(shown):
        points = [(x(rank), base - share * (base - 12)) for rank, share in exposure.curve]
        if not points:
            continue
        line = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline class="line a{i % ARMS}" points="{line}"/>')
        end = points[-1]
        parts.append(f'<circle class="dot a{i % ARMS}" cx="{end[0]:.1f}" cy="{end[1]:.1f}" r="4"/>')
        y = 40 + 18 * i
        parts.append(f'<circle class="dot a{i % ARMS}" cx="{WIDTH - VALUES + 18}" cy="{y}" r="4"/>')
        parts.append(_text(WIDTH - VALUES + 28, y + 4, _cut(exposure.arm, 10), "legend"))
    return _svg(height, "Share of slots taken by the most shown items", parts)


def ticks(low: float, high: float) -> list[float]:
    """Two to seven round numbers that span both values and 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-12:
        return [0.0, 1.0]
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw)
    return [step * i for i in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _linear(low: float, high: float) -> Callable[[float], float]:
    return lambda v: LABELS + (v - low) / (high - low) * (WIDTH - LABELS - VALUES)


def _logarithmic(low: float, high: float) -> Callable[[float], float]:
    scale = _linear(math.log10(low), math.log10(high))
    return lambda v: scale(math.log10(v))


def _grid(marks: Sequence[tuple[float, str]], base: float) -> list[str]:
    lines = [f'<path class="grid" d="{LINE.format(x, 6, base)}"/>' for x, _ in marks]
    return lines + [_text(x, base + 17, label, "axis") for x, label in marks]


def _bar(rung: str, at: tuple[float, float], size: tuple[float, float], title: str) -> str:
    place = f'x="{at[0]:.1f}" y="{at[1]:.1f}" width="{size[0]:.1f}" height="{size[1]}"'
    return f'<rect class="r{RUNGS.index(rung)}" {place}><title>{escape(title)}</title></rect>'


def _name(y: float, name: str) -> str:
    words = escape(_cut(name, NAME_LENGTH))
    return f'<text x="0" y="{y:.1f}">{words}<title>{escape(name)}</title></text>'


def _cut(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _short(number: str) -> str:
    """A tick without the zeros that a measured value needs: $2.00 is $2, 0.500 is 0.5."""
    return re.sub(r"\.?0+(?=\D*$)", "", number) if "." in number else number


def _text(x: float, y: float, words: str, role: str) -> str:
    return f'<text class="{role}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )
